import numpy as np
import pytest
from sklearn.metrics import r2_score

from probes.statistics.moments import Moments

rng = np.random.default_rng(0)
X_np, Y_nt = rng.normal(size=(40, 5)) + 0.3, rng.normal(size=(40, 3)) - 0.2


def test_parts_add_up_to_the_whole() -> None:
    parts = [Moments.of(X_np[rows], Y_nt[rows]) for rows in (slice(0, 7), slice(7, 30), slice(30, 40))]
    total, whole = Moments.total(parts), Moments.of(X_np, Y_nt)
    for name in ("rows", "x_p", "y_t", "xx_pp", "xy_tp", "yy_t", "low_t", "high_t"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name), atol=1e-12)


def test_centred_products() -> None:
    gram_pp, xy_tp = Moments.of(X_np, Y_nt).centred()
    X_c, Y_c = X_np - X_np.mean(axis=0), Y_nt - Y_nt.mean(axis=0)
    np.testing.assert_allclose(gram_pp, X_c.T @ X_c, atol=1e-12)
    np.testing.assert_allclose(xy_tp, Y_c.T @ X_c, atol=1e-12)


def test_r2_is_scikit_learns_with_the_training_rows_intercept() -> None:
    coef_tap = rng.normal(size=(3, 4, 5))
    found_ta = Moments.of(X_np[30:], Y_nt[30:]).r2(Moments.of(X_np[:30], Y_nt[:30]), coef_tap)
    for target, a in np.ndindex(3, 4):
        intercept = Y_nt[:30, target].mean() - X_np[:30].mean(axis=0) @ coef_tap[target, a]
        predicted_n = X_np[30:] @ coef_tap[target, a] + intercept
        assert found_ta[target, a] == pytest.approx(r2_score(Y_nt[30:, target], predicted_n), abs=1e-12)


def test_r2_is_undefined_where_the_target_is_constant_or_there_are_no_rows() -> None:
    training, coef_tap = Moments.of(X_np[:30], Y_nt[:30]), np.zeros((3, 1, 5))
    constant_nt = Y_nt[30:].copy()
    constant_nt[:, 1] = 0.1
    found_ta = Moments.of(X_np[30:], constant_nt).r2(training, coef_tap)
    assert np.isnan(found_ta[:, 0]).tolist() == [False, True, False]
    assert np.isnan(Moments.of(X_np[:0], Y_nt[:0]).r2(training, coef_tap)).all()
