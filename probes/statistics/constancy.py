"""The one test of whether responses vary at all.

Axes: n images, k columns (units, experts, targets).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING_ERRORS = 16


def constant_columns(values_nk: NDArray[Any]) -> NDArray[np.bool_]:
    """Which columns (k,) hold one value, to within rounding in their own type.

    A column is constant if its range is at most 16 rounding errors of its own largest magnitude. Other columns have no
    say: a unit of size 1e6 does not hide that one of size 1 varies. A column that is not finite is not constant.
    """
    if not len(values_nk):
        return np.ones(values_nk.shape[1:], np.bool_)
    rounding = _ROUNDING_ERRORS * (float(np.finfo(values_nk.dtype).eps) if values_nk.dtype.kind == "f" else 0.0)
    low_k, high_k = (extreme(values_nk, axis=0).astype(np.float64) for extreme in (np.min, np.max))
    with np.errstate(over="ignore", invalid="ignore"):  # the range of an infinite column
        range_k, size_k = high_k - low_k, np.maximum(np.abs(low_k), np.abs(high_k))
    return np.asarray(np.isfinite(size_k) & (range_k <= rounding * size_k), np.bool_)


def is_constant(values_nk: NDArray[Any]) -> bool:
    """Whether all rows are the same, column by column: a dead expert, which answers all images alike."""
    return bool(constant_columns(values_nk).all())
