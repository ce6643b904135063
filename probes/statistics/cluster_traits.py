"""Do two clusters of experts differ in a trait, such as the preference for animate things, run by run?

Axes: N experts, R runs.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.resampling import p_value

Floats = NDArray[np.float64]


class TraitDifference(NamedTuple):
    """Mean trait of the experts of one cluster beside that of the other's.

    Attributes:
        larger_R: of each run's experts in the cluster that has the larger mean over runs; NaN if the run has no experts
            in both.
        smaller_R: of those in the other cluster.
        p: of as large a mean difference if the trait is dealt to the experts of each run at random, the clusters named
            anew.
    """

    larger_R: Floats
    smaller_R: Floats
    p: float

    @property
    def difference_R(self) -> Floats:
        """Of each run; the mean is never negative, since clusters are named by it."""
        return np.asarray(self.larger_R - self.smaller_R)


def trait_difference(
    trait_N: Floats, second_N: NDArray[np.bool_], run_N: NDArray[np.integer[Any]], *, draws: int, seed: int
) -> TraitDifference:
    """Compare the two clusters within runs.

    Args:
        trait_N: of each expert, finite.
        second_N: which experts are in the second cluster.
        run_N: the run of each, numbered from 0.
        draws: permutations.
        seed: of the permutations.
    """
    runs = int(run_N.max()) + 1 if len(run_N) else 0
    members = [np.flatnonzero(run_N == run) for run in range(runs)]
    rng = np.random.default_rng(seed)

    def dealt() -> Floats:
        dealt_N = trait_N.copy()
        for mine in members:
            dealt_N[mine] = trait_N[rng.permutation(mine)]
        return dealt_N

    larger_R, smaller_R = _means(trait_N, second_N, run_N, runs)
    if np.isnan(larger_R).all():
        return TraitDifference(larger_R, smaller_R, float("nan"))
    null = []
    for _ in range(draws):
        means = _means(dealt(), second_N, run_N, runs)
        null.append(np.nanmean(means[0] - means[1]))
    return TraitDifference(larger_R, smaller_R, p_value(float(np.nanmean(larger_R - smaller_R)), np.array(null)))


def _means(
    trait_N: Floats, second_N: NDArray[np.bool_], run_N: NDArray[np.integer[Any]], runs: int
) -> tuple[Floats, Floats]:
    """Mean trait of each run's experts in either cluster, the larger one first."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a_R, b_R = (np.bincount(run_N[side], trait_N[side], runs) / np.bincount(run_N[side], minlength=runs)
                    for side in (second_N, ~second_N))  # fmt: skip
    both_R = np.isfinite(a_R - b_R)
    a_R, b_R = np.where(both_R, a_R, np.nan), np.where(both_R, b_R, np.nan)
    return (a_R, b_R) if not both_R.any() or np.nanmean(a_R - b_R) >= 0 else (b_R, a_R)
