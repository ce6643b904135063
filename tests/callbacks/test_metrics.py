"""Metrics against hand-worked numbers and slow loops."""

import itertools
import math

import numpy as np
import pytest

from callbacks import metrics
from callbacks.metrics import (
    class_information,
    class_routing,
    coactivation,
    gate_entropy,
    load_balance,
    observed_chance,
    routed_balance,
    routing_heatmap,
    uniform_chance,
    view_agreement,
)


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


def test_balance_equals_a_loop():
    rng = np.random.default_rng(8)
    gates = rng.random((50, 6)) * (rng.random((50, 6)) < 0.4) * [1, 1, 1, 2, 5, 0]
    importance = [sum(row[e] for row in gates.tolist()) for e in range(6)]
    mean = sum(importance) / 6
    share = [one / sum(importance) for one in importance if one > 0]
    balance = load_balance(gates)
    assert balance.importance.tolist() == pytest.approx(importance)
    assert balance.load.tolist() == [sum(row[e] > 0 for row in gates.tolist()) for e in range(6)]
    assert balance.cv2 == pytest.approx(sum((one - mean) ** 2 for one in importance) / 6 / mean**2)
    assert balance.entropy == pytest.approx(-sum(p * math.log(p) for p in share) / math.log(6))
    assert balance.dead == 1


def test_balance_of_chosen_experts_by_hand():
    balance = routed_balance([[0, 1], [2, 0]], [[0.75, 0.25], [0.25, 0.75]], 3)
    assert balance.importance.tolist() == [1.5, 0.25, 0.25]
    assert balance.load.tolist() == [2, 1, 1]
    assert balance.cv2 == pytest.approx(0.3472222 / (4 / 9), rel=1e-6)


@pytest.mark.parametrize("zeros", [0, 7])
def test_balance_of_chosen_experts_is_that_of_all_gates(zeros):
    indices = np.array([0, 1, 2, 3, 5, 6, 7, 8])[random_choices(200, 8, 3, 10)]
    weights = np.random.default_rng(11).random(indices.shape).astype(np.float32)
    weights[:zeros, 1] = 0.0  # chosen, but with a gate of 0: no load
    gates = np.zeros((len(indices), 9))
    np.put_along_axis(gates, indices, weights, axis=1)
    ours, dense = routed_balance(indices, weights, 9), load_balance(gates)
    np.testing.assert_allclose(ours.importance, dense.importance)
    np.testing.assert_array_equal(ours.load, dense.load)
    assert (ours.cv2, ours.entropy, ours.dead) == pytest.approx((dense.cv2, dense.entropy, dense.dead))
    assert ours.dead == 1


@pytest.mark.parametrize(
    ("indices", "weights"),
    [
        ([[0]], [[0.0]]),
        ([[0, 1]], [[1.0]]),
        ([[2]], [[1.0]]),
        ([[-2]], [[1.0]]),
        ([[-1, 0]], [[1.0, 0.0]]),
        ([0], [1.0]),
    ],
)
def test_balance_of_impossible_choices_is_refused(indices, weights):
    with pytest.raises(ValueError, match="expert"):
        routed_balance(indices, weights, 2)


def test_gate_entropy_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]) + np.array([[5.0], [-2.0]])
    # 1.5 bits of log2(3), and all of it
    assert gate_entropy(logits) == pytest.approx((1.5 / math.log2(3) + 1) / 2)


def test_gate_entropy_equals_a_loop():
    logits = 3 * np.random.default_rng(9).normal(size=(40, 7))
    slow = []
    for row in logits.tolist():
        total = sum(math.exp(x) for x in row)
        slow.append(-sum(math.exp(x) / total * math.log(math.exp(x) / total) for x in row))
    assert gate_entropy(logits) == pytest.approx(sum(slow) / 40 / math.log(7))


@pytest.mark.parametrize(
    ("logits", "entropy"),
    [
        ([[1e4, -1e4, 0.0]], 0.0),
        ([[-1e4, -1e4, -1e4]], 1.0),
        ([[1e4, 1e4, -1e4, -1e4]], 0.5),
        ([[3.0], [-3.0]], 0.0),
    ],
)
def test_gate_entropy_of_extreme_logits(logits, entropy):
    assert gate_entropy(np.array(logits, dtype=np.float32)) == pytest.approx(entropy, abs=1e-12)


@pytest.mark.parametrize("logits", [np.ones(3), np.ones((0, 3))])
def test_gate_entropy_of_nothing_is_refused(logits):
    with pytest.raises(ValueError, match="logits"):
        gate_entropy(logits)


