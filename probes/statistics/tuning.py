"""Expert tuning: non-negative Lasso from human-interpretable dimensions to an expert's responses.

Source: Appendix A.2 (Tables 1 and S1). The paper's 66 THINGS dimensions of 1,854 images are the predictors;
the gate logits and the readout norms of every expert are the targets.

All that cross-validation needs of the data are sums over rows (`moments`), which the folds and the targets
share, and the Lasso's exact path (`lasso`), which is followed for many targets at once.

Axes: n images (rows), p predictors, t targets, a penalties (alphas), f folds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from probes.statistics.constancy import constant_columns
from probes.statistics.exciting import most_exciting
from probes.statistics.lasso import nonnegative_paths
from probes.statistics.moments import Moments

ALPHAS: NDArray[np.float64] = np.logspace(-4, 0, 40)
"""The paper's grid of penalties: 40 values, logarithmically spaced in [1e-4, 1]."""

# Targets fitted side by side: enough that Python's overhead vanishes, few enough for the processor's cache.
_TARGETS = 20
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
        fold_coef: (t, folds, p) coefficients fitted inside each outer fold; where they are above 0, the fold has
            chosen the predictor.
        dead: (t,) the target is constant (or its variance is not finite), so nothing can be fitted.
        at_edge: (t,) `alpha` is the smallest or the largest of the grid: the best penalty may lie outside it.

    """

    r2: NDArray[np.float64]
    alpha: NDArray[np.float64]
    coef: NDArray[np.float64]
    fold_alpha: NDArray[np.float64]
    fold_coef: NDArray[np.float64]
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
    shuffle: bool = True,
    seed: int = 0,
    standardize: bool = True,
    progress: Callable[[int, int], None] | None = None,
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
        shuffle: draw the rows of the folds at random; else folds are runs of consecutive rows.
        seed: seeds the shuffling of the outer and of the inner folds.
        standardize: z-score predictors and targets (population standard deviation, all rows); else use raw
            units.
        progress: called with (done, total) after each group of targets and outer fold.

    Returns:
        The `Tuning`. A dead target has NaN throughout, never an r2 of 1.

    Raises:
        ValueError: shapes do not match, a value is not finite, the penalties are not positive, or there are
            too few rows for two in every held-out fold, outer and inner.

    Warns:
        sklearn.exceptions.ConvergenceWarning: no solution was found; it takes nearly collinear predictors.

    """
    plan = _Plan.of(X_np, Y_nt, alphas, (folds, inner_folds), (shuffle, seed), standardize=standardize)
    t, p = Y_nt.shape[1], X_np.shape[1]
    alpha_t, coef_tp = np.full(t, np.nan), np.full((t, p), np.nan)
    held_out = plan.held_out(t, progress)
    for targets, _, choice in plan.choices([None], progress):
        alpha_t[targets], coef_tp[targets] = choice.alpha_t, choice.coef_tp
    at_edge_t = (alpha_t == plan.alphas_a[0]) | (alpha_t == plan.alphas_a[-1])
    return Tuning(held_out.r2, alpha_t, coef_tp, held_out.alpha, held_out.coef, plan.dead_t, at_edge_t)


class HeldOut(NamedTuple):
    """The outer folds' fits alone.

    Attributes:
        r2: (t, folds) on the held-out rows, as in `Tuning`.
        alpha: (t, folds) penalty chosen.
        coef: (t, folds, p) coefficients.
    """

    r2: NDArray[np.float64]
    alpha: NDArray[np.float64]
    coef: NDArray[np.float64]


