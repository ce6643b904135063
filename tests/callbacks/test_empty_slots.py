"""Metrics of images that have fewer experts than slots, or none, against loops over sets."""

import itertools
from math import comb

import numpy as np
import pytest

from callbacks.files import RoutingFolder
from callbacks.metrics import (
    class_information,
    class_routing,
    coactivation,
    load_balance,
    observed_chance,
    routed_balance,
    routing_heatmap,
    sized_chance,
    uniform_chance,
    view_agreement,
)
from callbacks.monitors import LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from callbacks.saturation import RoutingSaturation, saturation
from moe.routing import NONE
from tests.callbacks.foreign import COUNT, Foreign, logged, run

IMAGES, EXPERTS = 200, 4


def drawn(seed):
    """Experts and gates of images that have 0 to 4 of 4 experts; empty slots anywhere."""
    rng = np.random.default_rng(seed)
    indices = np.array([rng.permutation(EXPERTS) for _ in range(IMAGES)])
    indices[rng.random(indices.shape) < 0.5] = NONE
    return indices, np.where(indices == NONE, 0.0, rng.random(indices.shape))


def sets_of(indices):
    return [frozenset(row) - {NONE} for row in indices.tolist()]


A, B = drawn(0), drawn(1)
LABELS = np.random.default_rng(2).integers(-1, 3, IMAGES)
PAIRS = list(zip(sets_of(A[0]), sets_of(B[0]), strict=True))


def test_there_are_images_of_every_size():
    assert {len(chosen) for chosen in sets_of(A[0])} == {0, 1, 2, 3, 4}


def test_agreement_is_that_of_sets():
    assert view_agreement(A[0], B[0]) == pytest.approx(np.mean([one == other for one, other in PAIRS]))


def test_chances_are_those_of_all_pairs_in_a_loop():
    pairs = list(itertools.product(sets_of(A[0]), sets_of(B[0])))
    assert observed_chance(A[0], B[0]) == pytest.approx(np.mean([one == other for one, other in pairs]))
    slow = np.mean([(len(one) == len(other)) / comb(EXPERTS, len(one)) for one, other in pairs])
    assert sized_chance(A[0], B[0], EXPERTS) == pytest.approx(slow)


@pytest.mark.parametrize(("experts", "top_k"), [(4, 2), (8, 2), (5, 5)])
def test_the_chance_of_sets_of_one_size_is_the_papers(experts, top_k):
    chosen = [list(range(top_k))] * 3
    assert sized_chance(chosen, chosen, experts) == uniform_chance(experts, top_k)


def test_the_chance_needs_images():
    with pytest.raises(ValueError, match="no images"):
        sized_chance(np.zeros((0, 2)), [[0, 1]], 2)


def test_balance_is_that_of_dense_gates():
    indices, weights = A
    gates = np.zeros((IMAGES, EXPERTS))
    for image, row in enumerate(indices.tolist()):
        for slot, expert in enumerate(row):
            if expert != NONE:
                gates[image, expert] = weights[image, slot]
    ours, dense = routed_balance(indices, weights, EXPERTS), load_balance(gates)
    np.testing.assert_allclose(ours.importance, dense.importance)
    np.testing.assert_array_equal(ours.load, dense.load)
    assert (ours.cv2, ours.entropy, ours.dead) == pytest.approx((dense.cv2, dense.entropy, dense.dead))


def test_all_experts_are_dead_where_no_image_has_any():
    balance = routed_balance(np.full((3, 2), NONE), np.zeros((3, 2)), 4)
    assert balance.dead == 4
    assert np.isnan([balance.cv2, balance.entropy]).all()


def test_coactivation_is_that_of_sets():
    pairs = coactivation(A[0], EXPERTS)
    for i, j in itertools.product(range(EXPERTS), repeat=2):
        assert pairs[i, j] == pytest.approx(np.mean([{i, j} <= chosen for chosen in sets_of(A[0])]))


def test_classes_are_routed_as_a_loop_says():
    indices, weights = A
    sets, table = sets_of(indices), class_routing(indices, weights, LABELS, 3, EXPERTS)
    np.testing.assert_array_equal(table.load, routing_heatmap(indices, LABELS, 3, EXPERTS))
    for label in range(3):
        mine = np.flatnonzero(label == LABELS)
        assert table.load[label] == pytest.approx([np.mean([e in sets[n] for n in mine]) for e in range(EXPERTS)])
        gates = np.array([weights[mine][indices[mine] == e].sum() for e in range(EXPERTS)])
        assert table.weight[label] == pytest.approx(gates / len(mine))
        share = gates / gates.sum()
        assert table.entropy[label] == pytest.approx(-(share * np.log(share)).sum() / np.log(EXPERTS))
        seen = [sets[n] for n in mine]
        assert table.top_share[label] == pytest.approx(max(seen.count(one) for one in seen) / len(mine))
        assert seen.count(frozenset(table.top_set[label].tolist()) - {NONE}) == max(seen.count(one) for one in seen)


def test_class_information_is_that_of_filled_slots_in_a_loop():
    counts = np.zeros((3, EXPERTS))
    for chosen, label in zip(sets_of(A[0]), LABELS.tolist(), strict=True):
        for expert in chosen if label >= 0 else ():
            counts[label, expert] += 1
    joint = counts / counts.sum()
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    information = sum(joint[c, e] * np.log(joint[c, e] / (p[c] * q[e])) for c in range(3) for e in range(EXPERTS))
    assert class_information(A[0], LABELS, 3, EXPERTS) == pytest.approx(information / -(p * np.log(p)).sum())


def test_classes_nobody_takes_tell_nothing():
    assert np.isnan(class_information(np.full((4, 2), NONE), [0, 0, 1, 1], 2, 3))


def test_the_callbacks_log_what_the_metrics_say(tmp_path):
    a, b, clean = A[0][:COUNT, :2], B[0][:COUNT, :2], A[0][-COUNT:, :2]
    module, folder = Foreign([a, b, clean]), RoutingFolder(tmp_path / "routing")
    watching = [
        LoadBalanceMonitor(), ViewAgreementMonitor(), RoutingHeatmap(folder.path, ["x", "y", "z"]),
        RoutingSaturation(folder),
    ]  # fmt: skip
    found = logged(run(module, watching, tmp_path, train=True, epochs=1))
    sets = sets_of(clean)
    assert found["balance/unrouted"] == pytest.approx(np.mean([not chosen for chosen in sets]))
    assert found["balance/load_2"] == pytest.approx(np.mean([2 in chosen for chosen in sets]))
    pairs = zip(sets_of(a), sets_of(b), strict=True)
    assert found["agreement/top_k"] == pytest.approx(np.mean([one == other for one, other in pairs]))
    assert found["agreement/chance_uniform"] == pytest.approx(sized_chance(a, b, EXPERTS))
    assert saturation(folder, 1)[1] == (1, None, 1.0)
    classes = (folder.path / "classes_0001.csv").read_text()
    assert "-1" not in classes


def test_a_gate_that_gives_no_image_an_expert_is_logged_without_numbers_that_are_none(tmp_path):
    nobody = np.full((COUNT, 2), NONE)
    found = logged(run(Foreign([nobody] * 3), [LoadBalanceMonitor()], tmp_path))
    assert (found["balance/unrouted"], found["balance/dead"], found["balance/importance_0"]) == (1, EXPERTS, 0)
    assert "balance/cv2" not in found
    assert np.isfinite(list(found.values())).all()
