"""A sweep's parameters as Optuna knows them: an axis for each that has several values, `seed` left out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.plan.distributions import TAIL, AxisKind, Parameter, draw, quantile
from sweeps.plan.parameters import as_yaml
from sweeps.plan.spec import Sweep

_PLAIN = (bool, int, float, str, type(None))  # what Optuna takes as a choice


class Axis(Protocol):
    """Where a parameter's values lie for Optuna: its positions are numbers or choices of `distribution`."""

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution from which Optuna suggests positions on this axis."""
        ...

    def value(self, position: Any) -> Any:
        """The parameter's value there."""
        ...

    def position(self, value: Any) -> Any:
        """The position at which a value lies on the axis.

        Raises:
            ValueError: it is none of the parameter's.
        """
        ...


@dataclass(frozen=True)
class ListAxis:
    """Listed values, in no order; those that Optuna does not take, such as pairs, by their text."""

    parameter: Parameter

    @property
    def distribution(self) -> CategoricalDistribution:
        """The distribution from which Optuna suggests positions on this axis."""
        return CategoricalDistribution([v if isinstance(v, _PLAIN) else as_yaml(v) for v in self.parameter.choices])

    def value(self, position: Any) -> Any:
        """The listed value that stands behind a choice."""
        return self.parameter.choices[self.distribution.choices.index(position)]

    def position(self, value: Any) -> Any:
        """The choice that stands for a listed value."""
        return self.distribution.choices[self.parameter.choices.index(value)]


@dataclass(frozen=True)
class RangeAxis:
    """Uniform and log-uniform distributions; W&B's inverse log-uniform ones are uniform in the logarithm too.

    Rounding to multiples of q comes after Optuna's choice, except for whole q without logarithm, which it knows.
    """

    parameter: Parameter

    @property
    def distribution(self) -> FloatDistribution | IntDistribution:
        """The distribution from which Optuna suggests positions on this axis."""
        parameter, (low, high) = self.parameter, self.parameter.support
        kind = parameter.kind
        if kind.whole:
            return IntDistribution(int(low), int(high))
        if kind.quantised and not kind.logarithmic and isinstance(parameter.q, int):
            first, last = (int(step) for step in parameter.steps)
            return IntDistribution(first * parameter.q, last * parameter.q, step=parameter.q)
        return FloatDistribution(low, high, log=kind.logarithmic)

    def value(self, position: Any) -> Any:
        """The multiple of q next to it."""
        return self.parameter.on_grid(position)

    def position(self, value: Any) -> Any:
        """The nearest number that Optuna may suggest."""
        distribution = self.distribution
        return min(max(self.parameter.on_grid(value), distribution.low), distribution.high)


@dataclass(frozen=True)
class QuantileAxis:
    """Normal, log-normal and beta distributions, which Optuna lacks: it searches the share of draws below a value.

    Searching quantiles keeps the distribution's meaning, that its bulk is likelier than its tails. The outermost
    0.1 % at each end are left out: infinities are among them.
    """

    parameter: Parameter

    @property
    def distribution(self) -> FloatDistribution:
        """The distribution from which Optuna suggests positions on this axis."""
        return FloatDistribution(TAIL, 1 - TAIL)

    def value(self, position: Any) -> Any:
        """The value at a quantile."""
        return draw(self.parameter, position)

    def position(self, value: Any) -> Any:
        """The quantile of a value."""
        return min(max(quantile(self.parameter, value), TAIL), 1 - TAIL)


_AXES: dict[AxisKind, Callable[[Parameter], Axis]] = {
    AxisKind.LIST: ListAxis,
    AxisKind.RANGE: RangeAxis,
    AxisKind.QUANTILE: QuantileAxis,
}


def axis(parameter: Parameter) -> Axis:
    """The axis of a parameter with several values."""
    return _AXES[parameter.kind.axis](parameter)


def axes(sweep: Sweep) -> dict[str, Axis]:
    """The axes of a sweep by path, in file order."""
    return {path: axis(sweep.parameters[path]) for path in sweep.swept if path != sweep.replicate}


def compatible(old: BaseDistribution, new: BaseDistribution) -> bool:
    """Whether Optuna lets both stand under one name in one study: ranges may change, choices and kinds may not."""
    if type(old) is not type(new):
        return False
    if isinstance(old, CategoricalDistribution):
        return old == new
    return bool(getattr(old, "log", False) == getattr(new, "log", False))