def test_view_agreement_by_hand():
    assert view_agreement([[0, 1], [2, 3], [0, 1]], [[1, 0], [2, 1], [0, 1]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("experts", "top_k"), [(4, 2), (5, 3), (5, 4), (6, 5), (7, 6), (3, 1)])
def test_view_agreement_equals_sets_in_a_loop(experts, top_k):
    a, b = random_choices(500, experts, top_k, 0), random_choices(500, experts, top_k, 1)
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


@pytest.mark.parametrize(("experts", "top_k"), [(5, 3), (6, 1), (7, 6), (5, 5)])
def test_observed_chance_equals_all_pairs_in_a_loop(experts, top_k):
    a, b = random_choices(60, experts, top_k, 2), random_choices(45, experts, top_k, 3)
    pairs = itertools.product(a.tolist(), b.tolist())
    slow = sum(set(x) == set(y) for x, y in pairs) / (60 * 45)
    assert observed_chance(a, b) == pytest.approx(slow)


def test_observed_chance_of_sets_too_many_to_number():
    names = np.array([0, 10**6, 3 * 10**6, 4 * 10**6, 5 * 10**6])  # (5e6)^3 exceeds 2^63
    a, b = random_choices(60, 5, 3, 2), random_choices(60, 5, 3, 3)
    assert observed_chance(names[a], names[b]) == pytest.approx(observed_chance(a, b))
    # numbers of 64 bits would be the same for both
    assert observed_chance([[2**20, 2**21, 2**22 - 1]], [[0, 2**21, 2**22 - 1]]) == 0.0


def test_observed_chance_does_not_confuse_sets_of_other_experts():
    # numbered apart, to the base of each view's largest expert, sets would be confused
    assert observed_chance([[0, 2], [1, 2]], [[2, 1], [4, 3]]) == pytest.approx(0.25)
    assert observed_chance([[1, 2]], [[5, 0]]) == 0.0


def test_numbers_of_sets_keep_their_order():
    sets = np.array([[0, 4, 9], [0, 5, 6], [0, 5, 6], [1, 2, 3], [7, 8, 9]])
    for scale in (1, 10**6):
        numbers = metrics._numbered(scale * sets)
        assert (np.diff(numbers) > 0).tolist() == [True, False, True, True]
        assert numbers[1] == numbers[2]


@pytest.mark.parametrize(("a", "b"), [(np.zeros((0, 2)), [[0, 1]]), ([[0, 1]], np.zeros((0, 2)))])
def test_observed_chance_needs_images(a, b):
    with pytest.raises(ValueError, match="no images"):
        observed_chance(a, b)


def test_observed_chance_of_uniform_routing_approaches_uniform_chance():
    a, b = random_choices(20_000, 4, 2, 4), random_choices(20_000, 4, 2, 5)
    assert observed_chance(a, b) == pytest.approx(1 / 6, abs=2e-3)


def test_coactivation_by_hand():
    expected = [[0.75, 0.5, 0.25], [0.5, 0.5, 0.0], [0.25, 0.0, 0.5]]
    assert coactivation([[0, 1], [1, 0], [2, 0], [2, 3]], 4)[:3, :3].tolist() == expected


def test_coactivation_equals_a_loop():
    indices = random_choices(300, 6, 3, 12)
    pairs = coactivation(indices, 6)
    for i, j in itertools.product(range(6), range(6)):
        assert pairs[i, j] == pytest.approx(np.mean([i in row and j in row for row in indices.tolist()]))
    np.testing.assert_array_equal(pairs, pairs.T)
    np.testing.assert_allclose(pairs.sum(axis=1), 3 * pairs.diagonal())


@pytest.mark.parametrize("indices", [np.zeros((0, 2)), [[0, 4]], [0, 1]])
def test_coactivation_of_impossible_choices_is_refused(indices):
    with pytest.raises(ValueError, match=r"no images|experts"):
        coactivation(indices, 4)


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


@pytest.mark.parametrize(
    ("indices", "labels"), [([[0], [1]], [0, 2]), ([[0], [2]], [0, 1]), ([[0], [-2]], [0, 1]), ([[0], [1]], [0])]
)
def test_what_belongs_to_no_class_or_expert_is_refused(indices, labels):
    for function in (routing_heatmap, class_information):
        with pytest.raises(ValueError, match=r"labels|experts"):
            function(indices, labels, 2, 2)
    with pytest.raises(ValueError, match=r"labels|experts"):
        class_routing(indices, np.ones((2, 1)), labels, 2, 2)


def test_class_routing_by_hand():
    indices = [[0, 1], [1, 0], [2, 0], [3, 2], [1, 2], [0, 3]]
    weights = [[0.75, 0.25], [0.5, 0.5], [1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.5, 0.5]]
    table = class_routing(indices, weights, [0, 0, 0, 2, 2, -1], 3, 4)
    assert table.images.tolist() == [3, 0, 2]
    assert table.load[0].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert table.weight[0].tolist() == pytest.approx([1.25 / 3, 0.75 / 3, 1 / 3, 0])
    assert table.load[2].tolist() == [0, 0.5, 1, 0.5]
    assert table.weight[2].tolist() == [0, 0.25, 0.375, 0.375]
    share = [1.25 / 3, 0.25, 1 / 3]
    assert table.entropy[0] == pytest.approx(-sum(p * math.log(p) for p in share) / math.log(4))
    assert table.top_set.tolist() == [[0, 1], [-1, -1], [1, 2]]  # {1, 2} and {2, 3} are as common
    assert table.top_share[[0, 2]].tolist() == pytest.approx([2 / 3, 1 / 2])
    for values in (table.load[1], table.weight[1], table.entropy[1], table.top_share[1]):
        assert np.isnan(values).all()


def test_class_routing_equals_a_loop():
    rng = np.random.default_rng(13)
    indices, labels = random_choices(200, 5, 3, 14), rng.integers(-1, 4, 200)
    weights = rng.dirichlet(np.ones(3), 200)
    table = class_routing(indices, weights, labels, 4, 5)
    np.testing.assert_array_equal(table.load, routing_heatmap(indices, labels, 4, 5))
    for label in range(4):
        mine = [number for number in range(200) if labels[number] == label]
        assert table.images[label] == len(mine)
        gates = [sum(weights[n, s] for n in mine for s in range(3) if indices[n, s] == e) for e in range(5)]
        assert table.weight[label] == pytest.approx([gate / len(mine) for gate in gates])
        own = load_balance(np.array(gates)[None] / len(mine))
        assert table.entropy[label] == pytest.approx(own.entropy)
        seen = [tuple(sorted(indices[n].tolist())) for n in mine]
        top = min(set(seen), key=lambda one: (-seen.count(one), one))
        assert tuple(table.top_set[label]) == top
        assert table.top_share[label] == pytest.approx(seen.count(top) / len(mine))


def test_class_routing_without_any_label():
    table = class_routing([[0, 1]], [[0.5, 0.5]], [-1], 2, 2)
    assert table.images.tolist() == [0, 0]
    assert table.top_set.tolist() == [[-1, -1]] * 2
    assert np.isnan(table.top_share).all()


def test_class_routing_of_a_single_expert_is_even():
    table = class_routing([[0], [0]], [[1.0], [1.0]], [0, 0], 2, 1)
    assert table.entropy[0] == 1.0
    assert np.isnan(table.entropy[1])


def test_class_information_by_hand():
    # class 0 goes to 0, class 1 half to 0 and half to 1: H(class) = log 2
    indices, labels = [[0], [0], [0], [1]], [0, 0, 1, 1]
    information = 1 / 2 * math.log(4 / 3) + 1 / 4 * math.log(2 / 3) + 1 / 4 * math.log(2)
    assert class_information(indices, labels, 2, 2) == pytest.approx(information / math.log(2))


def test_class_information_equals_a_loop():
    indices, labels = random_choices(120, 5, 2, 15), np.random.default_rng(16).integers(-1, 3, 120)
    pairs = [(c, e) for c, row in zip(labels.tolist(), indices.tolist(), strict=True) if c >= 0 for e in row]
    entropy = {}
    for name, things in {"class": [c for c, _ in pairs], "expert": [e for _, e in pairs], "both": pairs}.items():
        shares = [things.count(thing) / len(things) for thing in set(things)]
        entropy[name] = -sum(p * math.log(p) for p in shares)
    expected = (entropy["class"] + entropy["expert"] - entropy["both"]) / entropy["class"]
    assert class_information(indices, labels, 4, 5) == pytest.approx(expected)


def test_routing_that_determines_the_class_or_says_nothing():
    labels = np.arange(30) % 3
    apart = np.array([[0, 1], [2, 3], [5, 4]])[labels]
    assert class_information(apart, labels, 3, 6) == pytest.approx(1.0)
    assert class_information(np.tile([1, 4], (30, 1)), labels, 3, 6) == 0.0


@pytest.mark.parametrize("labels", [[1, 1], [-1, -1], [-1, 0]])
def test_less_than_two_classes_have_no_information(labels):
    assert math.isnan(class_information([[0], [1]], labels, 3, 2))


def test_class_information_is_biased_by_what_the_docstring_says():
    rng, labels = np.random.default_rng(17), np.arange(1000) % 5
    values = [class_information(rng.random((1000, 8)).argsort(axis=1)[:, :3], labels, 5, 8) for _ in range(40)]
    assert np.mean(values) == pytest.approx((5 - 1) * (8 - 3) / (2 * 1000 * 3 * math.log(5)), rel=0.15)
