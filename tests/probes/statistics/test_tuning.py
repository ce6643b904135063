from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Lasso
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold

from probes.statistics.tuning import ALPHAS, Tuning, cross_validated, fit_tuning, held_out_predictions

Matrix = NDArray[np.float64]
FEW_ALPHAS = np.logspace(-4, 0, 9)


def planted(n: int, p: int, weights_tp: Matrix, noise: float, seed: int) -> tuple[Matrix, Matrix]:
    """Sparse non-negative predictors and targets that are linear in them, plus Gaussian noise."""
    rng = np.random.default_rng(seed)
    X_np = rng.exponential(size=(n, p)) * (rng.random((n, p)) < 0.4)
    Y_nt = X_np @ weights_tp.T + 3.0
    return X_np, Y_nt + noise * rng.normal(size=Y_nt.shape)


def exact_lasso(alpha: float) -> Lasso:
    return Lasso(alpha=alpha, positive=True, tol=1e-13, max_iter=100_000)


def slow_reference(X_np: Matrix, Y_nt: Matrix, *, alphas: Matrix, folds: int, inner: int, seed: int) -> Tuning:
    """Appendix A.2 spelled out: a grid search inside each outer fold, then one on all rows."""
    t, p = Y_nt.shape[1], X_np.shape[1]
    r2, fold_alpha, fold_coef = np.empty((t, folds)), np.empty((t, folds)), np.empty((t, folds, p))
    alpha, coef = np.empty(t), np.empty((t, p))
    for target in range(t):
        y_n = Y_nt[:, target]
        search = GridSearchCV(
            exact_lasso(1.0),
            {"alpha": np.sort(alphas)},
            scoring="r2",
            cv=KFold(inner, shuffle=True, random_state=seed),
        )
        outer = KFold(folds, shuffle=True, random_state=seed)
        for fold, (train, test) in enumerate(outer.split(X_np)):
            search.fit(X_np[train], y_n[train])
            fold_alpha[target, fold] = search.best_params_["alpha"]
            fold_coef[target, fold] = search.best_estimator_.coef_
            r2[target, fold] = r2_score(y_n[test], search.predict(X_np[test]))
        search.fit(X_np, y_n)
        alpha[target], coef[target] = search.best_params_["alpha"], search.best_estimator_.coef_
    edge = np.isin(alpha, [alphas.min(), alphas.max()])
    return Tuning(r2, alpha, coef, fold_alpha, fold_coef, np.zeros(t, dtype=bool), edge)


def assert_same(found: Tuning, expected: Tuning) -> None:
    np.testing.assert_allclose(found.r2, expected.r2, atol=1e-8)
    np.testing.assert_allclose(found.coef, expected.coef, atol=1e-8)
    np.testing.assert_array_equal(found.alpha, expected.alpha)
    np.testing.assert_array_equal(found.fold_alpha, expected.fold_alpha)
    np.testing.assert_allclose(found.fold_coef, expected.fold_coef, atol=1e-8)
    np.testing.assert_array_equal(found.dead, expected.dead)
    np.testing.assert_array_equal(found.at_edge, expected.at_edge)


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, False])
def test_agrees_with_a_literal_nested_grid_search(standardize: bool) -> None:
    weights_tp = np.array([[2.0, 0, 0.5, 0, 0, 0], [0, 0, 0, 1.0, 0, -1.0], [0, 0, 0, 0, 0, 0]])
    X_np, Y_nt = planted(83, 6, weights_tp, noise=1.0, seed=0)
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, folds=4, inner_folds=3, seed=7, standardize=standardize)
    if standardize:
        X_np = (X_np - X_np.mean(axis=0)) / X_np.std(axis=0)
        Y_nt = (Y_nt - Y_nt.mean(axis=0)) / Y_nt.std(axis=0)
    expected = slow_reference(X_np, Y_nt, alphas=FEW_ALPHAS, folds=4, inner=3, seed=7)
    assert_same(found, expected)
    assert np.unique(found.fold_alpha).size > 2  # the comparison above chose between penalties


def test_one_predictor_worked_by_hand() -> None:
    """Of one standardised predictor the Lasso coefficient is max(correlation - alpha, 0)."""
    rng = np.random.default_rng(2)
    x_n = rng.normal(size=50)
    Y_nt = np.stack([x_n + rng.normal(size=50), -x_n], axis=1)
    found = fit_tuning(x_n[:, None], Y_nt, alphas=np.array([0.125]))
    correlation = np.corrcoef(x_n, Y_nt[:, 0])[0, 1]
    np.testing.assert_allclose(found.coef[0], [correlation - 0.125], atol=1e-9)
    assert found.coef[1].tolist() == [0.0]


