"""Means over pairs of classes against an analysis of variance by least squares, written out."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from probes.statistics.class_pairs import expert_differences, mean_over_experts, pair_mean


def random_table(classes, seed=0, effect=1.0):
    rng = np.random.default_rng(seed)
    u, e = effect * rng.normal(size=classes), rng.normal(size=(classes, classes))
    table = 0.7 + 0.05 * (u[:, None] + u + e + e.T)
    np.fill_diagonal(table, np.nan)
    return table


def slow_reference(table):
    """Mean, standard error and degrees of freedom from the residuals of two regressions."""
    C = len(table)
    pairs = list(combinations(range(C), 2))
    y = np.array([table[pair] for pair in pairs])
    design = np.array([[1.0] + [float(c in pair) for c in range(C)] for pair in pairs])
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    of_classes, of_pairs = C - 1, len(pairs) - C
    class_square = ((fitted - y.mean()) ** 2).sum() / of_classes
    pair_square = ((y - fitted) ** 2).sum() / of_pairs
    if class_square <= pair_square:
        return y.mean(), y.std(ddof=1) / len(y) ** 0.5, len(y) - 1
    # expected mean squares: var(e) and var(e) + (C - 2) var(u)
    u = (class_square - pair_square) / (C - 2)
    variance = 4 * u / C + 2 * pair_square / (C * (C - 1))
    a, b = 4 / (C * (C - 2)), 2 / (C * (C - 1)) - 4 / (C * (C - 2))
    freedom = variance**2 / ((a * class_square) ** 2 / of_classes + (b * pair_square) ** 2 / of_pairs)
    return y.mean(), variance**0.5, freedom


@pytest.mark.parametrize("classes", [4, 5, 10, 27])
@pytest.mark.parametrize("effect", [0.0, 0.5, 5.0])
def test_it_agrees_with_the_reference(classes, effect):
    for seed in range(3):
        table = random_table(classes, seed, effect)
        found = pair_mean(table)
        assert found[:3] == pytest.approx(slow_reference(table), rel=1e-9)
        left_out = [
            np.mean([table[pair] for pair in combinations([c for c in range(classes) if c != out], 2)])
            for out in range(classes)
        ]
        assert found.jackknife == pytest.approx(((classes - 1) * np.var(left_out)) ** 0.5)


def test_interval_and_p_follow_from_students_t():
    found = pair_mean(random_table(8) - 0.7)
    reach = stats.t.ppf(0.975, found.freedom) * found.error
    assert found.interval() == pytest.approx((found.mean - reach, found.mean + reach))
    assert found.p_value() == pytest.approx(2 * stats.t.sf(abs(found.mean) / found.jackknife, 7))


def test_three_classes_cannot_tell():
    found = pair_mean(random_table(3))
    assert np.isfinite(found.mean)
    assert np.isnan([found.error, *found.interval(), found.p_value()]).all()


def test_classes_with_gaps_are_left_out_of_the_error_but_not_of_the_mean():
    table = random_table(8)
    table[2, 5] = table[5, 2] = table[2, 6] = table[6, 2] = np.nan
    found = pair_mean(table)
    assert found.mean == pytest.approx(np.nanmean(table))
    rest = np.delete(np.delete(table, 2, axis=0), 2, axis=1)
    assert (found.error, found.freedom) == pytest.approx(slow_reference(rest)[1:])
    assert found.classes == 7
    assert np.isnan(pair_mean(np.full((5, 5), np.nan)).mean)


def test_perfect_tables_have_no_spread_and_equal_ones_no_difference():
    perfect = np.ones((6, 6))
    assert pair_mean(perfect).interval() == (1.0, 1.0)
    (difference,) = expert_differences(np.stack([perfect, perfect]))
    assert (difference.difference, difference.p_adjusted) == (0.0, 1.0)
    (difference,) = expert_differences(np.stack([perfect, perfect / 2]))
    assert difference.p_adjusted == 0.0


def test_differences_are_paired_and_dead_experts_are_no_comparison():
    tables = np.stack([random_table(8, seed) for seed in range(3)] + [np.full((8, 8), np.nan)])
    tables[2] += 0.3
    found = expert_differences(tables)
    assert [(one.a, one.b) for one in found] == list(combinations(range(4), 2))
    alone = pair_mean(tables[0] - tables[2])
    assert found[1].difference == alone.mean
    assert (found[1].low, found[1].high) == alone.interval()
    living = [one for one in found if one.b < 3]
    alone = min(pair_mean(tables[a] - tables[b]).p_value() for a, b in combinations(range(3), 2))
    assert min(one.p_adjusted for one in living) == 3 * alone < 0.1  # three tests, not six
    assert all(np.isnan(one.p_adjusted) for one in found if one.b == 3)
    assert mean_over_experts(tables).mean == pytest.approx(np.nanmean(tables))
