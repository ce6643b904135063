"""Ridge regression of many targets, the penalty of each chosen by generalised cross-validation.

One eigendecomposition serves all targets and penalties. scikit-learn's RidgeCV holds the leave-one-out errors of every
row, target and penalty instead, which is too slow for the thousands of fits of a permutation test.

Axes: n rows, p predictors, t targets, a penalties.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.held_out import Floats, cross_predicted

PENALTIES: Floats = np.logspace(-4, 2, 13)
"""Per row, on predictors of unit variance: from none to one that leaves nothing."""


class Ridge(NamedTuple):
    """A fit to some rows.

    Attributes:
        mean_p: of the predictors.
        sd_p: of the predictors, 1 for a constant one.
        level_t: mean of the targets.
        coef_pt: per standard deviation of the predictor.
        penalty_t: chosen, per row.
    """

    mean_p: Floats
    sd_p: Floats
    level_t: Floats
    coef_pt: Floats
    penalty_t: Floats

    def predict(self, X_np: NDArray[np.floating[Any]]) -> Floats:
        """(n, t) for further rows."""
        return np.asarray((X_np - self.mean_p) / self.sd_p @ self.coef_pt + self.level_t)


def fit_ridge(X_np: NDArray[np.floating[Any]], Y_nt: NDArray[np.floating[Any]]) -> Ridge:
    """Minimise |y - b - Xw|^2 + n alpha |w|^2, predictors z-scored, for every target.

    The penalty of each target is the one of PENALTIES with the smallest ``RSS / (n - df)^2`` (Golub, Heath and Wahba
    1979), df with the intercept; of equal ones the smallest.
    """
    n = len(X_np)
    mean_p, sd_p, level_t = X_np.mean(axis=0), X_np.std(axis=0), Y_nt.mean(axis=0)
    sd_p = np.where(sd_p > 1e-9 * np.abs(mean_p), sd_p, 1.0)
    X_np, Y_nt = (X_np - mean_p) / sd_p, Y_nt - level_t
    size_p, axes_pp = np.linalg.eigh(X_np.T @ X_np)
    size_p = np.maximum(size_p, 0.0)
    along_pt = axes_pp.T @ (X_np.T @ Y_nt)
    squares_t = np.einsum("nt,nt->t", Y_nt, Y_nt)
    weight_ap = 1 / (size_p + n * PENALTIES[:, None])
    rss_at = squares_t - (weight_ap * (2 - size_p * weight_ap)) @ along_pt**2
    left_a = n - 1 - (size_p * weight_ap).sum(axis=1)
    gcv_at = np.where(
        left_a[:, None] > 1e-9 * n, np.maximum(rss_at, 0.0) / np.maximum(left_a, 1e-9)[:, None] ** 2, np.inf
    )
    best_t = gcv_at.argmin(axis=0)
    coef_pt = axes_pp @ (weight_ap[best_t].T * along_pt)
    return Ridge(mean_p, sd_p, level_t, coef_pt, PENALTIES[best_t])


def cross_ridge(X_np: NDArray[np.floating[Any]], Y_nt: NDArray[np.floating[Any]], *, seed: int) -> Floats:
    """Predictions (n, t), each by a fit to the other folds, its penalty chosen there."""
    X_np, Y_nt = X_np.astype(np.float64), Y_nt.astype(np.float64)
    return cross_predicted(
        lambda training, held_out: fit_ridge(X_np[training], Y_nt[training]).predict(X_np[held_out]), Y_nt.shape, seed
    )
