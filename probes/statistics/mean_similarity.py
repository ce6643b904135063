"""How far would the mean similarity between experts move with other images, and with other runs?

The mean over pairs of experts of Spearman's correlation between their dissimilarity matrices is a smooth function of
the distribution of pairs of images. Its derivative there, averaged over the pairs that an image belongs to, is the
image's influence; the sum of their squares is the variance that a bootstrap of the images converges to (infinitesimal
jackknife, Efron 1982; for functions of pairs, Arvesen 1969). A bootstrap itself would have to rank some million
distances again in each draw. Runs are left out one at a time.

Axes: n images, N experts, P = n (n - 1) / 2 pairs of images.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.resampling import LEVEL, Interval
from probes.statistics.spreads import UNKNOWN, Spread, influence_spread, student_interval

MIN_RUNS = 3  # without one of them there must be runs to compare


def image_spread(ranks_NP: NDArray[np.float32], n: int, units: NDArray[np.integer[Any]] | None = None) -> Spread:
    """Variance of the mean similarity over images that one might have shown.

    Args:
        ranks_NP: `ranked_rdms` of living experts, two or more.
        n: number of images.
        units: (n,) what was sampled, e.g. concepts, numbered from 0; None: single images.
    """
    return influence_spread(image_influence(ranks_NP, n), units)


def image_influence(ranks_NP: NDArray[np.float32], n: int) -> NDArray[np.float64]:
    """By how much each image (n,) pulls the mean similarity, per unit of its weight; they sum to 0."""
    N, P = ranks_NP.shape
    total_P, squares_P = np.zeros(P), np.zeros(P)
    scales = [float(np.sqrt(np.mean(np.square(ranks_P, dtype=np.float64)))) for ranks_P in ranks_NP]
    for ranks_P, scale in zip(ranks_NP, scales, strict=True):
        z_P = ranks_P / scale
        total_P += z_P
        squares_P += z_P * z_P
    pull_P = (total_P**2 - squares_P) / 2  # the sum over pairs of experts of products
    for ranks_P, scale in zip(ranks_NP, scales, strict=True):
        pull_P += P / scale * _share_above(ranks_P, total_P - ranks_P / scale)
    pull_P *= 2 / (N * (N - 1))
    mean_n = _sums_by_image(pull_P - pull_P.mean(), n) / (n - 1)
    return np.asarray(2 * (n - 1) / (n - 2) * (mean_n - mean_n.mean()))


def _share_above(ranks_P: NDArray[np.float32], values_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each pair of images, the mean over all pairs of the values where ranks are higher; equal ones count half.

    This is what moving a distance does through the ranks of all others.
    """
    P = len(ranks_P)
    # tied ranks share a place that no other one has: the middle of theirs, rounded down
    place_P = np.floor(ranks_P.astype(np.float64) + (P - 1) / 2).astype(np.intp)
    at_P = np.bincount(place_P, values_P, P)
    above_P = at_P.sum() - np.cumsum(at_P) + at_P / 2
    return np.asarray(above_P[place_P] / P)


def _sums_by_image(values_P: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Sums (n,) over the pairs that each image belongs to, of the upper triangle row by row."""
    sums_n, start = np.zeros(n), 0
    for image in range(n - 1):
        row = values_P[start : start + n - 1 - image]
        sums_n[image] += row.sum()
        sums_n[image + 1 :] += row
        start += len(row)
    return sums_n


def run_spread(similarity_NN: NDArray[np.float64], runs_N: NDArray[Any]) -> Spread:
    """Variance of the mean similarity over runs that one might have trained, by leaving out each (jackknife).

    Args:
        similarity_NN: of living experts.
        runs_N: the run of each expert; with fewer than three runs the variance is NaN.
    """
    runs = np.unique(runs_N)
    if len(runs) < MIN_RUNS:
        return UNKNOWN
    kept = [similarity_NN[np.ix_(runs_N != run, runs_N != run)] for run in runs]
    means = np.array([part[np.triu_indices(len(part), k=1)].mean() for part in kept])
    R = len(runs)
    return Spread(float((R - 1) / R * ((means - means.mean()) ** 2).sum()), R - 1)


def similarity_interval(mean: float, *spreads: Spread, level: float = LEVEL) -> Interval:
    """Interval of the mean similarity with the variances over images, and over runs, added.

    Degrees of freedom are Satterthwaite's; NaN if a variance is.
    """
    low, high = student_interval(mean, *spreads, level=level)
    return Interval(float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0)))
