"""The values of a parameter's distribution, as functions of one number in [0, 1): what `method: random` draws.

Inverse distribution functions rather than a generator's own methods: the draws of a sweep then depend on its
stream of uniform numbers alone, which NumPy keeps stable. All of W&B's distributions are here, with its meaning of
their keys (`config/schema.json` in its `sweeps` package).
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

from sweeps.plan.parameters import Parameter

BELOW_ONE = 1 - 2**-53  # the largest number below 1
TAIL = 1e-3  # how much of each tail of a distribution without bounds a search leaves out
_LARGEST_EXPONENT = 700.0  # e to this power is still a float


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
    return math.exp(min(_normal(parameter, u), _LARGEST_EXPONENT))


def _beta(parameter: Parameter, u: float) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(parameter.a, parameter.b, u))


def _quantised(draw: Callable[[Parameter, float], float]) -> Callable[[Parameter, float], float]:
    return lambda parameter, u: parameter.on_grid(draw(parameter, u))


# A parameter's value at quantile u in [0, 1).
QUANTILES: dict[str, Callable[[Parameter, float], Any]] = {
    "constant": _pick,
    "categorical": _pick,
    "categorical_w_probabilities": _pick,
    "int_uniform": _int_uniform,
    "uniform": _uniform,
    "q_uniform": _quantised(_uniform),
    "log_uniform": _log_uniform,
    "q_log_uniform": _quantised(_log_uniform),
    "inv_log_uniform": _log_uniform,
    "log_uniform_values": _log_uniform,
    "q_log_uniform_values": _quantised(_log_uniform),
    "inv_log_uniform_values": _log_uniform,
    "normal": _normal,
    "q_normal": _quantised(_normal),
    "log_normal": _log_normal,
    "q_log_normal": _quantised(_log_normal),
    "beta": _beta,
    "q_beta": _quantised(_beta),
}


def draw(parameter: Parameter, u: float) -> Any:
    """The value at quantile u in [0, 1)."""
    return QUANTILES[parameter.distribution](parameter, u)


def shaped(parameter: Parameter) -> bool:
    """Whether a search looks at its quantiles, since no uniform range describes it: normal and beta distributions."""
    return parameter.distribution.endswith(("normal", "beta"))


def reach(parameter: Parameter) -> tuple[float, float]:
    """The quantiles between which a search looks for values."""
    return (TAIL, 1 - TAIL) if shaped(parameter) else (0.0, BELOW_ONE)


def extremes(parameter: Parameter) -> tuple[Any, ...]:
    """All values of a list, or the outermost two that a search can come to."""
    return parameter.values or tuple(draw(parameter, u) for u in reach(parameter))


def quantile(parameter: Parameter, value: float) -> float:
    """The reverse of `draw` for normal and beta distributions: the share of draws up to a value."""
    if parameter.distribution.endswith("beta"):
        from scipy.special import betainc

        return float(betainc(parameter.a, parameter.b, value))
    if parameter.sigma == 0:
        return 0.5
    if parameter.distribution.endswith("log_normal"):
        value = math.log(value) if value > 0 else -math.inf
    return NormalDist(parameter.mu, parameter.sigma).cdf(value)
