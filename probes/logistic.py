"""L2-regularised logistic regression of many overlapping training sets, each proven to predict as its optimum does.

Axes: n images, d units, k = d + 1 (units and intercept), r rows of a problem, f folds.

The objective is scikit-learn's, ``|w|^2 / 2 + C * sum(log(1 + exp(-s (x w + b))))``, the intercept b free. Newton-like
steps need exact gradients and merely good Hessians: gradients are float64, one matrix product for all folds; Hessians
are float32 and rare, improved by what the last gradients showed (L-BFGS). The search ends not at a tolerance but with
a proof, `_Problem.decision_error`, that no held-out image lies so near the boundary that the optimum could decide it
differently.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import spotrf, spotrs

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

_MAX_STEPS = 100
_MAX_HALVINGS = 20
# Newton steps in one dimension for the length of the first step; it need not be exact.
_LENGTH_STEPS = 4
# A step is taken whole if the slope along it, negative at its start, ends up below this part of that.
_OVERSHOOT = 0.5
# Pairs of steps and changes of the gradient that improve the Hessian.
_MEMORY = 3
# A fit whose gradient keeps more than this part of its length gets a new Hessian, at the cost of a step of all folds.
_SLOW = 0.3
# Rows are not looked at while even the bound for the best fold is above this.
_FAR = 0.3
# The squared Newton decrement, twice what the objective may still fall, at which all rows together are fitted well
# enough: each fold's optimum is as far away as a fold's rows move it, and a better start gains nothing.
_ROUGH = 0.1


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
            start = _start(_Whole(problem), _factor(_with_ridge(flat_kk)), len(flat_kk))
            parts_fkk = [problem.data_hessian(start.state.spread_fr[0, part], part) for part in problem.parts]
            whole_kk = np.sum(parts_fkk, axis=0)
            factors = [_factor(_with_ridge(whole_kk - part_kk)) for part_kk in parts_fkk]
            end = _descend(problem, np.repeat(start.W_fk.astype(np.float64), len(factors), axis=0), factors)
        held_out_r = np.empty(len(rows_r))
        held_out_r[order_r] = problem.held_out(end.state.decision_fr)
        coef_fd = end.W_fk[:, :-1]
        return Fits(coef_fd, end.W_fk[:, -1] - coef_fd @ self.mean_d, held_out_r, end.done_f)


@dataclass(frozen=True)
class _State:
    """Decisions, probabilities of the second class, and the objective's gradient at some weights."""

    decision_fr: Floats
    second_fr: Floats
    gradient_fk: Floats
    C: float

    @cached_property
    def size_f(self) -> Floats:
        """Length of the gradient."""
        return np.asarray(np.sqrt(np.vecdot(self.gradient_fk, self.gradient_fk)))

    @cached_property
    def spread_fr(self) -> Floats:
        """Bernoulli variances times C, the weights of the Hessian."""
        return np.asarray(self.C * self.second_fr * (1 - self.second_fr))