def test_sparse_non_negative_tuning_is_recovered() -> None:
    weights_tp = np.zeros((2, 20))
    weights_tp[0, [3, 11, 17]] = [3.0, 2.0, 1.0]
    weights_tp[1, [0, 5]] = [1.0, 2.0]
    X_np, Y_nt = planted(400, 20, weights_tp, noise=0.5, seed=3)
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, standardize=False)
    assert [name for name, _ in found.top(0, [f"d{i}" for i in range(20)], 3)] == ["d3", "d11", "d17"]
    assert [name for name, _ in found.top(1, [f"d{i}" for i in range(20)], 2)] == ["d5", "d0"]
    np.testing.assert_allclose(found.coef, weights_tp, atol=0.1)
    # The noise leaves this much of the variance to explain.
    ceiling_t = 1 - 0.25 / Y_nt.var(axis=0)
    np.testing.assert_allclose(found.r2.mean(axis=1), ceiling_t, atol=0.02)


def test_held_out_r2_of_pure_noise_is_not_above_zero() -> None:
    X_np, Y_nt = planted(100, 30, np.zeros((4, 30)), noise=1.0, seed=4)
    assert fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS).r2.mean() < 0.02


def test_negative_weights_are_not_fitted() -> None:
    X_np, Y_nt = planted(200, 4, np.array([[1.0, -2.0, 0, 0]]), noise=0.1, seed=5)
    coef_p = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS).coef[0]
    assert (coef_p >= 0).all()
    assert coef_p[1] == 0
    assert coef_p[0] > 0


def test_standardised_fit_ignores_shift_and_scale_and_the_raw_fit_does_not() -> None:
    X_np, Y_nt = planted(60, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=6)
    moved = (X_np * [1.0, 10.0, 0.1] - 4.0, Y_nt * 100.0 + 5.0)
    plain, scaled = fit_tuning(X_np, Y_nt), fit_tuning(*moved)
    np.testing.assert_allclose(scaled.coef, plain.coef, atol=1e-8)
    np.testing.assert_allclose(scaled.r2, plain.r2, atol=1e-8)
    assert np.abs(fit_tuning(*moved, standardize=False).coef - plain.coef).max() > 1


def test_among_equal_scores_the_smallest_penalty_is_chosen() -> None:
    # The correlation is negative, so every penalty gives the same model: the mean.
    x_n = np.arange(30.0)
    found = fit_tuning(x_n[:, None], -x_n[:, None], alphas=np.array([1.0, 0.01, 0.1]))
    assert found.alpha.tolist() == [0.01]
    assert (found.fold_alpha == 0.01).all()
    assert found.at_edge.tolist() == [True]


def test_at_edge_marks_both_ends_and_only_them() -> None:
    X_np, Y_nt = planted(100, 8, np.array([[1.0] + [0.0] * 7]), noise=1.5, seed=8)
    alpha = fit_tuning(X_np, Y_nt).alpha[0]
    assert ALPHAS[0] < alpha < ALPHAS[-1]
    for alphas, edge in (
        (np.array([alpha / 10, alpha, alpha * 10]), False),
        (np.array([alpha, alpha * 10]), True),
        (np.array([alpha, alpha / 10]), True),
    ):
        found = fit_tuning(X_np, Y_nt, alphas=alphas)
        assert found.alpha[0] == alpha
        assert found.at_edge.tolist() == [edge]


def test_the_seed_decides_the_folds() -> None:
    X_np, Y_nt = planted(60, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=9)
    first, again, other = (fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.r2, again.r2)
    assert np.abs(first.r2 - other.r2).min() > 1e-6


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_constant_target_is_dead_and_leaves_the_others_alone(standardize: bool, value: float) -> None:
    X_np, Y_nt = planted(50, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=10)
    alone = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, standardize=standardize)
    both = fit_tuning(
        X_np,
        np.hstack([np.full((50, 1), value), Y_nt]),
        alphas=FEW_ALPHAS,
        standardize=standardize,
    )
    assert both.dead.tolist() == [True, False]
    for values in (both.r2, both.alpha, both.coef, both.fold_alpha):
        assert np.isnan(values[0]).all()
    assert both.at_edge[0] == np.False_
    assert both.top(0, ["a", "b", "c"], 3) == []
    np.testing.assert_array_equal(both.r2[1], alone.r2[0])
    np.testing.assert_array_equal(both.coef[1], alone.coef[0])


