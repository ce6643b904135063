"""Ridge against scikit-learn, its choice of penalty against the definition with the hat matrix."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probes.statistics.ridge import PENALTIES, cross_ridge, fit_ridge


def data(n=80, p=12, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * np.exp(rng.normal(size=p)) + rng.normal(size=p)
    Y = X @ rng.normal(size=(p, 3)) * [1, 0.1, 0] + rng.normal(size=(n, 3)) + 5
    return X, Y


def test_coefficients_and_predictions_are_scikit_learns():
    X, Y = data()
    found = fit_ridge(X, Y)
    for target, penalty in enumerate(found.penalty_t):
        reference = make_pipeline(StandardScaler(), Reference(alpha=len(X) * penalty)).fit(X, Y[:, target])
        np.testing.assert_allclose(found.coef_pt[:, target], reference[-1].coef_, atol=1e-9)
        np.testing.assert_allclose(found.predict(X)[:, target], reference.predict(X), atol=1e-9)


@pytest.mark.parametrize("shape", [(80, 12), (30, 40)])
def test_the_penalty_minimises_gcv_by_its_definition(shape):
    X, Y = data(*shape)
    n = len(X)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    scores = []
    for penalty in PENALTIES:
        hat = Z @ np.linalg.solve(Z.T @ Z + n * penalty * np.eye(Z.shape[1]), Z.T) + 1 / n
        scores.append((((Y - hat @ Y) ** 2).sum(axis=0)) / (n - np.trace(hat)) ** 2)
    np.testing.assert_array_equal(fit_ridge(X, Y).penalty_t, PENALTIES[np.argmin(scores, axis=0)])


def test_predictions_are_close_to_leave_one_out_ridge():
    """Another criterion, the same purpose."""
    X, Y = data(300)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=240 * PENALTIES, alpha_per_target=True))
    reference = cross_val_predict(model, X, Y, cv=KFold(5, shuffle=True, random_state=0))
    error = ((Y - cross_ridge(X, Y, seed=0)) ** 2).mean(axis=0), ((Y - reference) ** 2).mean(axis=0)
    np.testing.assert_allclose(*error, rtol=0.01)


def test_constant_and_doubled_predictors_change_nothing():
    X, Y = data(200)
    plain = cross_ridge(X, Y, seed=0)
    np.testing.assert_allclose(cross_ridge(np.hstack([X, np.full((200, 1), 0.3)]), Y, seed=0), plain, atol=1e-8)
    assert np.isfinite(cross_ridge(np.hstack([X, X]), Y, seed=0)).all()


def test_noise_is_predicted_by_its_mean():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 60)), rng.normal(size=(200, 1))
    assert ((y - cross_ridge(X, y, seed=0)) ** 2).mean() < 1.1 * y.var()
