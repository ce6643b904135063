"""L2-regularised logistic regression of many overlapping training sets, each proven to predict as its optimum does.

Axes: n images, d units, k = d + 1 (units and intercept), r rows of a problem, f folds.

The objective is scikit-learn's, ``|w|^2 / 2 + C * sum(log(1 + exp(-s (x w + b))))``, the intercept b free. All rows
together are fitted first, then each fold from there, in single precision; double precision begins close to the
optimum. The search ends not at a tolerance but with a proof, `_Problem.proven`, that no held-out image lies so near the
boundary that the optimum could decide it differently.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.newton import End, Floats, Memory, Singles, State, descend, factor, lengths

# Newton steps in one dimension for the length of the first step; it need not be exact.
_LENGTH_STEPS = 4
# The squared Newton decrement, twice what the objective may still fall, at which all rows together are fitted well
# enough: each fold's optimum is as far away as a fold's rows move it, and a better start gains nothing.
_ROUGH = 1.0
# The Newton decrement times the largest row, at which double precision takes over, mostly for one evaluation.
_CLOSE = 0.017
# Single precision hardly sees a decrement below this part of the largest row.
_SEEN = 64 * 2.0**-24
# Units roundoff of double and single precision; for the latter's multiple see `rounding`.
_UNIT = 2.0**-53
_ROUNDING = 4 * 2.0**-24


@dataclass(frozen=True)
class Fits:
    """Fits of f folds, each to all rows but its own.

    Attributes:
        coef_fd: (f, d) weights.
        intercept_f: (f,) intercepts.
        held_out_r: (r,) decision ``x w + b`` of every row by the fit that did not see it.
        proven_f: (f,) every held-out row gets the class that the exact optimum gives it.

    """

    coef_fd: Floats
    intercept_f: Floats
    held_out_r: Floats
    proven_f: NDArray[np.bool_]


class Images:
    """Activations made ready for many problems on subsets of their rows.

    The intercept is free, so that centring the activations changes nothing but its value.
    """

    def __init__(self, Z_nd: Floats) -> None:
        """Copy and centre activations (n, d), which are finite."""
        n, d = Z_nd.shape
        self.A_nk = np.ones((n, d + 1))
        self.A_nk[:, :d] = Z_nd
        self.mean_d = self.A_nk[:, :d].mean(axis=0)
        self.A_nk[:, :d] -= self.mean_d
        self.single_nk = self.A_nk.astype(np.float32)
        self.length_n = np.sqrt(np.einsum("nd,nd->n", self.A_nk[:, :d], self.A_nk[:, :d]))

    def gram(self, rows_r: NDArray[np.intp]) -> Singles:
        """Products (k, k) of the columns over some rows, for `fit_folds`."""
        part_rk = self.single_nk[rows_r]
        return np.asarray(part_rk.T @ part_rk)

    def fit_folds(
        self,
        rows_r: NDArray[np.intp],
        second_r: NDArray[np.bool_],
        fold_r: NDArray[np.integer[Any]],
        C: float = 1.0,
        gram_kk: Singles | None = None,
    ) -> Fits:
        """Fit a logistic regression for each fold; show that its held-out predictions are the optimum's.

        All rows together are fitted roughly first; from there each fold starts with that Hessian, less the part
        of its held-out rows.

        Args:
            rows_r: the rows of the problem.
            second_r: the row is of the second class.
            fold_r: the fold that holds the row out, 0 to f - 1, none empty; without it, both classes must remain.
            C: inverse strength of the regularisation.
            gram_kk: `gram` of these rows, where known (the sum of the two classes').

        Returns:
            The `Fits`. A fold that could not be proven (a row on the boundary to within rounding; activations
            so large that float32 Hessians fail) has `proven_f` False, and its values are not to be used.

        """
        order_r = np.argsort(fold_r, kind="stable")
        problem = _Problem(self, rows_r[order_r], second_r[order_r], fold_r[order_r], C)
        # at zero every variance is a quarter
        flat_kk = (self.gram(rows_r) if gram_kk is None else gram_kk) * np.float32(C / 4)
        with np.errstate(over="ignore"):  # of exp, where a probability is 0
            whole = _start(_Rough(problem, np.ones((1, len(rows_r)), dtype=np.float32), _ROUGH), flat_kk)
            memory = _without_folds(problem, whole.state)
            folds = _Rough(problem, problem.train_fr.astype(np.float32), problem.close)
            near = descend(folds, folds.at(np.repeat(whole.state.W_fk, len(problem.parts), axis=0)), memory)
            end = descend(problem, problem.at(near.state.W_fk.astype(np.float64)), memory)
        held_out_r = np.empty(len(rows_r))
        held_out_r[order_r] = problem.held_out(end.state.decision_fr)
        coef_fd = end.state.W_fk[:, :-1]
        return Fits(coef_fd, end.state.W_fk[:, -1] - coef_fd @ self.mean_d, held_out_r, end.done_f)


class _Problem:
    """Two classes of images in double precision, in the order of their folds."""

    def __init__(
        self,
        images: Images,
        rows_r: NDArray[np.intp],
        second_r: NDArray[np.bool_],
        fold_r: NDArray[np.integer[Any]],
        C: float,
    ) -> None:
        self.A_rk = images.A_nk.take(rows_r, axis=0)
        self.single_rk = images.single_nk.take(rows_r, axis=0)
        self.second_r = second_r.astype(np.float64)
        self.radius = float(images.length_n[rows_r].max())
        self.C = C
        edges = [*np.flatnonzero(np.diff(fold_r, prepend=-1)).tolist(), len(fold_r)]
        self.parts = [slice(a, b) for a, b in pairwise(edges)]
        self.train_fr = np.ones((len(self.parts), len(fold_r)))
        for fold, part in enumerate(self.parts):
            self.train_fr[fold, part] = 0.0

    @property
    def close(self) -> float:
        """The squared Newton decrement at which to go on in double precision."""
        return max(_CLOSE / (1 + self.radius), _SEEN * self.radius) ** 2

    def at(self, W_fk: Floats) -> State:
        """Decisions and gradient of the objective at W."""
        return _evaluate(self.A_rk, self.second_r, self.train_fr, self.C, W_fk)

    def held_out(self, value_fr: Floats) -> Floats:
        """Of each row, the value (r,) in the fold that holds it out."""
        return np.concatenate([value_r[part] for value_r, part in zip(value_fr, self.parts, strict=True)])

    def add_done(self, done_f: NDArray[np.bool_], state: State, _decrement_f: Floats, memory: Memory) -> None:
        """Done is what is proven."""
        done_f |= self.proven(state, memory, ~done_f)

    @np.errstate(divide="ignore", invalid="ignore")  # nothing is proven where variances are 0; 0 / 0 is a row held out
    def proven(self, state: State, memory: Memory, asked_f: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """No held-out row of the fold (f,) lies so near the boundary that the optimum could decide otherwise.

        Write g for the gradient, H for the Hessian, e for the way from here to the optimum, |e|_H for its length in the
        metric of H, l for the gradient's length in that of H's inverse, a row's vector a including its 1.

        - If no row's decision changes by more than m on that way, no variance falls to less than exp(-m) of its value
          (the logarithm of p (1 - p) changes by at most 1 per unit), and at a part t of the way the Hessian is at
          least exp(-m t) H. Its integral times e is -g, hence |e|_H (1 - exp(-m)) / m <= l.
        - A decision changes by at most |a| |e|_H, |a| in the metric of H's inverse. No row has |a| above rho, with
          rho^2 = 4 R^2 + 1 / v, R the longest centred row and v the sum of the variances: by the regularisation,
          and by Jensen's inequality, |e|_H^2 is at least |w|^2 + v (mean of the rows)'e^2, rows weighted by variance.
        - Together, if rho l < 1: m <= -log(1 - rho l) and |e|_H <= m / rho. Only rows whose decision is within m need
          to be looked at.

        What is at hand is the factor of an earlier Hessian M, in single precision. H is at least M / c, c the largest
        ratio of a variance then to now. Rounding of that factor is allowed for (`rounding`), and so are the largest
        errors that double precision can make in decisions, and by them and its sums in the gradient.
        """
        proven_f = np.zeros(len(self.parts), dtype=bool)
        rows, k = self.A_rk.shape
        variance_f = np.vecdot(state.spread_fr, self.train_fr)
        residual_f = self.C * np.vecdot(np.abs(state.second_fr - self.second_r), self.train_fr)
        decision_error_f = _UNIT * (k + 1) * math.hypot(self.radius, 1) * np.linalg.norm(state.W_fk, axis=1)
        rho_f = np.sqrt(4 * self.radius**2 + 1 / variance_f)
        shrunk_f = np.fmax(1.0, np.fmax.reduce(memory.weight_fr / state.spread_fr, axis=1))
        # from lengths by the factor to bounds of lengths in the metric of the inverse of H
        slack_f = np.sqrt((1 + rounding(self.radius, memory.weight_fr.sum(axis=1), k)) * shrunk_f)
        gradient_error_f = rho_f * (variance_f * decision_error_f + _UNIT * (rows + k) * residual_f)
        for fold in np.flatnonzero(asked_f).tolist():
            factor_kk, part, rho, slack = memory.factors[fold], self.parts[fold], rho_f[fold], slack_f[fold]
            if factor_kk is None:
                continue
            reach = rho * (slack * lengths(factor_kk, state.gradient_fk[fold, None])[0] + gradient_error_f[fold])
            if not reach < 1:
                continue
            farthest = -math.log1p(-reach)
            size_r = np.abs(state.decision_fr[fold, part]) - decision_error_f[fold]
            near = np.flatnonzero(size_r <= farthest)
            change_q = lengths(factor_kk, self.single_rk[part][near]) * (slack * farthest / rho)
            proven_f[fold] = (change_q < size_r[near]).all()
        return proven_f

    def data_hessian(self, weight_r: Floats, part: slice = slice(None)) -> Singles:
        """What some rows add to the Hessian."""
        weighted_rk = self.single_rk[part] * np.sqrt(weight_r, dtype=np.float32)[:, None]
        # numpy computes half of a matrix times its own transpose and mirrors it
        return np.asarray(weighted_rk.T @ weighted_rk)

    def hessian(self, state: State, fold: int) -> tuple[Singles, Floats]:
        """The Hessian of a fold's objective, and the rows' weights in it."""
        weight_r = state.spread_fr[fold] * self.train_fr[fold]
        return _with_ridge(self.data_hessian(weight_r)), weight_r


def rounding(radius: float, variance: Any, k: int) -> Any:
    """By what part a Hessian's factor in single precision may exceed the Hessian in any direction, intercept included.

    Rounding changes it by some units in the last place of its trace, with the intercept's column scaled to the length
    of the longest row; in that scale the Hessian is at least about 1. Four units are at least ten times what was found
    in correlated, rectified and rank-deficient data of any size; the worst that rounding could do is more.
    """
    return _ROUNDING * (radius**2 * variance + k)


class _Rough:
    """A problem in single precision, for a point near the optimum."""

    def __init__(self, problem: _Problem, train_fr: Singles, limit: float) -> None:
        self.single_rk = problem.single_rk
        self.second_r = problem.second_r.astype(np.float32)
        self.C = problem.C
        self._problem = problem
        self._train_fr = train_fr
        self._limit = limit

    def at(self, W_fk: Floats) -> State:
        return _evaluate(self.single_rk, self.second_r, self._train_fr, self.C, W_fk)

    def add_done(self, done_f: NDArray[np.bool_], _state: State, decrement_f: Floats, _memory: Memory) -> None:
        done_f |= decrement_f < self._limit

    def hessian(self, state: State, fold: int) -> tuple[Singles, Floats]:
        weight_r = state.spread_fr[fold] * self._train_fr[fold]
        return _with_ridge(self._problem.data_hessian(weight_r)), weight_r


def _best_length(whole: _Rough, step_1k: Floats) -> Any:
    """How many times a step from 0 lowers the objective most: Newton's method in one dimension."""
    along_r = step_1k[0] @ whole.single_rk.T
    weight = np.vecdot(step_1k[0, :-1], step_1k[0, :-1])
    length = np.float32(0)
    for _ in range(_LENGTH_STEPS):
        second_r = 1 / (1 + np.exp(-length * along_r))
        slope = whole.C * np.vecdot(along_r, second_r - whole.second_r) + weight * length
        curvature = whole.C * np.vecdot(along_r * along_r, second_r * (1 - second_r)) + weight
        if curvature == 0:  # all rows are alike, and the classes of one size
            break
        length -= slope / curvature
    return length


def _evaluate(A_rk: Floats, second_r: Floats, train_fr: Floats, C: float, W_fk: Floats) -> State:
    decision_fr = W_fk @ A_rk.T
    second_fr = np.exp(-decision_fr)
    second_fr += 1
    np.reciprocal(second_fr, out=second_fr)
    residual_fr = second_fr - second_r
    if len(train_fr) > 1:
        residual_fr *= train_fr
    gradient_fk = residual_fr @ A_rk
    gradient_fk *= C
    gradient_fk[:, :-1] += W_fk[:, :-1]
    return State(W_fk, decision_fr, second_fr, gradient_fk, C)


def _with_ridge(hessian_kk: Singles) -> Singles:
    """Add the regularisation's part, in place."""
    units = np.arange(len(hessian_kk) - 1)
    hessian_kk[units, units] += 1
    return hessian_kk


def _start(whole: _Rough, flat_kk: Singles) -> End:
    """All rows fitted roughly, from the Newton step at 0: its direction is the linear discriminant's."""
    zero_1k = np.zeros((1, len(flat_kk)), dtype=np.float32)
    zero = whole.at(zero_1k)
    step_1k = Memory([factor(_with_ridge(flat_kk))], zero.spread_fr).step(zero.gradient_fk)
    state = whole.at(step_1k * _best_length(whole, step_1k))
    hessian_kk, weight_r = whole.hessian(state, 0)
    return descend(whole, state, Memory([factor(hessian_kk)], weight_r[None]))


def _without_folds(problem: _Problem, whole: State) -> Memory:
    """The Hessian of all rows, less each fold's own."""
    weight_r = whole.spread_fr[0]
    parts_fkk = [problem.data_hessian(weight_r[part], part) for part in problem.parts]
    whole_kk = np.sum(parts_fkk, axis=0)
    factors = [factor(_with_ridge(whole_kk - part_kk)) for part_kk in parts_fkk]
    return Memory(factors, weight_r * problem.train_fr)