def cross_validated(
    X_np: NDArray[np.floating[Any]],
    Y_nt: NDArray[np.floating[Any]],
    *,
    alphas: NDArray[np.float64] = ALPHAS,
    folds: int = 5,
    inner_folds: int = 5,
    shuffle: bool = True,
    seed: int = 0,
    standardize: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """Return `fit_tuning`'s outer folds without the last fit on all rows: for thousands of permuted targets.

    Memory is that of the targets and a few times as much; some 7 ms a target with 66 predictors and 1,854 rows.
    Arguments, errors and warnings are those of `fit_tuning`.
    """
    plan = _Plan.of(X_np, Y_nt, alphas, (folds, inner_folds), (shuffle, seed), standardize=standardize)
    return plan.held_out(Y_nt.shape[1], progress)


@dataclass(frozen=True)
class _Choice:
    """The penalty chosen on some rows, the fit with it to all of them, and its r2 on the rows held out."""

    alpha_t: NDArray[np.float64]
    coef_tp: NDArray[np.float64]
    r2_t: NDArray[np.float64]


@dataclass(frozen=True)
class _Plan:
    """Checked data of the live targets, and the folds."""

    X_np: NDArray[np.float64]
    Y_nl: NDArray[np.float64]
    live_l: NDArray[np.intp]
    dead_t: NDArray[np.bool_]
    alphas_a: NDArray[np.float64]
    outer: list[NDArray[np.intp] | None]
    inner_splitter: KFold

    @classmethod
    def of(
        cls,
        X_np: NDArray[np.floating[Any]],
        Y_nt: NDArray[np.floating[Any]],
        alphas: NDArray[np.float64],
        folds: tuple[int, int],
        order: tuple[bool, int],
        *,
        standardize: bool,
    ) -> "_Plan":
        _check_data(X_np, Y_nt)
        _check_folds(X_np.shape[0], *folds)
        shuffle, seed = order
        outer, inner = (KFold(count, shuffle=shuffle, random_state=seed if shuffle else None) for count in folds)
        dead_t = _dead(Y_nt)
        live_l = np.flatnonzero(~dead_t)
        scaled = _z_score if standardize else _centred
        return cls(
            scaled(X_np),
            scaled(Y_nt[:, live_l]),
            live_l,
            dead_t,
            _checked_alphas(alphas),
            [test for _, test in outer.split(X_np)],
            inner,
        )

    def held_out(self, t: int, progress: Callable[[int, int], None] | None) -> HeldOut:
        """The outer folds' fits of all t targets."""
        shape = (t, len(self.outer))
        found = HeldOut(*(np.full((*shape, *more), np.nan) for more in ((), (), (self.X_np.shape[1],))))
        for targets, fold, choice in self.choices(self.outer, progress):
            found.r2[targets, fold], found.alpha[targets, fold] = choice.r2_t, choice.alpha_t
            found.coef[targets, fold] = choice.coef_tp
        return found

    def choices(
        self, held_out: Sequence[NDArray[np.intp] | None], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[NDArray[np.intp], int, _Choice]]:
        """For every group of live targets and every set of held-out rows, the targets, its number and the choice."""
        groups = np.array_split(np.arange(len(self.live_l)), max(1, -(-len(self.live_l) // _TARGETS)))
        if len(self.live_l) == 0:
            return
        for number, test in enumerate(held_out):
            train = np.arange(len(self.X_np)) if test is None else np.setdiff1d(np.arange(len(self.X_np)), test)
            splits = [part for _, part in self.inner_splitter.split(train)]
            for done, group in enumerate(groups, 1):
                Y_nt = self.Y_nl[:, group]
                parts = [Moments.of(self.X_np[train[part]], Y_nt[train[part]]) for part in splits]
                whole = Moments.of(self.X_np[[]], Y_nt[[]]) if test is None else Moments.of(self.X_np[test], Y_nt[test])
                yield self.live_l[group], number, _choose(parts, whole, self.alphas_a)
                if progress is not None:
                    progress(number * len(groups) + done, len(held_out) * len(groups))


def _choose(parts: list[Moments], held_out: Moments, alphas_a: NDArray[np.float64]) -> _Choice:
    """Choose each target's penalty by cross-validation over the parts, and score the refit on held-out rows.

    The penalty has the highest mean r2 over the parts, each held out in turn; it is NaN, and with it everything else,
    if r2 is undefined in every part.
    """
    whole = Moments.total(parts)
    training = [Moments.total([other for other in parts if other is not part]) for part in parts]
    coef_ftap = _paths([*training, whole], alphas_a)
    r2_fta = np.stack([part.r2(fit, coef_tap) for part, fit, coef_tap in zip(parts, training, coef_ftap, strict=False)])
    # Whether r2 is defined depends on the held-out target alone, so it is the same for every penalty.
    defined_ft = ~np.isnan(r2_fta[:, :, 0])
    count_t = defined_ft.sum(axis=0)
    mean_ta = np.where(defined_ft[:, :, None], r2_fta, 0.0).sum(axis=0) / np.maximum(count_t, 1)[:, None]
    best_t, chosen_t = mean_ta.argmax(axis=1), count_t > 0  # argmax is the first: the smallest penalty
    coef_tp = np.where(chosen_t[:, None], coef_ftap[-1][np.arange(len(best_t)), best_t], np.nan)
    alpha_t = np.where(chosen_t, alphas_a[best_t], np.nan)
    return _Choice(alpha_t, coef_tp, held_out.r2(whole, coef_tp[:, None])[:, 0])


def _paths(training: list[Moments], alphas_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (sets, t, a, p) of all training sets and targets, all followed together."""
    centred = [moments.centred() for moments in training]
    gram_bpp = np.concatenate([np.broadcast_to(gram_pp, (len(xy_tp), *gram_pp.shape)) for gram_pp, xy_tp in centred])
    xy_bp = np.concatenate([xy_tp for _, xy_tp in centred])
    t = len(centred[0][1])
    rows_b = np.repeat([moments.rows for moments in training], t)
    coef_bap = nonnegative_paths(gram_bpp, xy_bp, rows_b, alphas_a)
    return coef_bap.reshape(len(training), t, *coef_bap.shape[1:])


def _centred(A_nk: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    A_nk = A_nk.astype(np.float64)
    return np.asarray(A_nk - A_nk.mean(axis=0))


def _z_score(A_nk: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Columns of mean 0 and population standard deviation 1; a constant column stays constant."""
    A_nk = A_nk.astype(np.float64)
    sd_k = A_nk.std(axis=0)
    return np.asarray((A_nk - A_nk.mean(axis=0)) / np.where(sd_k > 0, sd_k, 1.0), dtype=np.float64)


def _dead(Y_nt: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Targets (t,) that are constant, or of no finite variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        variance_t = Y_nt.astype(np.float64).var(axis=0)
    return np.asarray(constant_columns(Y_nt) | ~np.isfinite(variance_t) | (variance_t == 0), np.bool_)


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


def held_out_predictions(
    X_np: NDArray[np.floating[Any]],
    Y_nt: NDArray[np.floating[Any]],
    *,
    folds: int = 5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Each row's prediction (n, t) by the fit to the outer folds without it, in the targets' units; NaN if dead.

    The fits are those of `fit_tuning`, on z-scored data.
    """
    found = cross_validated(X_np, Y_nt, folds=folds, seed=seed, progress=progress)
    X_np, sd_t = _z_score(X_np), np.std(Y_nt, axis=0, dtype=np.float64)
    predicted_nt = np.empty(Y_nt.shape)
    for fold, (train, test) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(X_np)):
        steps_nt = (X_np[test] - X_np[train].mean(axis=0)) @ found.coef[:, fold].T
        predicted_nt[test] = Y_nt[train].mean(axis=0, dtype=np.float64) + steps_nt * sd_t
    return predicted_nt
