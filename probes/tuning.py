"""Expert tuning: non-negative Lasso from human-interpretable dimensions to an expert's responses.

Source: Appendix A.2 (Tables 1 and S1). The paper's 66 THINGS dimensions of 1,854 images are the predictors;
the gate logits and the readout norms of every expert are the targets.

Axes: n images (rows), p predictors, t targets, a penalties (alphas), f folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import lasso_path
from sklearn.model_selection import KFold

from probes.exciting import most_exciting

ALPHAS: NDArray[np.float64] = np.logspace(-4, 0, 40)
"""The paper's grid of penalties: 40 values, logarithmically spaced in [1e-4, 1]."""

# Far below scikit-learn's default of 1e-4, and hardly slower: coefficients are right to about ten digits.
_TOLERANCE = 1e-10
_MAX_ITER = 100_000
# A target whose range is within this many rounding errors of zero is constant.
_ROUNDING_ERRORS = 16
_MIN_FOLDS = 2
_MIN_HELD_OUT = 2  # a single row has no r2


@dataclass(frozen=True)
class Tuning:
    """Nested cross-validated fit of t targets on p predictors.

    Attributes:
        r2: (t, folds) coefficient of determination on each outer fold's held-out rows. NaN where it is
            undefined: a dead target, or a fold in which the target is constant (there scikit-learn would
            report 1 or 0).
        alpha: (t,) penalty chosen on all rows; NaN for a dead target.
        coef: (t, p) coefficients at `alpha`, refitted on all rows. Standard deviations of the target per
            standard deviation of the predictor when standardised, else target units per predictor unit. NaN
            for a dead target.
        fold_alpha: (t, folds) penalty chosen inside each outer fold, from that fold's training rows alone.
        dead: (t,) the target is constant (or its variance is not finite), so nothing can be fitted.
        at_edge: (t,) `alpha` is the smallest or the largest of the grid: the best penalty may lie outside it.

    """

    r2: NDArray[np.float64]
    alpha: NDArray[np.float64]
    coef: NDArray[np.float64]
    fold_alpha: NDArray[np.float64]
    dead: NDArray[np.bool_]
    at_edge: NDArray[np.bool_]

    def top(self, target: int, names: Sequence[str], count: int) -> list[tuple[str, float]]:
        """Return the names and values of a target's largest coefficients above zero (Table 1).

        Args:
            target: index of the target.
            names: the p predictor names.
            count: how many to return at most; fewer come back where fewer are above zero, none for a
                dead target.

        Returns:
            (name, coefficient) pairs in descending order, ties by index.

        Raises:
            ValueError: there are not p names, or `count` is negative.

        """
        coef_p = self.coef[target]
        if len(names) != coef_p.size:
            raise ValueError(f"{coef_p.size} predictor names are needed, got {len(names)}")
        positive = np.flatnonzero(coef_p > 0)
        best = positive[most_exciting(coef_p[positive], count)]
        return [(names[i], float(coef_p[i])) for i in best]


