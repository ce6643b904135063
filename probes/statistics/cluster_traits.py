"""Do two clusters of experts differ in a trait, such as the preference for animate things, run by run?

Axes: N experts, R runs.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.resampling import p_value

Floats = NDArray[np.float64]


class TraitDifference(NamedTuple):
    """Mean trait of the experts of one cluster less that of the other's.

    Attributes:
        runs_R: of each run, NaN if it has no experts in both. The first cluster is the one with the larger mean over
            runs, so that the mean of these is never negative.
        p: of as large a mean if the trait is dealt to the experts of each run at random, the clusters named anew.
    """

    runs_R: Floats
    p: float


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

    runs_R = _differences(trait_N, second_N, run_N, runs)
    if np.isnan(runs_R).all():
        return TraitDifference(runs_R, float("nan"))
    null = np.array([np.nanmean(_differences(dealt(), second_N, run_N, runs)) for _ in range(draws)])
    return TraitDifference(runs_R, p_value(float(np.nanmean(runs_R)), null))


def _differences(trait_N: Floats, second_N: NDArray[np.bool_], run_N: NDArray[np.integer[Any]], runs: int) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [np.bincount(run_N[side], trait_N[side], runs) / np.bincount(run_N[side], minlength=runs)
                 for side in (second_N, ~second_N)]  # fmt: skip
        runs_R = np.asarray(means[0] - means[1])
    return runs_R if np.isnan(runs_R).all() or np.nanmean(runs_R) >= 0 else -runs_R
