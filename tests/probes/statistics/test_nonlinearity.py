"""Curves of known shape are told apart; each curve against a plain reference."""

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from sklearn.model_selection import KFold

from probes.statistics.nonlinearity import CURVES, curve_r2


def relation(shape, n=600, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x[:, None], (shape(x) + noise * rng.normal(size=n))[:, None]


def scores(shape, **more):
    found = curve_r2(*relation(shape, **more), seed=0)
    return [float(found[curve].value_t[0]) for curve in CURVES]


def test_on_a_straight_line_freer_curves_gain_nothing():
    line, monotone, smooth = scores(lambda x: x)
    assert line == pytest.approx(1 / 1.09, abs=0.02)
    assert line > monotone
    assert line > smooth - 1e-3


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bent_monotone_relation_rising_or_falling(sign):
    line, monotone, smooth = scores(lambda x: sign * np.exp(x))
    assert monotone > line + 0.1
    assert smooth > line + 0.1


def test_a_relation_with_a_turn_is_for_the_smooth_curve_alone():
    line, monotone, smooth = scores(lambda x: x**2)
    assert smooth > 0.9
    assert max(line, monotone) < 0.6


def test_line_and_monotone_against_loops():
    x_n1, y_n1 = relation(lambda x: np.tanh(-2 * x), n=100)
    x, y = x_n1[:, 0], y_n1[:, 0]
    line, monotone = np.empty(100), np.empty(100)
    for training, held in KFold(5, shuffle=True, random_state=4).split(x):
        slope, intercept = np.polyfit(x[training], y[training], 1)
        line[held] = intercept + slope * x[held]
        order = training[np.argsort(x[training])]
        steps = isotonic_regression(y[order], increasing=False).x
        monotone[held] = np.interp(x[held], x[order], steps)
    found = curve_r2(x_n1, y_n1, seed=4)
    for curve, predicted in (("line", line), ("monotone", monotone)):
        r2 = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        assert found[curve].value_t[0] == pytest.approx(r2, abs=1e-9)


def test_constant_gates_and_dead_experts_are_undefined():
    x, y = relation(lambda x: x)
    found = curve_r2(np.hstack([x, 0 * x, x]), np.hstack([y, y, 0 * y + 2]), seed=0)
    for curve in CURVES:
        assert np.isfinite(found[curve].value_t).tolist() == [True, False, False]


def test_a_gate_that_varies_on_one_image_alone_is_no_curve():
    x_n1, y_n1 = np.zeros((40, 1)), relation(lambda x: x, n=40)[1]
    x_n1[7] = 1
    found = curve_r2(x_n1, y_n1, seed=0)
    assert float(found["smooth"].value_t[0]) <= 0


def test_images_of_a_concept_do_not_help_to_predict_each_other():
    """Ten images each of 30 concepts at the same place with the same response: by image, steps know them by heart."""
    rng = np.random.default_rng(0)
    x, y = (np.repeat(rng.normal(size=30), 10)[:, None] for _ in range(2))
    units = np.repeat(np.arange(30), 10)
    assert curve_r2(x, y, seed=0)["monotone"].value_t[0] > 0
    assert curve_r2(x, y, seed=0, units=units)["monotone"].value_t[0] < 0