@dataclass(frozen=True)
class _End:
    W_fk: Floats
    state: _State
    done_f: NDArray[np.bool_]


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
        self.A_rk = images.A_nk[rows_r]
        self.single_rk = images.single_nk[rows_r]
        self.second_r = second_r.astype(np.float64)
        self.radius = float(images.length_n[rows_r].max())
        self.C = C
        self.first_f = np.flatnonzero(np.diff(fold_r, prepend=-1))
        self.parts = [slice(a, b) for a, b in pairwise([*self.first_f.tolist(), len(fold_r)])]
        self.train_fr = np.ones((len(self.parts), len(fold_r)))
        for fold, part in enumerate(self.parts):
            self.train_fr[fold, part] = 0.0

    def at(self, W_fk: Floats) -> _State:
        """Decisions and gradient of the objective at W."""
        return _evaluate(self.A_rk, self.second_r, self.train_fr, self.C, W_fk)

    def held_out(self, value_fr: Floats) -> Floats:
        """Of each row, the value (r,) in the fold that holds it out."""
        return np.concatenate([value_r[part] for value_r, part in zip(value_fr, self.parts, strict=True)])

    def done(self, state: _State, _step_fk: Floats) -> NDArray[np.bool_]:
        """No held-out row of the fold (f,) lies so near the boundary that the optimum could decide otherwise."""
        if 2 * self.radius * state.size_f.min() > _FAR:
            return np.zeros(len(self.parts), dtype=bool)
        nearest_f = np.minimum.reduceat(np.abs(self.held_out(state.decision_fr)), self.first_f)
        return np.asarray(self.decision_error(state) < nearest_f)

    def decision_error(self, state: _State) -> Floats:
        """Bound (f,) on the distance of any row's decision from the exact optimum's.

        With the intercept at its best for given weights, the objective is strongly convex in the weights with
        modulus 1: they lie within the gradient's length of the optimum. Write r for the largest length of a centred
        row. Putting the intercept right changes that gradient by at most r |g_b|, because all residuals move one way;
        moving all weights by e moves decisions by at most r e, and the best intercept by no more. The intercept itself
        is off by at most -log(1 - |g_b| / v), v the sum of the variances, as a logistic's slope changes by at most a
        factor e per unit.
        """
        off_f = np.abs(state.gradient_fk[:, -1])
        weights_f = state.size_f + self.radius * off_f
        variance_f = np.vecdot(state.spread_fr, self.train_fr)
        with np.errstate(divide="ignore", invalid="ignore"):
            intercept_f = -np.log1p(-np.minimum(off_f / variance_f, 1.0))
        return np.asarray(2 * self.radius * weights_f + intercept_f)

    def data_hessian(self, spread_r: Floats, part: slice = slice(None)) -> Singles:
        """What some rows add to the Hessian."""
        weighted_rk = self.single_rk[part] * np.sqrt(spread_r, dtype=np.float32)[:, None]
        # numpy computes half of a matrix times its own transpose and mirrors it
        return np.asarray(weighted_rk.T @ weighted_rk)

    def hessian(self, state: _State, fold: int) -> Singles:
        """The Hessian of a fold's objective."""
        return _with_ridge(self.data_hessian(state.spread_fr[fold] * self.train_fr[fold]))


class _Whole:
    """All rows of a problem at once, in single precision: only a start is wanted."""

    def __init__(self, problem: _Problem) -> None:
        self._problem = problem
        self._second_r = problem.second_r.astype(np.float32)

    def at(self, W_1k: Floats) -> _State:
        return _evaluate(self._problem.single_rk, self._second_r, None, self._problem.C, W_1k)

    def done(self, state: _State, step_1k: Floats) -> NDArray[np.bool_]:
        return np.asarray(-np.vecdot(state.gradient_fk, step_1k) < _ROUGH)

    def hessian(self, state: _State, _fold: int) -> Singles:
        return _with_ridge(self._problem.data_hessian(state.spread_fr[0]))

    def best_length(self, step_1k: Floats) -> Any:
        """How many times a step from 0 lowers the objective most: Newton's method in one dimension."""
        along_r = step_1k[0] @ self._problem.single_rk.T
        weight = np.vecdot(step_1k[0, :-1], step_1k[0, :-1])
        length = np.float32(0)
        for _ in range(_LENGTH_STEPS):
            second_r = 1 / (1 + np.exp(-length * along_r))
            slope = self._problem.C * np.vecdot(along_r, second_r - self._second_r) + weight * length
            curvature = self._problem.C * np.vecdot(along_r * along_r, second_r * (1 - second_r)) + weight
            if curvature == 0:  # all rows are alike, and the classes of one size
                break
            length -= slope / curvature
        return length


def _evaluate(A_rk: Floats, second_r: Floats, train_fr: Floats | None, C: float, W_fk: Floats) -> _State:
    decision_fr = W_fk @ A_rk.T
    second_fr = np.exp(-decision_fr)
    second_fr += 1
    np.reciprocal(second_fr, out=second_fr)
    residual_fr = second_fr - second_r
    if train_fr is not None:
        residual_fr *= train_fr
    gradient_fk = residual_fr @ A_rk
    gradient_fk *= C
    gradient_fk[:, :-1] += W_fk[:, :-1]
    return _State(decision_fr, second_fr, gradient_fk, C)


def _with_ridge(hessian_kk: Singles) -> Singles:
    """Add the regularisation's part, in place."""
    units = np.arange(len(hessian_kk) - 1)
    hessian_kk[units, units] += 1
    return hessian_kk


def _factor(hessian_kk: Singles) -> Singles | None:
    """Cholesky factor; None if the matrix is not positive definite in single precision."""
    upper_kk, info = spotrf(hessian_kk.T, overwrite_a=True)
    return np.asarray(upper_kk) if info == 0 else None


