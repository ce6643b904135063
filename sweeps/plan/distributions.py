"""All of W&B's distributions in one table, and the values of a parameter as functions of one number in [0, 1).

Inverse distribution functions rather than a generator's own methods: the draws of a sweep then depend on its
stream of uniform numbers alone, which NumPy keeps stable. The meaning of the keys is W&B's (`config/schema.json` in its
`sweeps` package).
"""

import enum
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from sweeps.plan.source import Keys

BELOW_ONE = 1 - 2**-53  # the largest number below 1
TAIL = 1e-3  # how much of each tail of a distribution without bounds a search leaves out
LARGEST_EXPONENT = 700.0  # e to this power is still a float
RANGE = ("min", "max")
_ROUNDING = 1e-9  # 0.3 / 0.1 is a little less than 3


@dataclass(frozen=True)
class Parameter:
    """What a sweep does with one setting: the values it takes, or the distribution it is drawn from."""

    distribution: str
    values: tuple[Any, ...] = ()
    probabilities: tuple[float, ...] | None = None
    min: float | None = None
    max: float | None = None
    mu: float = 0.0
    sigma: float = 1.0
    q: float = 1
    a: float = 1.0
    b: float = 1.0
    at: Keys = ()  # its keys in the file; empty if it came from --set

    @property
    def kind(self) -> "Distribution":
        """Its entry in the table."""
        return DISTRIBUTIONS[self.distribution]

    @property
    def choices(self) -> tuple[Any, ...]:
        """The listed values, each once: listed again it is drawn more often."""
        first: dict[str, Any] = {}
        for value in self.values:
            first.setdefault(json.dumps(value, default=str), value)
        return tuple(first.values())

    @property
    def fixed(self) -> bool:
        """Whether there is only one value."""
        return len(self.choices) == 1 or (self.min is not None and self.min == self.max)

    @property
    def support(self) -> tuple[float, float]:
        """The numbers between which all values lie, for a distribution of numbers; infinite where it has no end."""
        return self.kind.support(self)

    @property
    def steps(self) -> tuple[float, float]:
        """The first and last multiple of `q` within the support, as numbers of steps from 0."""
        low, high = self.support
        first = math.ceil(low / self.q - _ROUNDING) if math.isfinite(low / self.q) else low
        last = math.floor(high / self.q + _ROUNDING) if math.isfinite(high / self.q) else high
        return first, last

    @property
    def distinct(self) -> float:
        """How many different values it has, at most; infinite where they are not counted."""
        if self.fixed:
            return 1
        if self.kind.axis is AxisKind.LIST:
            shares = self.probabilities or (1.0,) * len(self.values)
            possible = tuple(value for value, share in zip(self.values, shares, strict=True) if share > 0)
            return len(replace(self, values=possible, probabilities=None).choices)
        low, high = self.steps if self.kind.quantised else self.support if self.kind.whole else (-math.inf, math.inf)
        return high - low + 1

    def on_grid(self, x: float) -> float:
        """The multiple of `q` nearest to x within the support; x itself where there is no `q`."""
        if not self.kind.quantised or not math.isfinite(x / self.q):  # so far out there is nothing to round
            return x
        first, last = self.steps
        steps = int(min(max(round(x / self.q), first), last))  # W&B may step outside; a bound is a bound
        value = steps * self.q
        return value if isinstance(self.q, int) else float(f"{value:.12g}")  # 0.3, not 0.30000000000000004


class AxisKind(enum.Enum):
    """How a search sees a parameter."""

    LIST = enum.auto()  # choices in no order
    RANGE = enum.auto()  # the values between two bounds, or their logarithms
    QUANTILE = enum.auto()  # the share of draws below a value: no uniform range describes it