def test_rounding_noise_of_the_targets_own_type_is_dead() -> None:
    X_np, _ = planted(50, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=11)
    jitter_n = np.random.default_rng(0).choice(np.array([0, 1e-7]), size=50)
    Y_nt = (1 + jitter_n[:, None]).astype(np.float32)
    assert np.unique(Y_nt).size == 2
    assert fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS).dead.tolist() == [True]
    assert fit_tuning(X_np, Y_nt.astype(np.float64), alphas=FEW_ALPHAS).dead.tolist() == [False]


def test_a_variance_beyond_floating_point_is_dead() -> None:
    X_np, Y_nt = planted(50, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=12)
    assert fit_tuning(X_np, Y_nt * 1e200, alphas=FEW_ALPHAS).dead.tolist() == [True]
    assert fit_tuning(X_np, Y_nt * 1e-200, alphas=FEW_ALPHAS).dead.tolist() == [True]


def test_r2_is_undefined_in_a_fold_where_the_target_is_constant() -> None:
    """A target that is 0 but in two rows of one fold: elsewhere scikit-learn's r2 would be 1 or 0."""
    splits = list(KFold(5, shuffle=True, random_state=0).split(np.empty((50, 1))))
    X_np, _ = planted(50, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=13)
    Y_nt = np.zeros((50, 1))
    Y_nt[splits[2][1][:2]] = [[1.0], [2.0]]
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS)
    # In fold 2 nothing varies in training, so no penalty can be chosen there; the others hold out a constant.
    assert np.isnan(found.r2).all()
    assert np.isnan(found.fold_alpha[0]).tolist() == [False, False, True, False, False]
    assert found.dead.tolist() == [False]


def test_selection_averages_over_the_inner_folds_where_r2_is_defined() -> None:
    X_np, Y_nt = planted(60, 12, np.array([[3.0, 2.0] + [0.0] * 10]), noise=1.5, seed=14)
    splits = list(KFold(5, shuffle=True, random_state=3).split(X_np))
    Y_nt[splits[1][1]] = 4.0
    mean_a = np.zeros(FEW_ALPHAS.size)
    for a, alpha in enumerate(FEW_ALPHAS):
        scores = [
            r2_score(Y_nt[test, 0], exact_lasso(alpha).fit(X_np[train], Y_nt[train, 0]).predict(X_np[test]))
            for fold, (train, test) in enumerate(splits)
            if fold != 1
        ]
        mean_a[a] = np.mean(scores)
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, seed=3, standardize=False)
    assert found.alpha.tolist() == [FEW_ALPHAS[mean_a.argmax()]]
    assert 0 < mean_a.argmax() < FEW_ALPHAS.size - 1
    assert np.isnan(found.r2[0]).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.7, 1e9 / 3])
def test_a_constant_predictor_gets_zero_and_changes_nothing(standardize: bool, value: float) -> None:
    # The mean of 39 equal numbers misses them by a rounding error, for both values that are not 0.
    X_np, Y_nt = planted(39, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=15)
    assert (np.full(39, value).std() > 0) == (value > 0)
    without = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, standardize=standardize)
    X_np = np.insert(X_np, 1, value, axis=1)
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, standardize=standardize)
    assert found.coef[0, 1] == 0
    np.testing.assert_allclose(found.coef[0, [0, 2, 3]], without.coef[0], atol=1e-9)
    np.testing.assert_allclose(found.r2, without.r2, atol=1e-9)


def test_inputs_are_left_as_they_were() -> None:
    X_np, Y_nt = planted(50, 3, np.array([[1.0, 0.5, 0]]), noise=1.0, seed=16)
    copies = X_np.copy(), Y_nt.copy()
    fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, standardize=False)
    np.testing.assert_array_equal(X_np, copies[0])
    np.testing.assert_array_equal(Y_nt, copies[1])


