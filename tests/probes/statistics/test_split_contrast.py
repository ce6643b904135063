"""Contrasts and class distances against loops over pairs and divisions."""

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from probes.statistics.split_contrast import class_distances, contrast_test, contrasts


def table(classes=7, seed=0):
    values = np.random.default_rng(seed).random((classes, classes))
    values = values + values.T
    np.fill_diagonal(values, np.nan)
    return values


def slow_contrast(table_CC, side_C):
    across, within = [], []
    for a, b in combinations(range(len(table_CC)), 2):
        if np.isfinite(table_CC[a, b]):
            (across if side_C[a] != side_C[b] else within).append(table_CC[a, b])
    return np.mean(across) - np.mean(within)


def test_every_division_against_loops():
    values = table()
    values[1, 4] = values[4, 1] = np.nan
    side = np.array([True, True, False, True, False, False, False])
    found = contrast_test(values, side, most=1000, seed=0)
    slow = [slow_contrast(values, np.isin(np.arange(7), chosen)) for chosen in combinations(range(7), 3)]
    assert found.every
    assert found.contrast == pytest.approx(slow_contrast(values, side))
    np.testing.assert_allclose(np.sort(found.contrast_S), np.sort(slow))
    assert found.p == pytest.approx(np.mean(np.array(slow) >= found.contrast - 1e-9))


@pytest.mark.parametrize("classes", [6, 7, 10])
def test_above_the_critical_value_p_is_small_and_else_not(classes):
    values, size = table(classes), classes // 2
    for chosen in list(combinations(range(classes), size))[:120]:
        found = contrast_test(values, np.isin(np.arange(classes), chosen), most=1000, seed=0)
        assert (found.contrast > found.critical) == (found.p <= 0.05)


def test_a_true_division_is_first_of_all():
    side = np.arange(10) < 6
    values = 0.6 + 0.2 * (side[:, None] != side) + 0.02 * table(10)
    found = contrast_test(values, side, most=210, seed=0)
    assert found.p == 1 / 210
    assert found.contrast > found.critical


def test_too_few_divisions_cannot_be_small():
    side = np.array([True, True, False, False])
    values = 0.6 + 0.2 * (side[:, None] != side)
    found = contrast_test(values, side, most=100, seed=0)
    assert found.p == pytest.approx(2 / 6)  # a division and its mirror image are the same
    assert np.isnan(contrast_test(values[:2, :2], np.array([True, False]), most=9, seed=0).p)


def test_samples_begin_with_the_division_itself():
    side = np.arange(20) < 9
    found = contrast_test(table(20), side, most=50, seed=1)
    assert (found.every, len(found.contrast_S)) == (False, 50)
    assert found.contrast == pytest.approx(slow_contrast(table(20), side))


def test_no_pair_within_is_undefined():
    assert np.isnan(contrasts(table(2), np.array([[True, False]]))).all()
    with pytest.raises(ValueError, match="two sides"):
        contrast_test(table(), np.ones(7, bool), most=9, seed=0)


def test_class_distances_against_the_whole_matrix():
    rng = np.random.default_rng(0)
    Z, labels = rng.normal(size=(40, 3)) + 100, rng.integers(-1, 3, 40)
    found = class_distances(Z.astype(np.float32), labels, 4)
    slow = np.full((4, 4), np.nan)
    for a, b in combinations(range(3), 2):
        slow[a, b] = slow[b, a] = (cdist(Z[labels == a], Z[labels == b]) ** 2).mean()
    np.testing.assert_allclose(found, slow / np.nanmean(slow), rtol=1e-4)
