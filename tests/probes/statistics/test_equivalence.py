"""Equivalence and likeness of experts against plain references and planted cases."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from probes.statistics.equivalence import Likeness, equivalence, likeness


def tables(means, noise=0.02, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    upper = np.triu(noise * rng.normal(size=(len(means), classes, classes)), k=1)
    found = np.array(means)[:, None, None] + upper + upper.transpose(0, 2, 1)
    found[:, np.arange(classes), np.arange(classes)] = np.nan
    return found


def test_alike_and_different_experts():
    assert equivalence(tables([0.8, 0.81, 0.79]), 0.05).p < 0.01
    other = equivalence(tables([0.8, 0.81, 0.9]), 0.05)
    assert other.p > 0.9
    assert other.largest == pytest.approx(0.1, abs=0.02)


def test_against_the_jackknife_by_hand():
    """Leave-one-class-out means, their pseudo-values, and scipy's one-sided t."""
    accuracy = tables([0.8, 0.82], noise=0.1)
    difference = accuracy[0] - accuracy[1]

    def mean(kept):
        return np.mean([difference[a, b] for a, b in combinations(kept, 2)])

    C = 10
    pseudo = np.array([C * mean(range(C)) - (C - 1) * mean([k for k in range(C) if k != c]) for c in range(C)])
    pseudo += mean(range(C)) - pseudo.mean()  # the same error around the mean itself
    p = max(
        ttest_1samp(pseudo, 0.05, alternative="less").pvalue, ttest_1samp(pseudo, -0.05, alternative="greater").pvalue
    )
    assert equivalence(accuracy, 0.05).p == pytest.approx(p)


def test_what_cannot_be_told():
    assert np.isnan(equivalence(tables([0.8]), 0.05)).all()
    few = equivalence(tables([0.8, 0.8], classes=3), 0.05)
    assert np.isfinite(few.largest)
    assert np.isnan(few.p)
    dead = tables([0.8, 0.9, 0.8])
    dead[1] = np.nan
    assert equivalence(dead, 0.05).p < 0.001
    same = np.stack([tables([0.8])[0]] * 2)
    assert equivalence(same, 0.05) == (0.0, 0.0)


def planted(of_run, runs=4, experts=3, seed=0, pairs=45):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=pairs)
    patterns = [
        common + run + 0.5 * rng.normal(size=pairs)
        for run in of_run * rng.normal(size=(runs, pairs))
        for _ in range(experts)
    ]
    return np.array(patterns), np.repeat(np.arange(runs), experts), np.repeat(np.arange(runs) % 2, experts)


def test_likeness_against_loops():
    patterns, runs, cells = planted(0.5)
    found = likeness(patterns, runs, cells, draws=19, seed=0)
    within, between = {0: [], 1: []}, {0: [], 1: []}
    for a, b in combinations(range(len(patterns)), 2):
        if cells[a] == cells[b]:
            (within if runs[a] == runs[b] else between)[cells[a]].append(np.corrcoef(patterns[a], patterns[b])[0, 1])
    assert found.within == pytest.approx(np.mean([np.mean(within[cell]) for cell in (0, 1)]))
    assert found.between == pytest.approx(np.mean([np.mean(between[cell]) for cell in (0, 1)]))
    assert np.isnan(found.spread.variance)  # two seeds a cell


def test_models_of_their_own_are_told_from_likeness_at_large():
    patterns, runs, cells = planted(1.0, runs=12)
    own = likeness(patterns, runs, cells, draws=99, seed=0)
    assert own.p <= 0.02
    assert own.spread.freedom == 10
    assert own.within - own.between > 2 * own.spread.variance**0.5
    patterns, runs, cells = planted(0.0, runs=12)
    large = likeness(patterns, runs, cells, draws=99, seed=0)
    assert large.p > 0.05
    assert large.within > 0.7


@pytest.mark.parametrize(("runs", "experts"), [(1, 4), (6, 1)])
def test_one_run_or_one_expert_has_nothing_to_compare(runs, experts):
    patterns, of_run, _ = planted(0.5, runs=runs, experts=experts)
    found = likeness(patterns, of_run, np.zeros(len(of_run)), draws=9, seed=0)
    assert isinstance(found, Likeness)
    assert np.isnan([found.within, found.between, found.p, found.spread.variance]).all()