@dataclass(frozen=True)
class Distribution:
    """One of W&B's distributions.

    Attributes:
        name: W&B's.
        required: keys that a file must give.
        optional: keys that it may give.
        draw: a parameter's value at quantile u in [0, 1), before it is rounded to multiples of q.
        support: the numbers between which its values lie.
        axis: how a search sees it.
        share: for `AxisKind.QUANTILE`, the reverse of `draw`: the share of draws up to a value.
        whole: its values are whole numbers.
        quantised: its values are multiples of q.
        logarithmic: it is uniform in the logarithm; so is the inverse of a value whose logarithm is uniform.
        exponents: min and max are exponents of e, not values.
        inverse: min and max are those of the inverse value.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    draw: Callable[[Parameter, float], Any]
    support: Callable[[Parameter], tuple[float, float]]
    axis: AxisKind = AxisKind.RANGE
    share: Callable[[Parameter, float], float] | None = None
    whole: bool = False
    quantised: bool = False
    logarithmic: bool = False
    exponents: bool = False
    inverse: bool = False


def _pick(parameter: Parameter, u: float) -> Any:
    """The value whose share of [0, 1) holds u."""
    count = len(parameter.values)
    for value, share in zip(parameter.values, parameter.probabilities or (1 / count,) * count, strict=True):
        if u < share:
            return value
        u -= share
    # rounding left a sliver at the end: it belongs to the last value that can occur
    possible = parameter.probabilities or (1.0,) * count
    return [value for value, share in zip(parameter.values, possible, strict=True) if share > 0][-1]


def _int_uniform(parameter: Parameter, u: float) -> int:
    low, high = (int(bound) for bound in parameter.support)
    return low + int(u * (high - low + 1))


def _uniform(parameter: Parameter, u: float) -> float:
    low, high = parameter.support
    return float(low + u * (high - low))


def _log_uniform(parameter: Parameter, u: float) -> float:
    """For inverse ones too: if log(1/x) is uniform, so is log(x)."""
    low, high = parameter.support
    return float(min(max(low * (high / low) ** u, low), high))


def _normal(parameter: Parameter, u: float) -> float:
    if parameter.sigma == 0:
        return float(parameter.mu)
    return NormalDist(parameter.mu, parameter.sigma).inv_cdf(max(u, 2**-54))


def _log_normal(parameter: Parameter, u: float) -> float:
    return math.exp(min(_normal(parameter, u), LARGEST_EXPONENT))


def _beta(parameter: Parameter, u: float) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(parameter.a, parameter.b, u))


def _share_normal(parameter: Parameter, value: float) -> float:
    return 0.5 if parameter.sigma == 0 else NormalDist(parameter.mu, parameter.sigma).cdf(value)


def _share_log_normal(parameter: Parameter, value: float) -> float:
    return _share_normal(parameter, math.log(value) if value > 0 else -math.inf)


def _share_beta(parameter: Parameter, value: float) -> float:
    from scipy.special import betainc

    return float(betainc(parameter.a, parameter.b, value))


def _between(parameter: Parameter) -> tuple[float, float]:
    if parameter.min is None or parameter.max is None:
        return -math.inf, math.inf
    return parameter.min, parameter.max


def _between_powers(parameter: Parameter) -> tuple[float, float]:
    low, high = _between(parameter)
    return math.exp(low), math.exp(high)


def _between_inverse_powers(parameter: Parameter) -> tuple[float, float]:
    low, high = _between(parameter)
    return math.exp(-high), math.exp(-low)


def _table() -> dict[str, Distribution]:
    listed = {"support": _between, "axis": AxisKind.LIST, "draw": _pick}
    exponents = {"draw": _log_uniform, "support": _between_powers, "logarithmic": True, "exponents": True}
    values = {"draw": _log_uniform, "support": _between, "logarithmic": True}
    normal = {"draw": _normal, "support": lambda _: (-math.inf, math.inf), "share": _share_normal}
    log_normal = {"draw": _log_normal, "support": lambda _: (0.0, math.inf), "share": _share_log_normal}
    beta = {"draw": _beta, "support": lambda _: (0.0, 1.0), "share": _share_beta}
    shaped, bell = {"axis": AxisKind.QUANTILE}, ("mu", "sigma")
    entries: list[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any]]] = [
        ("constant", ("value",), (), listed),
        ("categorical", ("values",), (), listed),
        ("categorical_w_probabilities", ("values", "probabilities"), (), listed),
        ("int_uniform", RANGE, (), {"draw": _int_uniform, "support": _between, "whole": True}),
        ("uniform", RANGE, (), {"draw": _uniform, "support": _between}),
        ("log_uniform", RANGE, (), exponents),
        ("inv_log_uniform", RANGE, (), exponents | {"support": _between_inverse_powers, "inverse": True}),
        ("log_uniform_values", RANGE, (), values),
        ("inv_log_uniform_values", RANGE, (), values | {"inverse": True}),
        ("normal", (), bell, normal | shaped),
        ("log_normal", (), bell, log_normal | shaped),
        ("beta", (), ("a", "b"), beta | shaped),
    ]
    known = {name: Distribution(name, required, optional, **rest) for name, required, optional, rest in entries}
    for name in ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta"):
        required, optional, rest = next(entry[1:] for entry in entries if entry[0] == name)
        known[f"q_{name}"] = Distribution(f"q_{name}", required, (*optional, "q"), **rest, quantised=True)
    return known


DISTRIBUTIONS = _table()


def draw(parameter: Parameter, u: float) -> Any:
    """The value at quantile u in [0, 1)."""
    value = parameter.kind.draw(parameter, u)
    return parameter.on_grid(value) if parameter.kind.quantised else value


def reach(parameter: Parameter) -> tuple[float, float]:
    """The quantiles between which a search looks for values."""
    return (TAIL, 1 - TAIL) if parameter.kind.axis is AxisKind.QUANTILE else (0.0, BELOW_ONE)


def extremes(parameter: Parameter) -> tuple[Any, ...]:
    """All values of a list, or the outermost two that a search can come to."""
    return parameter.choices or tuple(draw(parameter, u) for u in reach(parameter))


def quantile(parameter: Parameter, value: float) -> float:
    """The reverse of `draw` for normal and beta distributions: the share of draws up to a value."""
    share = parameter.kind.share
    if share is None:
        raise ValueError(f"{parameter.distribution} is searched by value")
    return share(parameter, value)
