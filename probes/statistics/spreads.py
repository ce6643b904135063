"""How far a number would move with other images, and with other seeds: variances with their degrees of freedom.

Two things could have come out otherwise: which images were shown and which seeds were trained. Each has a variance; an
interval that is about both adds them. How a run answers just these images is part of either variance, so that the sum
is too large rather than too small.

Axes: n images, R runs.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from probes.statistics.resampling import LEVEL, Interval

_LEAST = 3  # images or concepts


class Spread(NamedTuple):
    """Variance of a mean, and the degrees of freedom with which it is known; NaN where it cannot be told."""

    variance: float
    freedom: float


UNKNOWN = Spread(float("nan"), float("nan"))


def influence_spread(influence_n: NDArray[np.float64], units: NDArray[np.integer[Any]] | None = None) -> Spread:
    """Variance over images that one might have shown, of a number with these influences (infinitesimal jackknife).

    Args:
        influence_n: derivative of the number with respect to each image's weight, times n; they sum to 0.
        units: (n,) what was sampled, e.g. concepts, numbered from 0; None: single images. Of fewer than three nothing
            can be told.
    """
    sums = influence_n if units is None else np.bincount(units, influence_n)
    m = len(sums)
    if m < _LEAST:
        return UNKNOWN
    return Spread(float(sums @ sums) / len(influence_n) ** 2 * m / (m - 1), m - 1)


def mean_over_cells(values_R: NDArray[np.float64], cells_R: NDArray[Any]) -> float:
    """The mean over cells of a sweep of each cell's mean over seeds; NaN values are left out."""
    known = np.isfinite(values_R)
    means = [values_R[known & (cells_R == cell)].mean() for cell in np.unique(cells_R[known])]
    return float(np.mean(means)) if means else float("nan")


def seed_spread(values_R: NDArray[np.float64], cells_R: NDArray[Any]) -> Spread:
    """Variance of `mean_over_cells` over seeds that one might have trained.

    The runs of a cell differ by seed alone; cells differ by what was swept, which is no chance. So the variance is that
    within cells, taken to be the same in all of them (one-way analysis of variance, fixed cells).

    Args:
        values_R: a number of each run; NaN values are left out.
        cells_R: the cell of each run. Where no cell has two runs nothing can be told.
    """
    within = within_cells(values_R, cells_R)
    sizes_C = np.unique(cells_R[np.isfinite(values_R)], return_counts=True)[1]
    return Spread(within.variance * float((1 / sizes_C).sum()) / max(len(sizes_C), 1) ** 2, within.freedom)


def within_cells(values_R: NDArray[np.float64], cells_R: NDArray[Any]) -> Spread:
    """Variance of one run's number over seeds, the same in all cells; NaN where no cell has two runs.

    Arguments are those of `seed_spread`.
    """
    known = np.isfinite(values_R)
    values_R, cell_R = values_R[known], np.unique(cells_R[known], return_inverse=True)[1]
    sizes_C = np.bincount(cell_R)
    freedom = len(values_R) - len(sizes_C)
    if freedom < 1:
        return UNKNOWN
    rest_R = values_R - (np.bincount(cell_R, values_R) / sizes_C)[cell_R]
    return Spread(float(rest_R @ rest_R) / freedom, freedom)


def total(*spreads: Spread) -> Spread:
    """The variances added, with Satterthwaite's degrees of freedom; NaN if one of them is."""
    variance = sum(spread.variance for spread in spreads)
    if not np.isfinite(variance):
        return UNKNOWN
    parts = sum(spread.variance**2 / spread.freedom for spread in spreads)
    return Spread(variance, variance**2 / parts if parts > 0 else float("inf"))


def student_interval(mean: float, *spreads: Spread, level: float = LEVEL) -> Interval:
    """Interval of a mean with these variances added, by Student's t; NaN if one of them is."""
    variance, freedom = total(*spreads)
    if not np.isfinite(variance):
        return Interval(float("nan"), float("nan"))
    reach = float(student.ppf((1 + level) / 2, freedom)) * variance**0.5
    return Interval(mean - reach, mean + reach)
