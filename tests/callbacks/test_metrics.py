"""Metrics against hand-worked numbers and slow loops."""

import itertools
import math

import numpy as np
import pytest

from callbacks.metrics import load_balance, observed_chance, routing_heatmap, uniform_chance, view_agreement


def random_choices(count, experts, top_k, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(experts)[:top_k] for _ in range(count)])


def test_collapsed_gate_is_reported_as_what_it_is():
    gates = np.zeros((10, 8))
    gates[:, 3] = 1.0
    balance = load_balance(gates)
    assert balance.importance.tolist() == [0, 0, 0, 10, 0, 0, 0, 0]
    assert balance.load.tolist() == [0, 0, 0, 10, 0, 0, 0, 0]
    assert balance.cv2 == pytest.approx(7.0)  # E - 1
    assert balance.entropy == 0.0
    assert balance.dead == 7


def test_even_gate():
    balance = load_balance(np.eye(4))
    assert (balance.cv2, balance.dead) == (0.0, 0)
    assert balance.entropy == pytest.approx(1.0)


def test_balance_by_hand():
    balance = load_balance([[0.75, 0.25, 0.0], [0.75, 0.0, 0.25]])
    assert balance.importance.tolist() == [1.5, 0.25, 0.25]
    assert balance.load.tolist() == [2, 1, 1]
    # mean 2/3, variance (1.5**2 + 2 * 0.25**2) / 3 - 4/9 = 0.347222
    assert balance.cv2 == pytest.approx(0.3472222 / (4 / 9), rel=1e-6)
    share = [0.75, 0.125, 0.125]
    assert balance.entropy == pytest.approx(-sum(p * math.log(p) for p in share) / math.log(3))


def test_one_expert_is_even():
    assert load_balance(np.ones((3, 1))).entropy == 1.0


@pytest.mark.parametrize("gates", [np.ones(3), np.zeros((3, 2))])
def test_balance_of_nothing_is_refused(gates):
    with pytest.raises(ValueError, match="gates"):
        load_balance(gates)


def test_view_agreement_by_hand():
    assert view_agreement([[0, 1], [2, 3], [0, 1]], [[1, 0], [2, 1], [0, 1]]) == pytest.approx(2 / 3)


def test_view_agreement_equals_sets_in_a_loop():
    a, b = random_choices(500, 4, 2, 0), random_choices(500, 4, 2, 1)
    slow = sum(set(x) == set(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / 500
    assert view_agreement(a, b) == pytest.approx(slow)


@pytest.mark.parametrize(("a", "b"), [([[0, 1]], [[0, 1], [1, 2]]), (np.zeros((0, 2)), np.zeros((0, 2))), ([0], [0])])
def test_view_agreement_needs_equal_shapes(a, b):
    with pytest.raises(ValueError, match=r"\(B, K\)"):
        view_agreement(a, b)


@pytest.mark.parametrize(("experts", "percent"), [(4, 16.66), (8, 3.57), (16, 0.83)])
def test_uniform_chance_is_the_papers(experts, percent):
    assert 100 * uniform_chance(experts, 2) == pytest.approx(percent, abs=0.01)


def test_observed_chance_by_hand():
    # p_a: {01} 3/4, {23} 1/4; p_b: {01} 1/2, {02} 1/2
    a, b = [[0, 1], [1, 0], [0, 1], [3, 2]], [[0, 1], [1, 0], [0, 2], [2, 0]]
    assert observed_chance(a, b) == pytest.approx(3 / 4 * 1 / 2)


def test_observed_chance_equals_all_pairs_in_a_loop():
    a, b = random_choices(60, 5, 3, 2), random_choices(60, 5, 3, 3)
    pairs = itertools.product(a.tolist(), b.tolist())
    slow = sum(set(x) == set(y) for x, y in pairs) / 60**2
    assert observed_chance(a, b) == pytest.approx(slow)


def test_observed_chance_of_uniform_routing_approaches_uniform_chance():
    a, b = random_choices(20_000, 4, 2, 4), random_choices(20_000, 4, 2, 5)
    assert observed_chance(a, b) == pytest.approx(1 / 6, abs=2e-3)


def test_heatmap_equals_a_loop_and_rows_sum_to_k():
    indices, labels = random_choices(300, 6, 2, 6), np.random.default_rng(7).integers(-1, 4, 300)
    heatmap = routing_heatmap(indices, labels, 4, 6)
    for label, expert in itertools.product(range(4), range(6)):
        mine = [expert in row for row, one in zip(indices, labels, strict=True) if one == label]
        assert heatmap[label, expert] == pytest.approx(np.mean(mine))
    np.testing.assert_allclose(heatmap.sum(axis=1), 2.0)


def test_a_class_without_images_has_no_heatmap_row():
    heatmap = routing_heatmap([[0], [1]], [0, 0], 2, 2)
    assert heatmap[0].tolist() == [0.5, 0.5]
    assert np.isnan(heatmap[1]).all()