def test_consecutive_folds_without_shuffling() -> None:
    X_np, Y_nt = planted(60, 4, np.array([[1.0, 0.5, 0, 0]]), noise=1.0, seed=17)
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, shuffle=False, standardize=False)
    search = GridSearchCV(exact_lasso(1.0), {"alpha": FEW_ALPHAS}, scoring="r2", cv=KFold(5))
    for fold in range(5):
        test = np.arange(12) + 12 * fold
        train = np.setdiff1d(np.arange(60), test)
        search.fit(X_np[train], Y_nt[train, 0])
        assert found.fold_alpha[0, fold] == search.best_params_["alpha"]
        assert found.r2[0, fold] == pytest.approx(r2_score(Y_nt[test, 0], search.predict(X_np[test])), abs=1e-8)
    other_seed = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, shuffle=False, standardize=False, seed=3)
    np.testing.assert_array_equal(found.r2, other_seed.r2)


def test_many_targets_are_fitted_as_each_alone() -> None:
    weights_tp = np.random.default_rng(18).exponential(size=(50, 6)) * (np.arange(6) < 3)
    X_np, Y_nt = planted(70, 6, weights_tp, noise=2.0, seed=18)
    Y_nt[:, 7] = 1.0
    seen: list[tuple[int, int]] = []
    r2_tf = cross_validated(X_np, Y_nt, alphas=FEW_ALPHAS, progress=lambda *at: seen.append(at)).r2
    np.testing.assert_allclose(r2_tf, fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS).r2, atol=1e-12)
    for target in (0, 7, 31, 49):
        alone = fit_tuning(X_np, Y_nt[:, target : target + 1], alphas=FEW_ALPHAS)
        np.testing.assert_allclose(r2_tf[target], alone.r2[0], atol=1e-10)
    assert seen == [(done, 15) for done in range(1, 16)]  # three groups of targets in each of five folds


def test_the_strength_of_a_signal_orders_r2_above_its_permutations() -> None:
    X_np, Y_nt = planted(200, 5, np.array([[1.0, 0.5, 0, 0, 0]]), noise=1.0, seed=19)
    permuted_nt = np.random.default_rng(0).permuted(np.tile(Y_nt, (1, 40)), axis=0)
    null_t = cross_validated(X_np, permuted_nt, alphas=FEW_ALPHAS).r2.mean(axis=1)
    assert null_t.max() < 0.1 < cross_validated(X_np, Y_nt, alphas=FEW_ALPHAS).r2.mean()


def test_more_predictors_than_rows() -> None:
    alphas = np.logspace(-1.5, 0, 6)  # below, the reference does not converge
    X_np, Y_nt = planted(48, 60, np.ones((3, 60)) * (np.arange(60) < 4), noise=1.0, seed=20)
    found = fit_tuning(X_np, Y_nt, alphas=alphas, folds=3, inner_folds=3, standardize=False)
    assert_same(found, slow_reference(X_np, Y_nt, alphas=alphas, folds=3, inner=3, seed=0))


def ratings(shared_data: Path) -> Matrix:
    """SPoSE's ratings of 1,854 concepts on 66 dimensions, the few negative ones at 0."""
    return np.maximum(np.loadtxt(shared_data / "things" / "spose_embedding_66d_sorted.txt"), 0.0)


@pytest.mark.slow
def test_simulated_tuning_to_real_dimensions_is_recovered(shared_data: Path) -> None:
    """Experts tuned to three to five of the 66 dimensions: which, and how strongly, comes back."""
    X_np = ratings(shared_data)
    X_np = (X_np - X_np.mean(axis=0)) / X_np.std(axis=0)
    rng = np.random.default_rng(21)
    weights_tp = np.zeros((16, 66))
    for weight_p in weights_tp:
        weight_p[rng.choice(66, rng.integers(3, 6), replace=False)] = rng.uniform(0.5, 2.0)
    signal_nt = X_np @ weights_tp.T
    noise = 0.5 * signal_nt.std(axis=0)
    Y_nt = signal_nt + noise * rng.normal(size=signal_nt.shape)
    found = fit_tuning(X_np, Y_nt)
    names = [str(dimension) for dimension in range(66)]
    for target, weight_p in enumerate(weights_tp):
        tuned = np.flatnonzero(weight_p)
        top = found.top(target, names, len(tuned))
        assert {int(name) for name, _ in top} == set(tuned.tolist())
        np.testing.assert_allclose(found.coef[target] * Y_nt[:, target].std(), weight_p, atol=0.15)
    ceiling_t = 1 - noise**2 / Y_nt.var(axis=0)
    np.testing.assert_allclose(found.r2.mean(axis=1), ceiling_t, atol=0.03)


