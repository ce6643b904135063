import math

import numpy as np
import pytest
from scipy import stats

from sweeps.plan.distributions import BELOW_ONE, DISTRIBUTIONS, AxisKind, Parameter, draw, extremes, quantile, reach
from sweeps.plan.space import axis

LEVELS = [0.0, 1e-6, 0.01, 0.1, 0.25, 0.5, 0.6, 0.9, 0.999, BELOW_ONE]


def some(kind):
    """A parameter of a distribution of the table."""
    given = {"value": (), "values": (), "min": 1, "max": 3, "mu": 1, "sigma": 2, "q": 0.5, "a": 2, "b": 3}
    chosen = {key: given[key] for key in (*kind.required, *kind.optional) if key in given and not key.startswith("val")}
    listed = {"values": (3, 1, 2), "min": None, "max": None} if kind.axis is AxisKind.LIST else {}
    return Parameter(kind.name, **chosen | listed)


@pytest.mark.parametrize("kind", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_every_entry_of_the_table_is_whole(kind):
    """Draws keep to the support, rise with u, and a search's axis leads from a value back to it."""
    parameter = some(kind)
    drawn = [draw(parameter, u) for u in LEVELS]
    assert parameter.kind is kind
    if kind.axis is AxisKind.LIST:
        assert set(drawn) == {1, 2, 3}
        return
    low, high = parameter.support
    assert drawn == sorted(drawn)
    assert all(low <= value <= high for value in drawn)
    seen = axis(parameter)
    for value in drawn[2:-2]:
        assert seen.value(seen.position(value)) == pytest.approx(value)


def test_a_value_listed_twice_is_drawn_twice_as_often_and_searched_once():
    parameter = Parameter("categorical", (8, 4, 8, 2))
    assert [draw(parameter, u) for u in (0.1, 0.3, 0.6, 0.9)] == [8, 4, 8, 2]
    assert parameter.choices == (8, 4, 2)
    assert axis(parameter).distribution.choices == (8, 4, 2)
    assert Parameter("categorical", (8, 8)).fixed


@pytest.mark.parametrize(
    ("parameter", "quantiles"),
    [
        (Parameter("uniform", min=1, max=3), {0: 1.0, 0.5: 2.0}),
        (Parameter("int_uniform", min=1, max=4), {0: 1, 0.24: 1, 0.26: 2, 0.99: 4}),
        (Parameter("log_uniform_values", min=0.01, max=100), {0: 0.01, 0.5: 1.0, 0.75: 10.0}),
        (Parameter("q_uniform", min=1, max=10, q=4), {0: 4, 0.5: 4, 0.99: 8}),
        (Parameter("normal", mu=2, sigma=3), {0.5: 2.0, 0.8413447460685429: 5.0}),
        (Parameter("normal", mu=2, sigma=0), {0: 2.0, 0.9: 2.0}),
        (Parameter("categorical", ("a", "b")), {0: "a", 0.49: "a", 0.5: "b", 0.99: "b"}),
        (
            Parameter("categorical_w_probabilities", "abc", (0.25, 0.75, 0.0)),
            {0.2: "a", 0.3: "b", 1 - 2**-53: "b"},
        ),
        (Parameter("constant", (7,)), {0.3: 7}),
    ],
)
def test_quantiles(parameter, quantiles):
    for u, expected in quantiles.items():
        value = draw(parameter, u)
        assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)
        assert type(value) is type(expected)


CONTINUOUS = {
    "uniform": (Parameter("uniform", min=-2, max=3), stats.uniform(-2, 5)),
    "log_uniform_values": (Parameter("log_uniform_values", min=1e-4, max=0.1), stats.loguniform(1e-4, 0.1)),
    "log_uniform": (Parameter("log_uniform", min=-3, max=2), stats.loguniform(math.exp(-3), math.exp(2))),
    "normal": (Parameter("normal", mu=1, sigma=2), stats.norm(1, 2)),
    "log_normal": (Parameter("log_normal", mu=-1, sigma=0.5), stats.lognorm(s=0.5, scale=math.exp(-1))),
    "beta": (Parameter("beta", a=2, b=5), stats.beta(2, 5)),
}


@pytest.mark.parametrize(("parameter", "reference"), CONTINUOUS.values(), ids=CONTINUOUS)
def test_continuous_distributions_are_those_of_scipy(parameter, reference):
    for u in LEVELS[1:-1]:
        assert draw(parameter, u) == pytest.approx(reference.ppf(u), rel=1e-9)


