"""Do clusters of experts come back in every run, or are the clusters the runs?

Axes: N experts, R runs, K clusters.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from probes.statistics.resampling import LEVEL, Interval, mean_of_defined, p_value


class Recurrence(NamedTuple):
    """In how many runs each cluster has an expert, against clusters dealt to the experts at random.

    Attributes:
        counts_RK: experts of each run in each cluster; runs in ascending order of their labels.
        share: of the runs, those that have experts in every cluster. It is 0 where there are more clusters than a run
            has experts.
        null: what it is on average when the clusters, of the sizes they have, are dealt to the experts at random.
        p_more: of as large a share or a larger one by chance; small where each run has its part of every cluster.
        p_fewer: of as small a share or a smaller one; small where clusters are runs.
    """

    counts_RK: NDArray[np.int64]
    share: float
    null: float
    p_more: float
    p_fewer: float


def recurrence(labels_N: NDArray[np.integer[Any]], runs_N: NDArray[Any], *, draws: int, seed: int) -> Recurrence:
    """How the clusters are spread over the runs.

    Args:
        labels_N: cluster of each expert, from 0.
        runs_N: run of each expert, of any type that sorts.
        draws: permutations of the labels.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    run_N = np.unique(runs_N, return_inverse=True)[1]
    counts_RK = _counts(labels_N, run_N)
    share = _share(counts_RK)
    null = np.array([_share(_counts(rng.permutation(labels_N), run_N)) for _ in range(draws)])
    return Recurrence(
        counts_RK, share, float(mean_of_defined(null)), p_value(share, null), p_value(-share, -null)
    )  # fmt: skip


def share_interval(hits: int, count: int) -> Interval:
    """Interval of a share of which `count` cases are known (Clopper and Pearson 1934)."""
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, count - hits)) if hits < count else 1.0
    return Interval(low, high)


def _counts(labels_N: NDArray[np.integer[Any]], run_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    clusters = int(labels_N.max()) + 1
    found = np.bincount(run_N * clusters + labels_N, minlength=(int(run_N.max()) + 1) * clusters)
    return found.reshape(-1, clusters).astype(np.int64)


def _share(counts_RK: NDArray[np.int64]) -> float:
    return float((counts_RK > 0).all(axis=1).mean())
