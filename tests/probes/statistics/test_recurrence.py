"""Clusters over runs against counting all ways to deal them."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binomtest

from probes.statistics.recurrence import recurrence, share_interval


def test_worked_by_hand():
    runs, labels = np.array(["b", "b", "a", "a", "c", "c"]), np.array([0, 1, 0, 1, 0, 0])
    found = recurrence(labels, runs, draws=9, seed=0)
    assert found.counts_RK.tolist() == [[1, 1], [1, 1], [2, 0]]
    assert found.share == pytest.approx(2 / 3)


def test_the_null_is_that_of_all_ways_to_deal_the_clusters():
    runs, labels = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 1])
    ways = [np.mean([len({way[2 * r], way[2 * r + 1]}) == 2 for r in range(3)]) for way in permutations(labels)]
    found = recurrence(labels, runs, draws=20_000, seed=0)
    assert found.share == pytest.approx(1 / 3)
    assert found.null == pytest.approx(np.mean(ways), abs=0.01)
    assert found.p_more == pytest.approx(np.mean(np.array(ways) >= 1 / 3 - 1e-9), abs=0.01)
    assert found.p_fewer == pytest.approx(np.mean(np.array(ways) <= 1 / 3 + 1e-9), abs=0.01)


def test_ten_runs_in_two_clusters_of_five_whole_runs():
    runs = np.repeat(np.arange(10), 4)
    found = recurrence((runs >= 5).astype(int), runs, draws=199, seed=0)
    assert (found.share, found.p_fewer, found.p_more) == (0.0, 1 / 200, 1.0)
    found = recurrence(np.tile([0, 0, 1, 1], 10), runs, draws=199, seed=0)
    assert (found.share, found.p_fewer) == (1.0, 1.0)
    assert found.p_more < 0.5


@pytest.mark.parametrize(("hits", "count"), [(0, 4), (4, 4), (7, 10)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(hits, count):
    assert share_interval(hits, count) == pytest.approx(tuple(binomtest(hits, count).proportion_ci(0.95, "exact")))
