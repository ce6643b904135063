"""Nulls and intervals against slow versions written from their definitions."""

import numpy as np
import pytest

from probes.statistics import resampling
from probes.statistics.resampling import (
    bootstrap_counts,
    dealt,
    holm,
    interval,
    matched_null,
    mean_of_defined,
    p_value,
)


def counts(*arguments, **options):
    return np.concatenate(list(bootstrap_counts(*arguments, **options)))


def test_interval_and_p_by_hand():
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    assert interval(np.array([np.nan, 2.0, np.nan])) == (2.0, 2.0)
    assert np.isnan(interval(np.array([np.nan]))).all()
    assert p_value(3.0, np.array([1.0, 2.0, 3.0, 4.0])) == 3 / 5
    assert p_value(9.0, np.array([1.0, 2.0, 3.0, 4.0])) == 1 / 5
    assert np.isnan(p_value(float("nan"), np.array([1.0])))
    assert np.isnan(p_value(1.0, np.array([])))


def test_draws_that_are_nan_are_no_misses():
    null = np.full(99, np.nan)
    null[0] = 0.5
    assert p_value(1.0, null) == 1 / 2
    assert np.isnan(p_value(1.0, null[1:]))


def test_a_draw_that_falls_short_by_rounding_reaches_the_value():
    assert p_value(0.1 + 0.2, np.array([0.3, 0.3 - 1e-9])) == 2 / 3


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist() == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


def test_counts_are_those_of_samples_with_replacement():
    drawn = counts(5, 20_000, seed=0)
    assert drawn.shape == (20_000, 5)
    assert (drawn.sum(axis=1) == 5).all()
    # an image is left out with probability (4/5)^5
    assert (drawn == 0).mean() == pytest.approx(0.8**5, abs=0.01)
    assert drawn.var(axis=0) == pytest.approx([0.8] * 5, abs=0.03)


def test_units_are_drawn_whole():
    units = np.array([0, 0, 1, 2, 2, 2])
    drawn = counts(6, 50, seed=1, units=units)
    of_units = drawn[:, [0, 2, 3]]
    assert (of_units.sum(axis=1) == 3).all()
    np.testing.assert_array_equal(drawn, of_units[:, units])


def test_batches_do_not_matter_and_seeds_do(monkeypatch):
    whole = counts(30, 40, seed=3)
    monkeypatch.setattr(resampling, "_BATCH", 200)
    batches = list(bootstrap_counts(30, 40, seed=3))
    assert len(batches) == 7
    np.testing.assert_array_equal(np.concatenate(batches), whole)
    assert (counts(30, 40, seed=4) != whole).any()


def test_labels_are_dealt_to_units_only_if_each_has_one():
    labels, units = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 0, 1, 2, 2, 3])
    for drawn in dealt(labels, 20, 0, units):
        assert drawn[0] == drawn[1]
        assert drawn[3] == drawn[4]
        assert sorted(drawn[[0, 2, 3, 5]]) == [0, 0, 1, 1]
    labels[1] = 1
    assert all(sorted(drawn) == sorted(labels) for drawn in dealt(labels, 20, 0, units))
    assert any(drawn[3] != drawn[4] for drawn in dealt(labels, 20, 0, units))


def test_matched_null_equals_a_loop_and_its_mean_over_all_pairings_is_the_matrix_mean():
    matrix = np.random.default_rng(1).random((4, 4))
    matrix[2, 3] = np.nan
    found = matched_null(matrix, 50, seed=2)
    rng = np.random.default_rng(2)
    for value in found:
        order = rng.permutation(4)
        assert value == pytest.approx(np.nanmean([matrix[i, order[i]] for i in range(4)]))
    full = np.random.default_rng(1).random((4, 4))
    assert matched_null(full, 20_000, seed=0).mean() == pytest.approx(full.mean(), abs=0.005)


def test_mean_of_defined():
    found = mean_of_defined(np.array([[1.0, np.nan, 3.0], [np.nan] * 3]))
    assert found[0] == 2.0
    assert np.isnan(found[1])
