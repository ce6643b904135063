"""Differences of clusters within runs, against loops and planted traits."""

import numpy as np
import pytest

from probes.statistics.cluster_traits import trait_difference


def made(shift, runs=5, experts=4, seed=0):
    rng = np.random.default_rng(seed)
    run, second = np.repeat(np.arange(runs), experts), np.tile(np.arange(experts) % 2 == 0, runs)
    return rng.normal(size=runs * experts) + 10 * rng.normal(size=runs)[run] + shift * second, second, run


def test_against_loops():
    trait, second, run = made(-2.0)
    found = trait_difference(trait, second, run, draws=99, seed=0)
    slow = [trait[(run == r) & ~second].mean() - trait[(run == r) & second].mean() for r in range(5)]
    assert found.difference_R.tolist() == pytest.approx(slow)  # the first cluster is the larger one
    assert found.larger_R.tolist() == pytest.approx([trait[(run == r) & ~second].mean() for r in range(5)])
    assert found.p == 0.01


def test_differences_between_runs_are_no_difference_of_clusters():
    assert trait_difference(*made(0.0), draws=99, seed=0).p > 0.05


def test_runs_without_both_clusters_say_nothing():
    trait, second, run = made(3.0)
    second = second & (run != 1)
    found = trait_difference(trait, second, run, draws=19, seed=0)
    assert np.isnan(found.larger_R).tolist() == [False, True, False, False, False]
    none = trait_difference(trait, second & False, run, draws=19, seed=0)
    assert np.isnan(none.difference_R).all()
    assert np.isnan(none.p)
