"""What `tuning` finds where there is nothing to find: images and responses paired at random.

Axes: n images, p predictors, t targets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.tuning import cross_validated


class TuningNull(NamedTuple):
    """What chance yields.

    Attributes:
        r2: (draws, t) mean over outer folds of r2; NaN for a dead target.
        chosen: (t, p) share of draws and folds in which each predictor has a coefficient above 0; a dimension that
            chance chooses often is no finding when it is chosen. NaN for a dead target, and without draws.
    """

    r2: NDArray[np.float64]
    chosen: NDArray[np.float64]


def tuning_null(
    X_np: NDArray[np.floating[Any]],
    Y_nt: NDArray[np.floating[Any]],
    *,
    draws: int,
    seed: int,
    standardize: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> TuningNull:
    """Cross-validated r2 when images and responses are paired at random.

    A draw permutes the rows of all targets alike, which keeps the correlations between them, and repeats the whole
    nested fit.

    Args:
        X_np: (n, p) predictors.
        Y_nt: (n, t) targets.
        draws: number of permutations.
        seed: of the permutations, and of the folds as in `cross_validated`.
        standardize: as in `cross_validated`.
        progress: called with (done, total) draws.

    Returns:
        The `TuningNull`.
    """
    rng = np.random.default_rng(seed)
    n, t = Y_nt.shape
    step = max(1, 256 // max(t, 1))  # targets of several draws share the work on the predictors
    null = np.empty((draws, t))
    chosen_tp = np.zeros((t, X_np.shape[1]))
    for start in range(0, draws, step):
        orders = [rng.permutation(n) for _ in range(min(step, draws - start))]
        shuffled = np.concatenate([Y_nt[order] for order in orders], axis=1)
        found = cross_validated(X_np, shuffled, seed=seed, standardize=standardize)
        null[start : start + len(orders)] = found.r2.mean(axis=1).reshape(len(orders), t)
        chosen_tp += chosen(found.coef).reshape(len(orders), t, -1).sum(axis=0)
        if progress is not None:
            progress(start + len(orders), draws)
    with np.errstate(invalid="ignore"):
        return TuningNull(null, chosen_tp / draws if draws else chosen_tp * np.nan)


def chosen(coef_tfp: NDArray[np.float64]) -> NDArray[np.float64]:
    """In which share of the folds a target chooses each predictor, (t, p): its coefficient is above 0; NaN if dead."""
    return np.asarray(np.where(np.isnan(coef_tfp), np.nan, coef_tfp > 0).mean(axis=1))
