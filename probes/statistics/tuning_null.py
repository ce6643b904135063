"""What `tuning` finds where there is nothing to find: images and responses paired at random.

Axes: n images, p predictors, t targets.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.tuning import cross_validated_r2


def tuning_null(
    X_np: NDArray[np.floating[Any]],
    Y_nt: NDArray[np.floating[Any]],
    *,
    draws: int,
    seed: int,
    standardize: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Cross-validated r2 when images and responses are paired at random.

    A draw permutes the rows of all targets alike, which keeps the correlations between them, and repeats the whole
    nested fit.

    Args:
        X_np: (n, p) predictors.
        Y_nt: (n, t) targets.
        draws: number of permutations.
        seed: of the permutations, and of the folds as in `cross_validated_r2`.
        standardize: as in `cross_validated_r2`.
        progress: called with (done, total) draws.

    Returns:
        (draws, t) mean over outer folds of r2; NaN for a dead target.
    """
    rng = np.random.default_rng(seed)
    n, t = Y_nt.shape
    step = max(1, 256 // max(t, 1))  # targets of several draws share the work on the predictors
    null = np.empty((draws, t))
    for start in range(0, draws, step):
        orders = [rng.permutation(n) for _ in range(min(step, draws - start))]
        shuffled = np.concatenate([Y_nt[order] for order in orders], axis=1)
        r2 = cross_validated_r2(X_np, shuffled, seed=seed, standardize=standardize).mean(axis=1)
        null[start : start + len(orders)] = r2.reshape(len(orders), t)
        if progress is not None:
            progress(start + len(orders), draws)
    return null
