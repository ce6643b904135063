"""Held-out r2 against scikit-learn's, and its influences against weighing images."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict

from probes.statistics.held_out import cross_predicted, held_out_r2, splits


def data(n=60):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, np.stack([X[:, 0] + rng.normal(size=n), rng.normal(size=n)], axis=1)


def test_it_is_scikit_learns_r2_of_its_own_cross_predictions():
    X, Y = data()
    model = LinearRegression()
    found = cross_predicted(lambda a, b: model.fit(X[a], Y[a]).predict(X[b]), Y.shape, seed=3)
    reference = cross_val_predict(model, X, Y, cv=KFold(5, shuffle=True, random_state=3))
    np.testing.assert_allclose(found, reference)
    np.testing.assert_allclose(held_out_r2(Y, found).value_t, r2_score(Y, reference, multioutput="raw_values"))


def test_influences_are_derivatives_by_weights():
    _, Y = data()
    predicted = 0.4 * Y + 0.1
    influence = held_out_r2(Y, predicted).influence_nt
    for image in (0, 17):
        weights = np.ones(len(Y))
        weights[image] += 1e-6
        moved = [r2_score(y, p, sample_weight=weights) - r2_score(y, p) for y, p in zip(Y.T, predicted.T, strict=True)]
        np.testing.assert_allclose(influence[image], np.array(moved) / 1e-6 * len(Y), rtol=1e-3)
    np.testing.assert_allclose(influence.sum(axis=0), 0, atol=1e-9)


def test_a_constant_target_has_none():
    found = held_out_r2(np.full((10, 1), 0.3, np.float32), np.full((10, 1), 0.3))
    assert np.isnan(found.value_t).all()


@pytest.mark.parametrize("units", [None, np.arange(40), np.arange(40) // 4])
def test_folds_share_the_images_out_and_never_divide_a_unit(units):
    held = [set(b.tolist()) for _, b in splits(40, 0, units)]
    assert sorted(i for part in held for i in part) == list(range(40))
    for a, b in splits(40, 0, units):
        assert len(a) + len(b) == 40
        if units is not None:
            assert not set(units[a]) & set(units[b])
