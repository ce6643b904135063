"""Partitions of known parts, and against scikit-learn's ridge in loops."""

import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from probes.statistics.resampling import p_value
from probes.statistics.ridge import fit_ridge
from probes.statistics.variance_partitioning import partition, unique_null


def known(n=1500, seed=0):
    """Three sets; the first two share a cause. Variances: 1 own of a, 1 common to a and b, 1 own of c, 1 noise."""
    rng = np.random.default_rng(seed)
    own, common, other, noise = rng.normal(size=(4, n))
    sets = {"a": np.stack([own, common], axis=1), "b": common[:, None], "c": other[:, None]}
    return sets, np.stack([own + common + other + noise, noise], axis=1)


def test_parts_of_known_size():
    found = partition(*known(), seed=0)
    assert found.together.value_t == pytest.approx([3 / 4, 0], abs=0.03)
    assert [found.alone[name].value_t[0] for name in "abc"] == pytest.approx([2 / 4, 1 / 4, 1 / 4], abs=0.04)
    assert [found.unique[name].value_t[0] for name in "abc"] == pytest.approx([1 / 4, 0, 1 / 4], abs=0.04)
    assert found.shared_t[0] == pytest.approx(1 / 4, abs=0.04)


def test_against_loops():
    sets, Y = known(120)

    def r2(*names):
        X, predicted = np.column_stack([sets[name] for name in names]), np.empty_like(Y)
        for training, held in KFold(5, shuffle=True, random_state=2).split(X):
            predicted[held] = fit_ridge(X[training], Y[training]).predict(X[held])
        return r2_score(Y, predicted, multioutput="raw_values")

    found = partition(sets, Y, seed=2)
    np.testing.assert_allclose(found.together.value_t, r2("a", "b", "c"))
    np.testing.assert_allclose(found.unique["b"].value_t, r2("a", "b", "c") - r2("a", "c"))
    np.testing.assert_allclose(found.alone["c"].value_t, r2("c"))
    assert found.unique["b"].influence_nt.shape == Y.shape


def test_one_set_is_unique_and_alone():
    sets, Y = known(100)
    found = partition({"a": sets["a"]}, Y, seed=0)
    np.testing.assert_array_equal(found.unique["a"].value_t, found.together.value_t)
    assert unique_null({"a": sets["a"]}, "a", Y, draws=3, seed=0).shape == (3, 2)


def test_the_null_leaves_the_other_sets_alone():
    sets, Y = known(200)
    found, null = partition(sets, Y, seed=0), unique_null(sets, "c", Y, draws=19, seed=0)
    assert (null[:, 0] < found.unique["c"].value_t[0] / 3).all()
    again = unique_null(sets, "c", Y, draws=2, seed=0)
    np.testing.assert_array_equal(again, null[:2])


def test_a_set_that_another_one_has_too_is_no_better_than_its_null():
    """Dealt to the images as it is, it would become noise, which costs, and the real set would stand out."""
    rng = np.random.default_rng(0)
    b = rng.normal(size=(150, 3))
    Y = b.sum(axis=1, keepdims=True) + rng.normal(size=(150, 1))
    sets = {"a": b @ rng.normal(size=(3, 3)), "b": b}
    unique, null = partition(sets, Y, seed=0).unique["a"].value_t[0], unique_null(sets, "a", Y, draws=39, seed=0)
    assert abs(unique) < 0.002
    assert abs(np.median(null)) < 0.002
    assert p_value(unique, null[:, 0]) > 0.05


def test_a_constant_target_has_no_parts():
    sets, Y = known(60)
    found = partition(sets, Y * [1, 0], seed=0)
    assert np.isfinite(found.together.value_t).tolist() == [True, False]
