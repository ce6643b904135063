"""The non-negative Lasso for all penalties at once, exactly, for many problems side by side.

Axes: b problems, p predictors, a penalties.

The solution is piecewise linear in the penalty. Starting where all coefficients are 0 and lowering the penalty, one
predictor enters or leaves at a time, where its coefficient or its gradient reaches 0 (homotopy: Osborne, Presnell and
Turlach 2000; with signs, Efron et al. 2004). Between these events everything follows from one tableau, which an event
changes by a principal pivot, a rank-one update of (p, p + 2) numbers; the update is done for all problems together. No
tolerance decides the result: solutions are exact to rounding, and each is checked against the optimality conditions.
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

Floats = NDArray[np.float64]

# A path has about as many events as predictors enter; far more means that ties make it run in a circle.
_EVENTS_PER_PREDICTOR = 10
# A predictor whose share not explained by the active ones is below this is one of them again, and may not enter.
_COLLINEAR = 1e-10
# Violation of the optimality conditions that counts as rounding, relative to the largest gradient at 0.
_ROUNDING = 1e-9
_MAX_SWEEPS = 10_000


def nonnegative_paths(gram_bpp: Floats, xy_bp: Floats, rows_b: NDArray[Any], alphas_a: Floats) -> Floats:
    """Minimise ``|y - Xw|^2 / 2n + alpha * sum(w)`` over w of at least 0, for every problem and every penalty.

    Args:
        gram_bpp: X'X of each problem's centred predictors.
        xy_bp: X'y.
        rows_b: n, the number of rows of each problem.
        alphas_a: penalties, positive, ascending.

    Returns:
        (b, a, p) coefficients. With collinear predictors the solution is not unique; one is returned.

    Warns:
        sklearn.exceptions.ConvergenceWarning: predictors so nearly collinear that neither the path nor, in its
            place, coordinate descent arrived at a solution.

    """
    coef_bap = _on_grid(*_events(gram_bpp, xy_bp, rows_b, float(alphas_a[0])), alphas_a)
    wrong_b = _violated(gram_bpp, xy_bp, rows_b, alphas_a, coef_bap).any(axis=1)
    for b in np.flatnonzero(wrong_b):
        coef_bap[b] = coordinate_descent(gram_bpp[b], xy_bp[b], int(rows_b[b]), alphas_a)
    return coef_bap


def _events(gram_bpp: Floats, xy_bp: Floats, rows_b: NDArray[Any], lowest: float) -> tuple[Floats, Floats]:
    """Penalties (events, b), descending, and coefficients (events, b, p) at which the paths bend, down to `lowest`."""
    count, p = xy_bp.shape
    problem = np.arange(count)
    # Each row is v0 - alpha v1 in its last two columns: an active predictor's coefficient, another one's gradient.
    tableau = np.concatenate(
        [gram_bpp, xy_bp[:, :, None], np.broadcast_to(rows_b[:, None, None], (count, p, 1)).astype(np.float64)], axis=2
    )
    shared = torch.from_numpy(tableau)  # torch updates in place, in one pass over memory
    diagonal_bp = tableau.reshape(count, -1)[:, :: p + 3]
    least_bp = _COLLINEAR * diagonal_bp
    active_bp = np.zeros((count, p), dtype=bool)
    alpha_b = np.full(count, np.inf)
    alphas, coefs = [], []
    for _ in range(_EVENTS_PER_PREDICTOR * p):
        v0_bp, v1_bp = tableau[:, :, p], tableau[:, :, p + 1]
        # As the penalty falls, the gradients with v1 > 0 rise to 0 and the coefficients with v1 < 0 fall to 0.
        moves_bp = np.where(active_bp, v1_bp < 0, (v1_bp > 0) & (diagonal_bp > least_bp))
        next_bp = np.where(moves_bp, v0_bp / np.where(moves_bp, v1_bp, 1.0), 0.0)
        chosen_b = next_bp.argmax(axis=1)
        alpha_b = np.clip(next_bp[problem, chosen_b], lowest, alpha_b)
        alphas.append(alpha_b)
        coef_bp = np.where(active_bp, np.maximum(v0_bp - alpha_b[:, None] * v1_bp, 0.0), 0.0)
        on = np.flatnonzero(alpha_b > lowest)
        coef_bp[on, chosen_b[on]] = 0.0  # which enters or leaves here, but for rounding
        coefs.append(coef_bp)
        if on.size == 0:
            break
        _pivot(tableau, shared, on, chosen_b[on])
        active_bp[on, chosen_b[on]] ^= True
    return np.stack(alphas), np.stack(coefs)


def _pivot(tableau: Floats, shared: torch.Tensor, on: NDArray[np.intp], chosen: NDArray[np.intp]) -> None:
    """Move one predictor of each problem that is still on into the active ones, or out of them: the same exchange."""
    pivot = tableau[on, chosen, chosen][:, None]
    row_bq, column_bp = np.zeros(tableau.shape[::2]), np.zeros(tableau.shape[:2])
    row_bq[on] = tableau[on, chosen] / pivot
    column_bp[on] = tableau[on, :, chosen]
    shared.addcmul_(torch.from_numpy(column_bp)[:, :, None], torch.from_numpy(row_bq)[:, None, :], value=-1)
    tableau[on, chosen] = row_bq[on]
    tableau[on, :, chosen] = -column_bp[on] / pivot
    tableau[on, chosen, chosen] = 1 / pivot[:, 0]


def _on_grid(alphas_eb: Floats, coef_ebp: Floats, alphas_a: Floats) -> Floats:
    """Coefficients (b, a, p) at the penalties, linear between events and 0 above the first."""
    after_ba = (alphas_eb[:, :, None] > alphas_a).sum(axis=0)
    after_ba = np.minimum(after_ba, len(alphas_eb) - 1)
    before_ba = np.maximum(after_ba - 1, 0)
    problem_b1 = np.arange(alphas_eb.shape[1])[:, None]
    high_ba, low_ba = alphas_eb[before_ba, problem_b1], alphas_eb[after_ba, problem_b1]
    share_ba = np.divide(high_ba - alphas_a, high_ba - low_ba, out=np.ones_like(high_ba), where=high_ba > low_ba)
    share_ba1 = np.clip(share_ba, 0.0, 1.0)[:, :, None]
    return np.asarray((1 - share_ba1) * coef_ebp[before_ba, problem_b1] + share_ba1 * coef_ebp[after_ba, problem_b1])


def _violated(
    gram_bpp: Floats, xy_bp: Floats, rows_b: NDArray[Any], alphas_a: Floats, coef_bap: Floats
) -> NDArray[np.bool_]:
    """Where (b, a) a gradient is above 0, or is not 0 at a positive coefficient, by more than rounding."""
    gradient_bap = xy_bp[:, None] - coef_bap @ gram_bpp - (rows_b[:, None] * alphas_a)[:, :, None]
    length_bp = np.sqrt(np.einsum("bpp->bp", gram_bpp))
    cosine_b = np.divide(xy_bp, length_bp, out=np.zeros_like(xy_bp), where=length_bp > 0).max(axis=1, initial=0.0)
    allowed_bap = _ROUNDING * (length_bp * cosine_b[:, None] + (rows_b * alphas_a[0])[:, None])[:, None]
    over_bap = np.where(coef_bap > 0, np.abs(gradient_bap), gradient_bap)
    return np.asarray((over_bap > allowed_bap).any(axis=2))


def coordinate_descent(gram_pp: Floats, xy_p: Floats, rows: int, alphas_a: Floats) -> Floats:
    """Solve one problem one coefficient at a time, for predictors that a path does not get past.

    Slow, and right where columns are collinear. Arguments and result as for `nonnegative_paths`, without b.

    Warns:
        sklearn.exceptions.ConvergenceWarning: the optimality conditions are not met after many sweeps.

    """
    coef_ap = np.zeros((len(alphas_a), len(xy_p)))
    coef_p, gradient_p = np.zeros(len(xy_p)), xy_p.copy()
    uses = np.flatnonzero(gram_pp.diagonal() > 0)
    for a in reversed(range(len(alphas_a))):
        for _ in range(_MAX_SWEEPS):
            for j in uses:
                new = max(0.0, coef_p[j] + (gradient_p[j] - rows * alphas_a[a]) / gram_pp[j, j])
                gradient_p -= (new - coef_p[j]) * gram_pp[j]
                coef_p[j] = new
            arguments = gram_pp[None], xy_p[None], np.array([rows]), alphas_a[a : a + 1], coef_p[None, None]
            if not _violated(*arguments).any():
                break
        else:
            warnings.warn(f"no non-negative Lasso solution at penalty {alphas_a[a]:.3g}", ConvergenceWarning, 2)
        coef_ap[a] = coef_p
    return coef_ap