@pytest.mark.slow
def test_agrees_with_a_literal_grid_search_on_real_dimensions(shared_data: Path) -> None:
    X_np = ratings(shared_data)
    X_np = (X_np - X_np.mean(axis=0)) / X_np.std(axis=0)
    rng = np.random.default_rng(22)
    Y_nt = X_np[:, [0, 5, 9]] @ np.array([1.0, 0.5, 0.3])[:, None] + 2 * rng.normal(size=(1854, 1))
    found = fit_tuning(X_np, Y_nt, alphas=FEW_ALPHAS, folds=3, inner_folds=3, standardize=False)
    assert_same(found, slow_reference(X_np, Y_nt, alphas=FEW_ALPHAS, folds=3, inner=3, seed=0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named(bad: float) -> None:
    X_np, Y_nt = np.random.default_rng(0).random((2, 30, 3))
    broken_np, broken_nt = X_np.copy(), Y_nt.copy()
    broken_np[4, 2] = broken_nt[7, 1] = bad
    with pytest.raises(ValueError, match=r"X is not finite.* row 4, predictor 2"):
        fit_tuning(broken_np, Y_nt)
    with pytest.raises(ValueError, match=r"Y is not finite.* row 7, target 1"):
        fit_tuning(X_np, broken_nt)


@pytest.mark.parametrize(
    ("n", "folds", "inner_folds", "enough"),
    # 10 rows, 5 folds: 8 training rows hold out 2 in each of 4 inner folds, but not of 5.
    [(10, 5, 4, True), (10, 5, 5, False), (9, 5, 2, False), (13, 5, 5, True), (12, 5, 5, False)],
)
def test_every_fold_needs_two_rows(n: int, folds: int, inner_folds: int, enough: bool) -> None:
    X_np, Y_nt = np.random.default_rng(0).random((2, n, 1))
    if enough:
        assert np.isfinite(fit_tuning(X_np, Y_nt, folds=folds, inner_folds=inner_folds).r2).all()
    else:
        with pytest.raises(ValueError, match="rows are too few"):
            fit_tuning(X_np, Y_nt, folds=folds, inner_folds=inner_folds)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((30, 2), (29, 2)), {}, "same rows"),
        (((30, 2), (30,)), {}, "matrices"),
        (((30, 0), (30, 2)), {}, "no predictors"),
        (((30, 2), (30, 2)), {"folds": 1}, "at least 2 folds"),
        (((30, 2), (30, 2)), {"inner_folds": 1}, "at least 2 folds"),
        (((30, 2), (30, 2)), {"alphas": np.array([0.0, 1.0])}, "alphas"),
        (((30, 2), (30, 2)), {"alphas": np.array([np.nan, 1.0])}, "alphas"),
        (((30, 2), (30, 2)), {"alphas": np.array([])}, "alphas"),
    ],
)
def test_bad_arguments(shapes: tuple[Any, Any], options: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        fit_tuning(rng.random(shapes[0]), rng.random(shapes[1]), **options)


def test_top_is_descending_positive_and_breaks_ties_by_index() -> None:
    one = np.ones(1)
    fitted = Tuning(
        r2=np.ones((1, 5)),
        alpha=one,
        coef=np.array([[0.2, 0.0, 0.5, 0.2, 0.5]]),
        fold_alpha=np.ones((1, 5)),
        fold_coef=np.ones((1, 5, 5)),
        dead=one < 0,
        at_edge=one < 0,
    )
    names = ["a", "b", "c", "d", "e"]
    assert fitted.top(0, names, 3) == [("c", 0.5), ("e", 0.5), ("a", 0.2)]
    assert fitted.top(0, names, 9) == [("c", 0.5), ("e", 0.5), ("a", 0.2), ("d", 0.2)]
    assert fitted.top(0, names, 0) == []
    with pytest.raises(ValueError, match="5 predictor names"):
        fitted.top(0, names[:4], 3)


def test_held_out_predictions_score_what_each_fold_reports() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((120, 5))
    Y = np.stack([3 * X[:, 0] + rng.normal(size=120), np.full(120, 2.0), X[:, 1] - X[:, 2]], axis=1).astype(np.float32)
    predicted = held_out_predictions(X, Y, seed=3)
    reported = fit_tuning(X, Y, seed=3).r2
    assert np.isnan(predicted[:, 1]).all()
    for fold, (_, test) in enumerate(KFold(5, shuffle=True, random_state=3).split(X)):
        for target in (0, 2):
            assert r2_score(Y[test, target], predicted[test, target]) == pytest.approx(reported[target, fold])
