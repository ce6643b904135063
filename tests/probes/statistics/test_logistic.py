from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from probes.statistics import logistic
from probes.statistics.logistic import Images, _Problem, rounding
from probes.statistics.newton import Memory, factor, lengths

Matrix = NDArray[np.float64]


def two_classes(n: int, d: int, apart: float, seed: int) -> tuple[Matrix, NDArray[np.bool_], NDArray[np.intp]]:
    """Correlated Gaussians, classes of unequal size, and five folds."""
    rng = np.random.default_rng(seed)
    second_n = rng.random(n) < 0.4
    Z_nd = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + apart * second_n[:, None] * rng.normal(size=d)
    return Z_nd, second_n, rng.permutation(n) % 5


def slow_optimum(Z_nd: Matrix, second_n: Any, C: float) -> Matrix:
    """Weights and intercept by a general minimiser, from the objective as it is written."""
    A_nk = np.column_stack([Z_nd, np.ones(len(Z_nd))])
    sign_n = np.where(second_n, 1.0, -1.0)
    ridge_k = np.append(np.ones(Z_nd.shape[1]), 0.0)

    def objective(w_k: Matrix) -> tuple[float, Matrix]:
        margin_n = sign_n * (A_nk @ w_k)
        gradient_k = ridge_k * w_k - C * A_nk.T @ (sign_n * expit(-margin_n))
        return 0.5 * (ridge_k * w_k**2).sum() + C * np.logaddexp(0, -margin_n).sum(), gradient_k

    def hessian(w_k: Matrix) -> Matrix:
        p_n = expit(A_nk @ w_k)
        return np.diag(ridge_k) + C * (A_nk.T * (p_n * (1 - p_n))) @ A_nk

    found = minimize(objective, np.zeros(A_nk.shape[1]), jac=True, hess=hessian, method="trust-exact", tol=1e-10)
    return np.asarray(found.x)


@pytest.mark.parametrize(("apart", "C", "offset"), [(0.5, 1.0, 0.0), (5.0, 1.0, 30.0), (1.0, 0.01, -3.0)])
def test_every_fold_is_proven_and_close_to_a_general_minimiser(apart: float, C: float, offset: float) -> None:
    Z_nd, second_n, fold_n = two_classes(150, 7, apart, seed=0)
    Z_nd = Z_nd + offset
    fits = Images(Z_nd).fit_folds(np.arange(150), second_n, fold_n, C)
    assert fits.proven_f.all()
    for fold in range(5):
        optimum_k = slow_optimum(Z_nd[fold_n != fold], second_n[fold_n != fold], C)
        exact_n = Z_nd[fold_n == fold] @ optimum_k[:-1] + optimum_k[-1]
        np.testing.assert_array_equal(fits.held_out_r[fold_n == fold] > 0, exact_n > 0)
        np.testing.assert_allclose(fits.held_out_r[fold_n == fold], exact_n, atol=0.05)
        decisions_n = Z_nd[fold_n == fold] @ fits.coef_fd[fold] + fits.intercept_f[fold]
        np.testing.assert_allclose(fits.held_out_r[fold_n == fold], decisions_n, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_decisions_differ_from_the_optimum_by_less_than_the_nearest_row(seed: int) -> None:
    """What is proven: no held-out row lies within the error of its decision."""
    Z_nd, second_n, fold_n = two_classes(400, 30, 1.0, seed=seed)
    fits = Images(Z_nd).fit_folds(np.arange(400), second_n, fold_n)
    for fold in np.flatnonzero(fits.proven_f):
        train_n, test_n = fold_n != fold, fold_n == fold
        model = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000)
        exact_n = model.fit(Z_nd[train_n], second_n[train_n]).decision_function(Z_nd[test_n])
        error = np.abs(exact_n - fits.held_out_r[test_n]).max()
        assert error < np.abs(fits.held_out_r[test_n]).min()
    assert fits.proven_f.all()


def test_rows_are_those_asked_for_in_any_order() -> None:
    Z_nd, second_n, fold_n = two_classes(120, 5, 1.0, seed=5)
    rows_r = np.random.default_rng(6).permutation(120)[:80]
    some = Images(Z_nd).fit_folds(rows_r, second_n[rows_r], fold_n[rows_r])
    alone = Images(Z_nd[rows_r]).fit_folds(np.arange(80), second_n[rows_r], fold_n[rows_r])
    np.testing.assert_allclose(some.held_out_r, alone.held_out_r, atol=0.05)
    np.testing.assert_array_equal(some.held_out_r > 0, alone.held_out_r > 0)


def test_a_row_on_the_boundary_is_not_proven() -> None:
    """Classes that are each other's mirror image, and a held-out row on the mirror: its optimal decision is 0."""
    half_nd = np.random.default_rng(7).normal(size=(20, 3)) + 1.0
    Z_nd = np.concatenate([half_nd, -half_nd, np.zeros((1, 3))])
    second_n = np.repeat([True, False, True], [20, 20, 1])
    fold_n = np.concatenate([np.arange(20) % 4 + 1, np.arange(20) % 4 + 1, [0]])
    fits = Images(Z_nd).fit_folds(np.arange(41), second_n, fold_n)
    assert fits.proven_f.tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("value", [np.zeros((40, 3)), np.ones((40, 3)) * 7])