def fit_tuning(
    X_np: NDArray[np.floating[Any]],
    Y_nt: NDArray[np.floating[Any]],
    *,
    alphas: NDArray[np.float64] = ALPHAS,
    folds: int = 5,
    inner_folds: int = 5,
    seed: int = 0,
    standardize: bool = True,
) -> Tuning:
    """Fit every target with a non-negative Lasso under nested K-fold cross-validation (Appendix A.2).

    The objective is scikit-learn's, with an intercept: ``|y - b - Xw|^2 / 2n + alpha * sum(w)`` with no
    w below 0. In each outer fold the penalty is the one with the highest mean, over inner folds, of the inner
    fold's own r2 (ties go to the smallest penalty); the model refitted with it on the outer training rows is
    scored on the held-out rows. `coef` comes from a last selection and refit on all rows.

    The paper does not say whether the data were standardised. The default, z-scoring predictors and targets
    once over all rows before splitting, is closest to the magnitudes of its coefficients and makes the grid
    of penalties mean the same for every target. Only the scale of the penalty sees held-out rows
    that way: with an intercept the shift has no effect, and r2 has no unit.

    Args:
        X_np: (n, p) predictors. A constant predictor gets the coefficient 0.
        Y_nt: (n, t) targets.
        alphas: (a,) penalties to choose from, positive, in any order.
        folds: number of outer folds.
        inner_folds: number of inner folds.
        seed: seeds the shuffling of the outer and of the inner folds.
        standardize: z-score predictors and targets (population standard deviation, all rows); else use raw
            units.

    Returns:
        The `Tuning`. A dead target has NaN throughout, never an r2 of 1.

    Raises:
        ValueError: shapes do not match, a value is not finite, the penalties are not positive, or there are
            too few rows for two in every held-out fold, outer and inner.

    Warns:
        sklearn.exceptions.ConvergenceWarning: a fit stopped before it converged.

    """
    _check_data(X_np, Y_nt)
    _check_folds(X_np.shape[0], folds, inner_folds)
    alphas_a = _checked_alphas(alphas)
    dead_t = _dead(Y_nt)
    live = np.flatnonzero(~dead_t)
    scaled = _z_score if standardize else _as_float64
    X_np, Y_nl = scaled(X_np), scaled(Y_nt[:, live])

    t, p = Y_nt.shape[1], X_np.shape[1]
    r2_tf, fold_alpha_tf = np.full((t, folds), np.nan), np.full((t, folds), np.nan)
    alpha_t, coef_tp = np.full(t, np.nan), np.full((t, p), np.nan)
    for fold, (train, test) in enumerate(_splits(len(X_np), folds, seed)):
        chosen_l = _choose(X_np[train], Y_nl[train], alphas_a, inner_folds, seed)
        coef_lp, intercept_l = _refit(X_np[train], Y_nl[train], chosen_l)
        fold_alpha_tf[live, fold] = chosen_l
        r2_tf[live, fold] = _r2(Y_nl[test], X_np[test] @ coef_lp.T + intercept_l)
    alpha_t[live] = _choose(X_np, Y_nl, alphas_a, inner_folds, seed)
    coef_tp[live], _ = _refit(X_np, Y_nl, alpha_t[live])
    at_edge_t = (alpha_t == alphas_a[0]) | (alpha_t == alphas_a[-1])
    return Tuning(r2_tf, alpha_t, coef_tp, fold_alpha_tf, dead_t, at_edge_t)


