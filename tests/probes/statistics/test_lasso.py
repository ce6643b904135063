import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from probes.statistics import lasso
from probes.statistics.lasso import coordinate_descent, nonnegative_paths

Matrix = NDArray[np.float64]
ALPHAS = np.logspace(-4, 0, 15)
rng = np.random.default_rng(0)

DESIGNS: dict[str, Matrix] = {
    "correlated": rng.normal(size=(80, 12)) @ rng.normal(size=(12, 12)),
    "sparse, positive": rng.exponential(size=(60, 10)) * (rng.random((60, 10)) < 0.4),
    "more predictors than rows": rng.exponential(size=(20, 35)),
    "every column twice": np.tile(rng.exponential(size=(50, 5)), (1, 2)),
    "columns that add up to one": np.eye(6)[rng.integers(0, 6, 70)],
    "integers, full of ties": rng.integers(0, 3, size=(40, 15)).astype(float),
    "one constant column": np.insert(rng.normal(size=(30, 4)), 2, 0.0, axis=1),
    "columns of different size": rng.normal(size=(60, 8)) * np.logspace(-2, 2, 8),
}


def problems(X_np: Matrix, targets: int, seed: int) -> tuple[Matrix, Matrix, Any]:
    """Centred predictors and targets with and without signal, and the arguments of `nonnegative_paths`."""
    generator = np.random.default_rng(seed)
    X_np = X_np - X_np.mean(axis=0)
    weights_tp = generator.exponential(size=(targets, X_np.shape[1])) * (np.arange(targets)[:, None] % 2)
    Y_nt = X_np @ weights_tp.T + generator.normal(size=(len(X_np), targets))
    Y_nt = Y_nt - Y_nt.mean(axis=0)
    gram_bpp = np.broadcast_to(X_np.T @ X_np, (targets, X_np.shape[1], X_np.shape[1]))
    return X_np, Y_nt, (gram_bpp, (X_np.T @ Y_nt).T, np.full(targets, len(X_np)))


def objective(X_np: Matrix, y_n: Matrix, w_p: Matrix, alpha: float) -> float:
    return float(((y_n - X_np @ w_p) ** 2).sum() / (2 * len(y_n)) + alpha * w_p.sum())


@pytest.mark.parametrize("name", DESIGNS)
def test_no_other_solver_gets_lower(name: str) -> None:
    X_np, Y_nt, arguments = problems(DESIGNS[name], 6, seed=1)
    coef_tap = nonnegative_paths(*arguments, ALPHAS)
    assert (coef_tap >= 0).all()
    for target, a in ((t, a) for t in range(6) for a in range(0, len(ALPHAS), 3)):
        model = Lasso(ALPHAS[a], positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # where there are more predictors than rows
            model.fit(X_np, Y_nt[:, target])
        ours, theirs = (objective(X_np, Y_nt[:, target], w_p, ALPHAS[a]) for w_p in (coef_tap[target, a], model.coef_))
        assert ours <= theirs + 1e-12 * max(theirs, 1.0)


@pytest.mark.parametrize("name", ["correlated", "sparse, positive", "columns of different size"])
def test_a_unique_solution_is_scikit_learns(name: str) -> None:
    X_np, Y_nt, arguments = problems(DESIGNS[name], 5, seed=2)
    coef_tap = nonnegative_paths(*arguments, ALPHAS)
    for target, coef_ap in enumerate(coef_tap):
        for alpha, coef_p in zip(ALPHAS, coef_ap, strict=True):
            model = Lasso(alpha, positive=True, fit_intercept=False, tol=1e-12, max_iter=1_000_000)
            np.testing.assert_allclose(coef_p, model.fit(X_np, Y_nt[:, target]).coef_, atol=1e-7)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_path_meets_the_optimality_conditions_without_help(name: str) -> None:
    _, _, (gram_bpp, xy_bp, rows_b) = problems(DESIGNS[name], 40, seed=3)
    coef_bap = lasso._on_grid(*lasso._events(gram_bpp, xy_bp, rows_b, ALPHAS[0]), ALPHAS)
    gradient_bap = xy_bp[:, None] - coef_bap @ gram_bpp - (rows_b[:, None] * ALPHAS)[:, :, None]
    scale = np.abs(xy_bp).max()
    assert gradient_bap.max() < 1e-9 * scale
    assert np.abs(gradient_bap * coef_bap).max() < 1e-9 * scale * max(coef_bap.max(), 1.0)


def test_problems_side_by_side_do_not_touch_each_other() -> None:
    mixed = [problems(DESIGNS[name][:, :4], 3, seed=4)[2] for name in ("correlated", "sparse, positive")]
    gram_bpp, xy_bp, rows_b = (np.concatenate(arrays) for arrays in zip(*mixed, strict=True))
    both = nonnegative_paths(gram_bpp, xy_bp, rows_b, ALPHAS)
    for b in range(6):
        alone = nonnegative_paths(gram_bpp[b : b + 1], xy_bp[b : b + 1], rows_b[b : b + 1], ALPHAS)
        np.testing.assert_allclose(both[b], alone[0], atol=1e-12)


def test_coordinate_descent_takes_over_where_the_path_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, arguments = problems(DESIGNS["sparse, positive"], 3, seed=5)
    expected = nonnegative_paths(*arguments, ALPHAS)
    monkeypatch.setattr(lasso, "_on_grid", lambda *_: np.zeros_like(expected))
    np.testing.assert_allclose(nonnegative_paths(*arguments, ALPHAS), expected, atol=1e-7)
    assert expected.max() > 0.1


def test_no_solution_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, (gram_bpp, xy_bp, rows_b) = problems(DESIGNS["correlated"], 2, seed=6)
    monkeypatch.setattr(lasso, "_MAX_SWEEPS", 1)
    with pytest.warns(ConvergenceWarning, match="no non-negative Lasso solution at penalty"):
        coordinate_descent(gram_bpp[1], xy_bp[1], 80, ALPHAS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nonnegative_paths(gram_bpp, xy_bp, rows_b, ALPHAS)