def test_rows_that_are_all_alike_do_not_break_it(value: Any) -> None:
    second_n = np.arange(40) % 4 == 0
    fits = Images(value).fit_folds(np.arange(40), second_n, np.arange(40) // 4 % 5)
    # the best constant decision is the log odds of the training rows
    np.testing.assert_allclose(fits.held_out_r, np.log(8 / 24), atol=0.2)
    np.testing.assert_array_equal(fits.coef_fd, 0)
    assert fits.proven_f.all()


def exact_hessian(A_nk: Matrix, weight_n: Matrix) -> Matrix:
    return np.diag(np.append(np.ones(A_nk.shape[1] - 1), 0.0)) + (A_nk.T * weight_n) @ A_nk


def memory_at(problem: _Problem, W_fk: Matrix) -> Memory:
    """Hessians of all folds at W."""
    state = problem.at(W_fk)
    hessians, weights = zip(*(problem.hessian(state, fold) for fold in range(len(W_fk))), strict=True)
    return Memory([factor(hessian_kk) for hessian_kk in hessians], np.array(weights))


@pytest.mark.parametrize(("apart", "early_at_least"), [(0.3, 50), (1.0, 50), (6.0, 0)])
def test_a_proof_never_errs_wherever_it_is_tried(apart: float, early_at_least: int) -> None:
    """Random distances from the optimum, Hessians from elsewhere: all that is proven decides as the optimum does."""
    rng = np.random.default_rng(8)
    proven = wrong = early = 0
    for seed in range(6):
        n = (60, 90, 200)[seed % 3]
        Z_nd, second_n, fold_n = two_classes(n, 6, apart, seed=seed)
        fold_n = np.sort(fold_n)
        images = Images(Z_nd)
        problem = _Problem(images, np.arange(n), second_n, fold_n, 1.0)
        best_fk = np.array(
            [slow_optimum(images.A_nk[fold_n != fold, :-1], second_n[fold_n != fold], 1.0) for fold in range(5)]
        )
        exact_n = problem.held_out(problem.at(best_fk).decision_fr)
        for size in np.logspace(-6, 0, 25):
            state = problem.at(best_fk + size * rng.normal(size=best_fk.shape))
            memory = memory_at(problem, best_fk + 0.3 * rng.normal(size=best_fk.shape))
            same_n = (problem.held_out(state.decision_fr) > 0) == (exact_n > 0)
            shown_f = problem.proven(state, memory, np.ones(5, dtype=bool))
            for fold, (part, shown) in enumerate(zip(problem.parts, shown_f, strict=True)):
                assert same_n[part].all() or not shown
                proven, wrong = proven + shown, wrong + (not same_n[part].all())
                # what the gradient's length and the regularisation alone would show
                early += shown and 2 * problem.radius * state.size_f[fold] > np.abs(state.decision_fr[fold, part]).min()
    assert proven > 100
    assert wrong > 20
    assert early >= early_at_least


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("rank", [3, 40])
def test_single_precision_lengths_are_within_their_allowance(scale: float, rank: int) -> None:
    rng = np.random.default_rng(9)
    Z_nd = scale * np.maximum(rng.normal(size=(800, rank)) @ rng.normal(size=(rank, 40)), -1.0 if rank == 40 else -1e9)
    images = Images(Z_nd)
    problem = _Problem(images, np.arange(800), np.arange(800) % 2 == 0, np.arange(800) // 160, 1.0)
    state = problem.at(rng.normal(size=(5, 41)) / np.append(np.full(40, 10 * scale), 1.0))
    hessian_kk, weight_r = problem.hessian(state, 0)
    exact_kk = exact_hessian(problem.A_rk, weight_r)
    vectors_qk = np.concatenate([np.linalg.eigh(exact_kk)[1].T, problem.A_rk[:50]])
    exact_q = np.sqrt(np.einsum("qk,kq->q", vectors_qk, np.linalg.solve(exact_kk, vectors_qk.T)))
    single_kk = factor(hessian_kk)
    if single_kk is None:
        assert rank == 3  # in single precision the regularisation is lost
        return
    ratio_q = (exact_q / lengths(single_kk, vectors_qk)) ** 2
    allowed = rounding(problem.radius, weight_r.sum(), 41)
    assert (ratio_q < 1 + allowed / 5 + 1e-5).all()
    assert (ratio_q > 1 / (2 + allowed)).all()
    tiny_1k = 1e-60 * vectors_qk[:1]
    np.testing.assert_allclose(lengths(single_kk, tiny_1k), 1e-60 * lengths(single_kk, vectors_qk[:1]), rtol=1e-5)


@pytest.mark.parametrize("scale", [30.0, 1e3])
def test_large_activations_end_soon(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limits of rounding: proven or not, but never hundreds of evaluations, and never wrong."""
    Z_nd, second_n, fold_n = two_classes(200, 20, 3.0, seed=10)
    calls = []
    evaluate = logistic._evaluate
    monkeypatch.setattr(logistic, "_evaluate", lambda *arguments: calls.append(1) or evaluate(*arguments))
    fits = Images(scale * Z_nd).fit_folds(np.arange(200), second_n, fold_n)
    assert len(calls) < 150
    for fold in np.flatnonzero(fits.proven_f):
        train_n, test_n = fold_n != fold, fold_n == fold
        # the same as a fit to what is not scaled, with weaker regularisation
        optimum_k = slow_optimum(Z_nd[train_n], second_n[train_n], scale**2)
        exact_n = Z_nd[test_n] @ optimum_k[:-1] + optimum_k[-1]
        np.testing.assert_array_equal(fits.held_out_r[test_n] > 0, exact_n > 0)


@pytest.mark.parametrize("size", [1.0, 1e-38, 1e-50, 1e-300])
def test_a_step_of_any_size_is_solved_in_single_precision(size):
    memory = Memory([factor(np.eye(2, dtype=np.float32))], np.zeros((1, 2)))
    assert memory.step(size * np.array([[1.0, 2.0]])) == pytest.approx(size * np.array([[-1.0, -2.0]]), rel=1e-6)