@dataclass(frozen=True)
class _Design:
    """Centred training predictors with their Gram matrix, shared by all targets and penalties."""

    X_np: NDArray[np.float64]
    mean_p: NDArray[np.float64]
    gram_pp: NDArray[np.float64]

    @classmethod
    def of(cls, X_np: NDArray[np.float64]) -> Self:
        mean_p = X_np.mean(axis=0)
        centred_np = np.asfortranarray(X_np - mean_p)
        return cls(centred_np, mean_p, centred_np.T @ centred_np)

    def path(
        self, y_n: NDArray[np.float64], alphas_a: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients (p, a) and intercepts (a,) for ascending penalties, each fit warm-started."""
        centred_n = y_n - y_n.mean()
        _, coef_pa, _ = lasso_path(
            self.X_np,
            centred_n,
            alphas=alphas_a[::-1],
            precompute=self.gram_pp,
            Xy=self.X_np.T @ centred_n,
            check_input=False,  # checking the Gram matrix anew at each penalty takes longer than fitting
            positive=True,
            tol=_TOLERANCE,
            max_iter=_MAX_ITER,
        )
        ascending_pa = np.asarray(coef_pa, dtype=np.float64)[:, ::-1]
        return ascending_pa, y_n.mean() - self.mean_p @ ascending_pa


def _choose(
    X_np: NDArray[np.float64], Y_nt: NDArray[np.float64], alphas_a: NDArray[np.float64], folds: int, seed: int
) -> NDArray[np.float64]:
    """Return the penalty (t,) with the highest mean r2 over folds; NaN if r2 is undefined in every fold."""
    t = Y_nt.shape[1]
    r2_fat = np.empty((folds, alphas_a.size, t))
    for fold, (train, test) in enumerate(_splits(len(X_np), folds, seed)):
        design = _Design.of(X_np[train])
        for target in range(t):
            coef_pa, intercept_a = design.path(Y_nt[train, target], alphas_a)
            r2_fat[fold, :, target] = _r2(Y_nt[test, target, None], X_np[test] @ coef_pa + intercept_a)
    # Whether r2 is defined depends on the held-out target alone, so it is the same for every penalty.
    defined_ft = ~np.isnan(r2_fat[:, 0])
    total_at = np.where(defined_ft[:, None], r2_fat, 0.0).sum(axis=0)
    mean_at = total_at / np.maximum(defined_ft.sum(axis=0), 1)
    # argmax returns the first maximum: the smallest penalty.
    return np.where(defined_ft.any(axis=0), alphas_a[mean_at.argmax(axis=0)], np.nan)


def _refit(
    X_np: NDArray[np.float64], Y_nt: NDArray[np.float64], alpha_t: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients (t, p) and intercepts (t,), one penalty per target; NaN where that is NaN."""
    design = _Design.of(X_np)
    coef_tp, intercept_t = np.full((alpha_t.size, X_np.shape[1]), np.nan), np.full(alpha_t.size, np.nan)
    for target in np.flatnonzero(~np.isnan(alpha_t)):
        coef_p1, intercept_1 = design.path(Y_nt[:, target], alpha_t[target : target + 1])
        coef_tp[target], intercept_t[target] = coef_p1[:, 0], intercept_1[0]
    return coef_tp, intercept_t


def _r2(Y_nk: NDArray[np.float64], predicted_nk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficient of determination (k,) of each column; NaN where the observed values are constant."""
    residual_k = ((Y_nk - predicted_nk) ** 2).sum(axis=0)
    total_k = ((Y_nk - Y_nk.mean(axis=0)) ** 2).sum(axis=0)
    total_k = np.where(np.ptp(Y_nk, axis=0) > 0, total_k, np.nan)
    return np.asarray(1.0 - residual_k / total_k, dtype=np.float64)


def _splits(n: int, folds: int, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    return list(KFold(folds, shuffle=True, random_state=seed).split(np.empty((n, 1))))


def _as_float64(A_nk: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return A_nk.astype(np.float64)


def _z_score(A_nk: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Columns of mean 0 and population standard deviation 1; a constant column stays constant."""
    A_nk = A_nk.astype(np.float64)
    sd_k = A_nk.std(axis=0)
    return np.asarray((A_nk - A_nk.mean(axis=0)) / np.where(sd_k > 0, sd_k, 1.0), dtype=np.float64)


def _dead(Y_nt: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Targets (t,) that are constant to within rounding in their own type, or of no finite variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        variance_t = Y_nt.astype(np.float64).var(axis=0)
        range_t = np.ptp(Y_nt.astype(np.float64), axis=0)
    epsilon = np.finfo(Y_nt.dtype).eps if np.issubdtype(Y_nt.dtype, np.floating) else 0.0
    constant_t = range_t <= _ROUNDING_ERRORS * epsilon * np.abs(Y_nt).max(axis=0)
    return np.asarray(constant_t | ~np.isfinite(variance_t) | (variance_t == 0))


def _check_data(X_np: NDArray[np.floating[Any]], Y_nt: NDArray[np.floating[Any]]) -> None:
    if (X_np.ndim, Y_nt.ndim) != (2, 2) or X_np.shape[0] != Y_nt.shape[0]:
        raise ValueError(f"X (n, p) and Y (n, t) must be matrices of the same rows, not {X_np.shape} and {Y_nt.shape}")
    if X_np.shape[1] == 0:
        raise ValueError("X has no predictors")
    for A_nk, name, column in ((X_np, "X", "predictor"), (Y_nt, "Y", "target")):
        bad = np.argwhere(~np.isfinite(A_nk))
        if len(bad):
            (row, k), places = bad[0], len(bad)
            raise ValueError(f"{name} is not finite in {places} places, first in row {row}, {column} {k}")


def _check_folds(n: int, folds: int, inner_folds: int) -> None:
    if min(folds, inner_folds) < _MIN_FOLDS:
        raise ValueError(f"at least {_MIN_FOLDS} folds are needed, got folds={folds} and inner_folds={inner_folds}")
    training = n - -(-n // folds)  # rows left by the largest held-out fold
    if n < _MIN_HELD_OUT * folds or training < _MIN_HELD_OUT * inner_folds:
        raise ValueError(
            f"{n} rows are too few for {folds} outer and {inner_folds} inner folds of {_MIN_HELD_OUT} or more"
        )


def _checked_alphas(alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the penalties in ascending order, without repeats."""
    alphas_a = np.unique(np.asarray(alphas, dtype=np.float64))
    if alphas_a.size == 0 or not np.isfinite(alphas_a).all() or alphas_a[0] <= 0:
        raise ValueError(f"alphas must be finite and positive, got {alphas_a}")
    return alphas_a
