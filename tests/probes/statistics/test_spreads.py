"""Spreads against the textbook's formulas."""

import numpy as np
import pytest
from scipy.stats import t

from probes.statistics.spreads import (
    Spread,
    influence_spread,
    mean_over_cells,
    seed_spread,
    student_interval,
    total,
)


def test_the_influence_of_images_gives_the_classical_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    found = influence_spread(values - values.mean())
    assert found == pytest.approx(Spread(values.var(ddof=1) / 50, 49))


def test_concepts_are_units():
    """Two images a concept that are the same: as many units as concepts."""
    values = np.random.default_rng(0).normal(size=30)
    doubled = np.repeat(values - values.mean(), 2)
    found = influence_spread(doubled, np.repeat(np.arange(30), 2))
    assert found == pytest.approx(Spread(values.var(ddof=1) / 30, 29))


def test_two_concepts_tell_nothing():
    assert np.isnan(influence_spread(np.array([1.0, -1.0])).variance)


def test_seeds_within_cells_by_hand():
    values, cells = np.array([1.0, 3.0, 10.0, 11.0, 15.0]), np.array(["a", "a", "b", "b", "b"])
    assert mean_over_cells(values, cells) == (2 + 12) / 2
    within = (1 + 1 + 4 + 1 + 9) / 3
    assert seed_spread(values, cells) == pytest.approx(Spread(within * (1 / 2 + 1 / 3) / 4, 3))


def test_one_cell_is_the_usual_mean():
    values = np.random.default_rng(0).normal(size=8)
    cells = np.zeros(8)
    low, high = student_interval(values.mean(), seed_spread(values, cells))
    reach = t.ppf(0.975, 7) * values.std(ddof=1) / 8**0.5
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_runs_without_the_number_are_left_out():
    values, cells = np.array([1.0, np.nan, 3.0, 5.0]), np.array([0, 0, 1, 1])
    assert mean_over_cells(values, cells) == 2.5
    assert seed_spread(values, cells).freedom == 1
    assert np.isnan(mean_over_cells(np.array([np.nan]), np.array([0])))


@pytest.mark.parametrize("cells", [[0], [0, 1, 2]])
def test_single_seeds_tell_nothing_about_seeds(cells):
    spread = seed_spread(np.arange(len(cells), dtype=float), np.array(cells))
    assert np.isnan(spread.variance)
    assert np.isnan(student_interval(0.0, spread)).all()


def test_variances_add_and_freedom_is_satterthwaites():
    assert total(Spread(1.0, 4), Spread(3.0, 2)) == pytest.approx((4.0, 16 / (1 / 4 + 9 / 2)))
    assert total(Spread(0.0, 4)) == (0.0, np.inf)
    assert student_interval(2.0, Spread(0.0, 4)) == (2.0, 2.0)
