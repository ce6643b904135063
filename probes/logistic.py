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

Matrix = NDArray[np.floating[Any]]

_MAX_STEPS = 100
_MAX_HALVINGS = 20
# A step is taken whole if the slope along it, negative at its start, ends up below this part of that.
_OVERSHOOT = 0.5
# Pairs of steps and changes of the gradient that improve the Hessian.
_MEMORY = 3
# A fit whose gradient keeps more than this part of its length gets a new Hessian, which costs several steps.
_SLOW = 0.45
# Rows are not looked at while even the bound for the best fold is above this.
_FAR = 0.3
# The start is as far from each fold's optimum as a fold's images move it; finding it more exactly gains nothing.
_START = 1e-2


@dataclass(frozen=True)
class Fits:
    """Fits of f folds, each to all rows but its own.

    Attributes:
        coef_fd: (f, d) weights.
        intercept_f: (f,) intercepts.
        held_out_r: (r,) decision ``x w + b`` of every row by the fit that did not see it.
        proven_f: (f,) every held-out row gets the class that the exact optimum gives it.

    """

    coef_fd: Matrix
    intercept_f: Matrix
    held_out_r: Matrix
    proven_f: NDArray[np.bool_]


class Images:
    """Activations made ready for many problems on subsets of their rows.

    The intercept is free, so that centring the activations changes nothing but its value.
    """

    def __init__(self, Z_nd: NDArray[np.floating[Any]]) -> None:
        """Copy and centre activations (n, d), which are finite."""
        n, d = Z_nd.shape
        self.A_nk = np.ones((n, d + 1))
        self.A_nk[:, :d] = Z_nd
        self.mean_d = self.A_nk[:, :d].mean(axis=0)
        self.A_nk[:, :d] -= self.mean_d
        self.single_nk = self.A_nk.astype(np.float32)
        self.length_n = np.sqrt(np.einsum("nd,nd->n", self.A_nk[:, :d], self.A_nk[:, :d]))

    def gram(self, rows_r: NDArray[np.intp]) -> NDArray[np.float32]:
        """Products (k, k) of the columns over some rows, for `fit_folds`."""
        part_rk = self.single_nk[rows_r]
        return np.asarray(part_rk.T @ part_rk)

    def fit_folds(
        self,
        rows_r: NDArray[np.intp],
        second_r: NDArray[np.bool_],
        fold_r: NDArray[np.integer[Any]],
        C: float = 1.0,
        gram_kk: NDArray[np.float32] | None = None,
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
        zero_k1 = np.zeros((len(flat_kk), 1), dtype=np.float32)
        start = _descend(_Whole(problem), zero_k1, [_Factor.of(_with_ridge(flat_kk))])
        parts_fkk = [problem.data_hessian(start.state.spread_rf[part, 0], part) for part in problem.parts]
        whole_kk = np.sum(parts_fkk, axis=0)
        factors = [_Factor.of(_with_ridge(whole_kk - part_kk)) for part_kk in parts_fkk]
        end = _descend(problem, np.repeat(start.W_kf.astype(np.float64), len(factors), axis=1), factors)
        held_out_r = np.empty(len(rows_r))
        held_out_r[order_r] = problem.held_out(end.state.decision_rf)
        coef_fd = end.W_kf[:-1].T
        return Fits(coef_fd, end.W_kf[-1] - coef_fd @ self.mean_d, held_out_r, end.done_f)


@dataclass(frozen=True)
class _State:
    """Decisions, gradient, and the Bernoulli variances times C at some weights."""

    decision_rf: Matrix
    gradient_kf: Matrix
    spread_rf: Matrix

    @cached_property
    def size_f(self) -> Matrix:
        """Length of the gradient."""
        return np.sqrt(_dot(self.gradient_kf, self.gradient_kf))


@dataclass(frozen=True)
class _End:
    W_kf: Matrix
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
        self.second_r1 = second_r[:, None].astype(np.float64)
        self.radius = float(images.length_n[rows_r].max())
        self.C = C
        self.fold_r = fold_r
        self.first_f = np.flatnonzero(np.diff(fold_r, prepend=-1))
        bounds = [*self.first_f.tolist(), len(fold_r)]
        self.parts = [slice(a, b) for a, b in pairwise(bounds)]
        self.train_rf = (fold_r[:, None] != np.arange(len(self.parts))).astype(np.float64)

    def at(self, W_kf: Matrix) -> _State:
        """Decisions and gradient of the objective at W."""
        return _evaluate(self.A_rk, self.second_r1, self.train_rf, self.C, W_kf)

    def held_out(self, value_rf: Matrix) -> Matrix:
        """Of each row, the value (r,) in the fold that holds it out."""
        return np.asarray(value_rf[np.arange(len(value_rf)), self.fold_r])

    def done(self, state: _State, _step_kf: Matrix) -> NDArray[np.bool_]:
        """No held-out row of the fold (f,) lies so near the boundary that the optimum could decide otherwise."""
        if 2 * self.radius * state.size_f.min() > _FAR:
            return np.zeros(len(self.parts), dtype=bool)
        nearest_f = np.minimum.reduceat(np.abs(self.held_out(state.decision_rf)), self.first_f)
        return np.asarray(self.decision_error(state) < nearest_f)

    def decision_error(self, state: _State) -> Matrix:
        """Bound (f,) on the distance of any row's decision from the exact optimum's.

        With the intercept at its best for given weights, the objective is strongly convex in the weights with
        modulus 1: they lie within the gradient's length of the optimum. Write r for the largest length of a centred
        row. Putting the intercept right changes that gradient by at most r |g_b|, because all residuals move one way;
        moving all weights by e moves decisions by at most r e, and the best intercept by no more. The intercept itself
        is off by at most -log(1 - |g_b| / v), v the sum of the variances, as a logistic's slope changes by at most a
        factor e per unit.
        """
        off_f = np.abs(state.gradient_kf[-1])
        weights_f = state.size_f + self.radius * off_f
        variance_f = np.einsum("rf,rf->f", state.spread_rf, self.train_rf)
        with np.errstate(divide="ignore", invalid="ignore"):
            intercept_f = -np.log1p(-np.minimum(off_f / variance_f, 1.0))
        return np.asarray(2 * self.radius * weights_f + intercept_f)

    def data_hessian(self, spread_r: Matrix, part: slice = slice(None)) -> NDArray[np.float32]:
        """What some rows add to the Hessian."""
        weighted_rk = self.single_rk[part] * np.sqrt(spread_r, dtype=np.float32)[:, None]
        # numpy computes half of a matrix times its own transpose and mirrors it
        return np.asarray(weighted_rk.T @ weighted_rk)

    def hessian(self, state: _State, fold: int) -> NDArray[np.float32]:
        """The Hessian of a fold's objective."""
        spread_r = state.spread_rf[:, fold] * self.train_rf[:, fold]
        return _with_ridge(self.data_hessian(spread_r.astype(np.float32)))


class _Whole:
    """All rows of a problem at once, in single precision: only a start is wanted."""

    def __init__(self, problem: _Problem) -> None:
        self._problem = problem
        self._second_r1 = problem.second_r1.astype(np.float32)

    def at(self, W_k1: Matrix) -> _State:
        one = np.ones((1, 1), dtype=np.float32)
        return _evaluate(self._problem.single_rk, self._second_r1, one, self._problem.C, W_k1)

    def done(self, state: _State, step_k1: Matrix) -> NDArray[np.bool_]:
        return np.abs(_dot(state.gradient_kf, step_k1)) < _START

    def hessian(self, state: _State, _fold: int) -> NDArray[np.float32]:
        return _with_ridge(self._problem.data_hessian(state.spread_rf[:, 0]))


def _evaluate(A_rk: Matrix, second_r1: Matrix, train_rf: Matrix, C: float, W_kf: Matrix) -> _State:
    decision_rf = A_rk @ W_kf
    with np.errstate(over="ignore"):
        second_rf = 1 / (1 + np.exp(-decision_rf))
    gradient_kf = A_rk.T @ ((second_rf - second_r1) * train_rf)
    gradient_kf *= C
    gradient_kf[:-1] += W_kf[:-1]
    return _State(decision_rf, gradient_kf, C * second_rf * (1 - second_rf))


def _with_ridge(hessian_kk: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add the regularisation's part, in place."""
    units = np.arange(len(hessian_kk) - 1)
    hessian_kk[units, units] += 1
    return hessian_kk


@dataclass(frozen=True)
class _Factor:
    """Cholesky factor of a Hessian; None where it is not positive definite in single precision."""

    upper_kk: NDArray[np.float32] | None

    @classmethod
    def of(cls, hessian_kk: NDArray[np.float32]) -> "_Factor":
        upper_kk, info = spotrf(hessian_kk.T, overwrite_a=True)
        return cls(upper_kk if info == 0 else None)

    def solve(self, gradient_k: Matrix) -> Matrix:
        """The Hessian's inverse times a gradient, whose size may lie below single precision's range."""
        size = np.abs(gradient_k).max()
        if size == 0 or self.upper_kk is None:
            return np.zeros_like(gradient_k)
        step_k, _ = spotrs(self.upper_kk, (gradient_k / size).astype(np.float32))
        return np.asarray(size * step_k.astype(gradient_k.dtype))


class _Memory:
    """L-BFGS: the last steps with their changes of the gradient, seen from a Hessian's factor in each fold."""

    def __init__(self, factors: list[_Factor]) -> None:
        self.factors = factors
        self._pairs: list[tuple[Matrix, Matrix, Matrix]] = []

    def add(self, step_kf: Matrix, change_kf: Matrix) -> None:
        curvature_f = _dot(step_kf, change_kf)
        inverse_f = np.divide(1.0, curvature_f, out=np.zeros_like(curvature_f), where=curvature_f > 0)
        self._pairs = [*self._pairs[1 - _MEMORY :], (step_kf, change_kf, inverse_f)]

    def renew(self, fold: int, factor: _Factor) -> None:
        self.factors[fold] = factor
        for _, _, inverse_f in self._pairs:
            inverse_f[fold] = 0.0

    def step(self, gradient_kf: Matrix) -> Matrix:
        """The quasi-Newton step: Nocedal's two loops."""
        q_kf, shares = gradient_kf, []
        for step_kf, change_kf, inverse_f in reversed(self._pairs):
            shares.append(inverse_f * _dot(step_kf, q_kf))
            q_kf = q_kf - shares[-1] * change_kf
        r_kf = np.stack([factor.solve(q_k) for factor, q_k in zip(self.factors, q_kf.T, strict=True)], axis=1)
        for (step_kf, change_kf, inverse_f), share_f in zip(self._pairs, reversed(shares), strict=True):
            r_kf = r_kf + (share_f - inverse_f * _dot(change_kf, r_kf)) * step_kf
        return -r_kf


def _dot(a_kf: Matrix, b_kf: Matrix) -> Matrix:
    return np.asarray(np.einsum("kf,kf->f", a_kf, b_kf))


def _descend(problem: _Problem | _Whole, W_kf: Matrix, factors: list[_Factor]) -> _End:
    """Quasi-Newton steps from W until every fold is done, or no step helps."""
    state = problem.at(W_kf)
    memory = _Memory(factors)
    fresh_f = np.zeros(len(factors), dtype=bool)
    for _ in range(_MAX_STEPS):
        before_f = state.size_f
        step_kf = memory.step(state.gradient_kf)
        new_kf, new = _moved(problem, W_kf, state, step_kf)
        memory.add(new_kf - W_kf, new.gradient_kf - state.gradient_kf)
        W_kf, state = new_kf, new
        done_f = problem.done(state, step_kf)
        slow_f = ~done_f & (state.size_f > _SLOW * before_f)
        # A fresh Hessian and still no progress: rounding is reached, or single precision does not suffice.
        if (done_f | (fresh_f & (state.size_f > before_f))).all():
            break
        for fold in np.flatnonzero(slow_f).tolist():
            memory.renew(fold, _Factor.of(problem.hessian(state, fold)))
        fresh_f = slow_f
    return _End(W_kf, state, done_f)


def _moved(problem: _Problem | _Whole, W_kf: Matrix, state: _State, step_kf: Matrix) -> tuple[Matrix, _State]:
    """Take a step, halved for those folds in which the objective already rises steeply at its end."""
    slope_f = _dot(state.gradient_kf, step_kf)
    length_f = np.ones(step_kf.shape[1], dtype=step_kf.dtype)
    for _ in range(_MAX_HALVINGS):
        new_kf = W_kf + length_f * step_kf
        new = problem.at(new_kf)
        beyond_f = _dot(new.gradient_kf, step_kf) > -_OVERSHOOT * slope_f
        if not beyond_f.any():
            break
        length_f[beyond_f] /= 2
    return new_kf, new