class _Memory:
    """L-BFGS: the last steps with their changes of the gradient, seen from a Hessian's factor in each fold."""

    def __init__(self, factors: list[Singles | None]) -> None:
        self.factors = factors
        self._pairs: list[tuple[Floats, Floats, Floats]] = []

    def add(self, step_fk: Floats, change_fk: Floats) -> None:
        curvature_f = np.vecdot(step_fk, change_fk)
        inverse_f1 = np.divide(1.0, curvature_f, out=np.zeros_like(curvature_f), where=curvature_f > 0)[:, None]
        self._pairs = [*self._pairs[1 - _MEMORY :], (step_fk, change_fk, inverse_f1)]

    def renew(self, fold: int, factor: Singles | None) -> None:
        self.factors[fold] = factor
        for _, _, inverse_f1 in self._pairs:
            inverse_f1[fold] = 0.0

    def step(self, gradient_fk: Floats) -> Floats:
        """The quasi-Newton step: Nocedal's two loops."""
        q_fk, shares = gradient_fk, []
        for step_fk, change_fk, inverse_f1 in reversed(self._pairs):
            shares.append(inverse_f1 * np.vecdot(step_fk, q_fk)[:, None])
            q_fk = q_fk - shares[-1] * change_fk
        r_fk = self._solve(q_fk)
        for (step_fk, change_fk, inverse_f1), share_f1 in zip(self._pairs, reversed(shares), strict=True):
            r_fk += (share_f1 - inverse_f1 * np.vecdot(change_fk, r_fk)[:, None]) * step_fk
        return np.negative(r_fk, out=r_fk)

    def _solve(self, q_fk: Floats) -> Floats:
        """Each Hessian's inverse times a vector, whose size may lie below single precision's range."""
        size_f1 = np.abs(q_fk).max(axis=1, keepdims=True)
        size_f1[size_f1 == 0] = 1.0
        scaled_fk = (q_fk / size_f1).astype(np.float32)
        solved_fk = np.zeros_like(q_fk)
        for fold, factor_kk in enumerate(self.factors):
            if factor_kk is not None:
                solved_fk[fold] = spotrs(factor_kk, scaled_fk[fold])[0]
        solved_fk *= size_f1
        return solved_fk


def _start(whole: _Whole, flat: Singles | None, k: int) -> _End:
    """All rows fitted roughly, from the Newton step at 0: its direction is the linear discriminant's."""
    zero_1k = np.zeros((1, k), dtype=np.float32)
    step_1k = _Memory([flat]).step(whole.at(zero_1k).gradient_fk)
    W_1k = step_1k * whole.best_length(step_1k)
    return _descend(whole, W_1k, [_factor(whole.hessian(whole.at(W_1k), 0))])


def _descend(problem: _Problem | _Whole, W_fk: Floats, factors: list[Singles | None]) -> _End:
    """Quasi-Newton steps from W until every fold is done, or no step helps."""
    state = problem.at(W_fk)
    memory = _Memory(factors)
    fresh_f = np.zeros(len(factors), dtype=bool)
    for _ in range(_MAX_STEPS):
        step_fk = memory.step(state.gradient_fk)
        new_fk, new = _moved(problem, W_fk, state, step_fk)
        memory.add(new_fk - W_fk, new.gradient_fk - state.gradient_fk)
        W_fk, before, state = new_fk, state, new
        done_f = problem.done(state, step_fk)
        # A fresh Hessian and still no progress: rounding is reached, or single precision does not suffice.
        if (done_f | (fresh_f & (state.size_f >= before.size_f))).all():
            break
        fresh_f = ~done_f & (state.size_f > _SLOW * before.size_f)
        for fold in np.flatnonzero(fresh_f).tolist():
            memory.renew(fold, _factor(problem.hessian(state, fold)))
    return _End(W_fk, state, done_f)


def _moved(problem: _Problem | _Whole, W_fk: Floats, state: _State, step_fk: Floats) -> tuple[Floats, _State]:
    """Take a step, halved for those folds in which the objective already rises steeply at its end."""
    limit_f = -_OVERSHOOT * np.vecdot(state.gradient_fk, step_fk)
    for _ in range(_MAX_HALVINGS):
        new_fk = W_fk + step_fk
        new = problem.at(new_fk)
        beyond_f = np.vecdot(new.gradient_fk, step_fk) > limit_f
        if not beyond_f.any():
            break
        step_fk = np.where(beyond_f[:, None], step_fk / 2, step_fk)
        limit_f = np.where(beyond_f, limit_f / 2, limit_f)
    return new_fk, new
