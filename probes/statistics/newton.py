"""Quasi-Newton descent of several logistic objectives side by side: float32 Hessians, improved by L-BFGS.

Axes: k weights, f objectives (folds), r rows that an objective sums over, q vectors.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import spotrf, spotrs, strtrs

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

MAX_STEPS = 100
_MAX_HALVINGS = 20
# A step is taken whole if the slope along it, negative at its start, ends up below this part of that.
_OVERSHOOT = 0.5
# Pairs of steps and changes of the gradient that improve the Hessian.
_MEMORY = 2
# A fit whose gradient keeps more than this part of its length gets a new Hessian, at the cost of a step of all folds.
_SLOW = 0.3
# A step by a new Hessian that keeps more than this has reached rounding, or single precision does not suffice.
_STUCK = 0.9
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class State:
    """Weights, decisions, probabilities of the second class, and the objectives' gradients."""

    W_fk: Floats
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
class End:
    """Where a descent ended; what is not done is helped by no further step."""

    state: State
    done_f: NDArray[np.bool_]


class Objectives(Protocol):
    """What `descend` asks of the objectives."""

    def at(self, W_fk: Floats) -> State:
        """The objectives at W."""

    def add_done(self, done_f: NDArray[np.bool_], state: State, decrement_f: Floats, memory: "Memory") -> None:
        """Set to True those that need no further step; the squared Newton decrements are estimates."""

    def hessian(self, state: State, fold: int) -> tuple[Singles, Floats]:
        """One objective's Hessian (k, k), free to be overwritten, and its rows' weights (r,) in it."""


def factor(hessian_kk: Singles) -> Singles | None:
    """Cholesky factor; None if the matrix is not positive definite in single precision."""
    upper_kk, info = spotrf(hessian_kk.T, overwrite_a=True)
    return np.asarray(upper_kk) if info == 0 else None


def lengths(factor_kk: Singles, V_qk: Floats) -> Floats:
    """Lengths (q,) in the metric of the inverse of the matrix that was factored; of any size, and of no vector."""
    size = np.abs(V_qk).max(initial=0.0) or 1.0
    half_kq, _ = strtrs(factor_kk, (V_qk / size).T.astype(np.float32), trans=1)
    return np.asarray(size * np.sqrt(np.vecdot(half_kq.T, half_kq.T)))


class Memory:
    """L-BFGS: the last steps with their changes of the gradient, seen from a Hessian's factor in each fold."""

    def __init__(self, factors: list[Singles | None], weight_fr: Floats) -> None:
        """Start from Hessians' factors and the rows' weights in them."""
        self.factors = factors
        self.weight_fr = weight_fr
        self._pairs: list[tuple[Floats, Floats, Floats]] = []

    def add(self, step_fk: Floats, change_fk: Floats) -> None:
        """Remember a step and the change of the gradient over it."""
        curvature_f = np.vecdot(step_fk, change_fk)
        inverse_f1 = np.divide(1.0, curvature_f, out=np.zeros_like(curvature_f), where=curvature_f > 0)[:, None]
        self._pairs = [*self._pairs, (step_fk, change_fk, inverse_f1)][-_MEMORY:]

    def renew(self, fold: int, hessian_kk: Singles, weight_r: Floats) -> None:
        """Take a new Hessian for one fold, and forget its steps."""
        self.factors[fold] = factor(hessian_kk)
        self.weight_fr[fold] = weight_r
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
        single = size_f1.min(initial=1.0) >= np.finfo(np.float32).tiny  # else it would be divided by 0
        divided_fk = np.divide(q_fk, size_f1, dtype=np.float32 if single else np.float64, casting="same_kind")
        solved_fk = divided_fk.astype(np.float32, copy=False)
        for factor_kk, solved_k in zip(self.factors, solved_fk, strict=True):
            if factor_kk is None:
                solved_k[:] = 0.0
            else:
                spotrs(factor_kk, solved_k, overwrite_b=True)
        return np.asarray(solved_fk * size_f1)


def descend(problem: Objectives, state: State, memory: Memory) -> End:
    """Quasi-Newton steps until each objective is done or no step helps; then it stays where it is."""
    done_f, fresh_f, stuck_f = np.zeros((3, len(state.W_fk)), dtype=bool)
    problem.add_done(done_f, state, np.full(len(done_f), np.inf), memory)
    for _ in range(MAX_STEPS):
        still_f = done_f | stuck_f
        if still_f.all():
            break
        step_fk = memory.step(state.gradient_fk)
        step_fk[still_f] = 0.0
        before, state = state, _moved(problem, state, step_fk)
        memory.add(state.W_fk - before.W_fk, state.gradient_fk - before.gradient_fk)
        kept_f = state.size_f / np.maximum(before.size_f, _TINY)
        problem.add_done(done_f, state, -np.vecdot(before.gradient_fk, step_fk) * kept_f**2, memory)
        stuck_f |= fresh_f & (kept_f > _STUCK)
        fresh_f = ~done_f & ~stuck_f & (kept_f > _SLOW)
        for fold in np.flatnonzero(fresh_f).tolist():
            memory.renew(fold, *problem.hessian(state, fold))
    return End(state, done_f)


def _moved(problem: Objectives, state: State, step_fk: Floats) -> State:
    """Take a step, halved for those folds in which the objective already rises steeply at its end."""
    limit_f = -_OVERSHOOT * np.vecdot(state.gradient_fk, step_fk)
    for _ in range(_MAX_HALVINGS):
        new = problem.at(state.W_fk + step_fk)
        beyond_f = np.vecdot(new.gradient_fk, step_fk) > limit_f
        if not beyond_f.any():
            break
        step_fk = np.where(beyond_f[:, None], step_fk / 2, step_fk)
        limit_f = np.where(beyond_f, limit_f / 2, limit_f)
    return new
