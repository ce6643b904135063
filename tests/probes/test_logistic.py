from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from probes.logistic import Images

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
