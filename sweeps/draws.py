"""The values that a random sweep draws, as functions of one number in [0, 1).

Inverse distribution functions rather than a generator's own methods: the draws of a sweep then depend on its
stream of uniform numbers alone, which NumPy keeps stable.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

from sweeps.parameters import Parameter


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


def _bounds(parameter: Parameter) -> tuple[float, float]:
    if parameter.min is None or parameter.max is None:
        raise ValueError(f"{parameter.distribution} without min and max")
    return parameter.min, parameter.max


def _uniform(parameter: Parameter, u: float) -> float:
    low, high = _bounds(parameter)
    return float(low + u * (high - low))


def _int_uniform(parameter: Parameter, u: float) -> int:
    low, high = (int(bound) for bound in _bounds(parameter))
    return low + int(u * (high - low + 1))


def _log_uniform(parameter: Parameter, u: float) -> float:
    low, high = _bounds(parameter)
    return float(min(max(low * (high / low) ** u, low), high))


def _q_uniform(parameter: Parameter, u: float) -> float:
    low, high = _bounds(parameter)
    q = parameter.q
    steps: int = round(_uniform(parameter, u) / q)
    steps = min(max(steps, math.ceil(low / q)), math.floor(high / q))  # W&B may step outside; a bound is a bound
    return steps * q if isinstance(q, int) else float(f"{steps * q:.12g}")  # 0.3, not 0.30000000000000004


def _normal(parameter: Parameter, u: float) -> float:
    if parameter.sigma == 0:
        return float(parameter.mu)
    return NormalDist(parameter.mu, parameter.sigma).inv_cdf(max(u, 2**-54))


# A parameter's value at quantile u in [0, 1). The local backend draws from these; W&B's server knows more.
QUANTILES: dict[str, Callable[[Parameter, float], Any]] = {
    "constant": _pick,
    "categorical": _pick,
    "categorical_w_probabilities": _pick,
    "int_uniform": _int_uniform,
    "uniform": _uniform,
    "q_uniform": _q_uniform,
    "log_uniform_values": _log_uniform,
    "normal": _normal,
}
