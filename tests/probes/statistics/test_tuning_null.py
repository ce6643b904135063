"""The null of tuning against scikit-learn's nested search on permuted rows."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from probes.statistics.resampling import p_value
from probes.statistics.tuning import ALPHAS, cross_validated, fit_tuning
from probes.statistics.tuning_null import chosen, tuning_null


@pytest.fixture
def data():
    rng = np.random.default_rng(7)
    X = np.abs(rng.normal(size=(60, 3)))
    return X, np.stack([X @ [1.0, 0, 0.5] + 0.5 * rng.normal(size=60), rng.normal(size=60)], axis=1)


@pytest.mark.slow
def test_tuning_null_equals_scikit_learns_nested_search_on_permuted_rows(data):
    X, Y = data
    found = tuning_null(X, Y, draws=2, seed=11).r2
    rng = np.random.default_rng(11)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    for draw in range(2):
        order = rng.permutation(60)
        for target in range(2):
            y = Y[order, target]
            y = (y - y.mean()) / y.std()
            folds = KFold(5, shuffle=True, random_state=11)
            inner = GridSearchCV(
                Lasso(positive=True, tol=1e-10, max_iter=100_000), {"alpha": ALPHAS}, cv=folds, scoring="r2"
            )
            assert found[draw, target] == pytest.approx(cross_val_score(inner, z, y, cv=folds).mean(), abs=1e-8)


def test_tuning_null_does_not_depend_on_how_draws_are_batched(data, monkeypatch):
    X, Y = data
    done = []
    found = tuning_null(X, np.repeat(Y, 40, axis=1), draws=5, seed=1, progress=lambda d, t: done.append((d, t))).r2
    assert done == [(3, 5), (5, 5)]
    np.testing.assert_allclose(found[:, ::40], tuning_null(X, Y, draws=5, seed=1).r2, atol=1e-12)


def test_a_real_relation_beats_its_null_and_noise_does_not(data):
    X, Y = data
    null = tuning_null(X, Y, draws=19, seed=0).r2
    r2 = fit_tuning(X, Y).r2.mean(axis=1)
    assert p_value(r2[0], null[:, 0]) == 1 / 20
    assert p_value(r2[1], null[:, 1]) > 0.1


def test_a_dead_target_has_no_null(data):
    X, Y = data
    Y[:, 1] = 4.0
    found = tuning_null(X, Y, draws=3, seed=0)
    null = found.r2
    assert np.isfinite(null[:, 0]).all()
    assert np.isnan(null[:, 1]).all()
    assert np.isnan(found.chosen[1]).all()


def test_how_often_chance_chooses_each_dimension(data):
    X, Y = data
    found = tuning_null(X, Y, draws=7, seed=3)
    rng = np.random.default_rng(3)
    counts = np.zeros((2, 3))
    for _ in range(7):
        order = rng.permutation(60)
        counts += (cross_validated(X, Y[order], seed=3).coef > 0).mean(axis=1)
    np.testing.assert_allclose(found.chosen, counts / 7)
    assert np.isnan(tuning_null(X, Y, draws=0, seed=0).chosen).all()
    held_out = fit_tuning(X, Y)
    assert chosen(held_out.fold_coef)[0, 0] == 1.0  # what drives the target is chosen in every fold
    np.testing.assert_array_equal(held_out.fold_coef, cross_validated(X, Y).coef)