def test_the_logarithm_of_the_inverse_is_uniform_in_inverse_distributions():
    drawn = [draw(Parameter("inv_log_uniform", min=-1, max=3), u) for u in LEVELS]
    assert [math.log(1 / x) for x in drawn] == pytest.approx([3 - 4 * u for u in LEVELS])
    drawn = [draw(Parameter("inv_log_uniform_values", min=0.01, max=10), u) for u in LEVELS]
    assert [math.log(1 / x) for x in drawn] == pytest.approx([math.log(100) - math.log(1000) * u for u in LEVELS])


@pytest.mark.parametrize("q", [1, 2, 0.25, 0.1])
@pytest.mark.parametrize(
    ("parameter", "whole"),
    [
        (Parameter("q_uniform", min=0.3, max=9.9), stats.uniform(0.3, 9.6)),
        (Parameter("q_log_uniform_values", min=0.3, max=20), stats.loguniform(0.3, 20)),
        (Parameter("q_log_uniform", min=-1, max=3), stats.loguniform(math.exp(-1), math.exp(3))),
        (Parameter("q_normal", mu=3, sigma=2), stats.norm(3, 2)),
        (Parameter("q_log_normal", mu=0, sigma=1), stats.lognorm(s=1)),
        (Parameter("q_beta", a=2, b=2), stats.beta(2, 2)),
    ],
    ids=lambda value: getattr(value, "distribution", ""),
)
def test_quantised_draws_are_the_nearest_multiples_within_the_bounds(parameter, whole, q):
    parameter = Parameter(**(vars(parameter) | {"q": q}))
    low, high = whole.support()
    inside = np.array([k * q for k in range(-400, 400) if low - 1e-9 <= k * q <= high + 1e-9])
    levels = np.linspace(0.003, 0.997, 101)
    for u, exact in zip(levels.tolist(), whole.ppf(levels).tolist(), strict=True):
        value = draw(parameter, u)
        assert abs(inside - value).min() < 1e-9
        assert abs(value - exact) == pytest.approx(abs(inside - exact).min(), abs=1e-9)
        assert isinstance(value, int) == isinstance(q, int)


def test_both_bounds_are_drawn_though_decimals_are_not_exact():
    drawn = {draw(Parameter("q_uniform", min=0.1, max=0.3, q=0.1), float(u)) for u in np.linspace(0, BELOW_ONE, 50)}
    assert drawn == {0.1, 0.2, 0.3}


@pytest.mark.parametrize("parameter", [parameter for parameter, _ in CONTINUOUS.values()], ids=CONTINUOUS)
def test_draws_are_finite_rise_with_the_quantile_and_keep_to_the_support(parameter):
    drawn = [draw(parameter, u) for u in LEVELS]
    assert drawn == sorted(drawn)
    assert all(parameter.support[0] <= value <= parameter.support[1] for value in drawn)
    assert all(math.isfinite(value) for value in drawn)


@pytest.mark.parametrize(
    "parameter",
    [
        CONTINUOUS["normal"][0], CONTINUOUS["log_normal"][0], CONTINUOUS["beta"][0],
        Parameter("q_normal", mu=5, sigma=3, q=0.5), Parameter("q_log_normal", sigma=2), Parameter("q_beta", q=0.1),
        Parameter("normal", mu=2, sigma=0), Parameter("log_normal", mu=2, sigma=0),
    ],
    ids=lambda parameter: f"{parameter.distribution} {parameter.sigma:g}",
)  # fmt: skip
def test_the_quantile_of_a_value_leads_back_to_it(parameter):
    for u in LEVELS[2:-2]:
        value = draw(parameter, u)
        assert draw(parameter, min(max(quantile(parameter, value), 1e-9), BELOW_ONE)) == pytest.approx(value)


def test_a_search_leaves_out_the_tails_of_distributions_without_bounds():
    assert reach(Parameter("uniform", min=0, max=1)) == (0, BELOW_ONE)
    assert extremes(Parameter("int_uniform", min=2, max=5)) == (2, 5)
    assert extremes(Parameter("categorical", ("b", "a"))) == ("b", "a")
    assert extremes(Parameter("normal", mu=0, sigma=1)) == pytest.approx(stats.norm.ppf([0.001, 0.999]))
