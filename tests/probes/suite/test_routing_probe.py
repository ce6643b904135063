"""Routing: what the probe makes of data whose answer is known, and of the bad cases of real data."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from callbacks.metrics import class_information, load_balance
from moe.routing import NONE
from probes.statistics.resampling import bootstrap_counts
from probes.suite.routing_probe import RoutingProbe, cv2_bootstrap, information_null, tsne
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, with_activations, without_some_experts


class TestRouting:
    def test_bootstrap_of_the_load_equals_samples_written_out(self):
        chosen = np.random.default_rng(0).random((30, 4)) < 0.5
        found = cv2_bootstrap(chosen, 10, seed=3)
        for value, times in zip(found, np.concatenate(list(bootstrap_counts(30, 10, 3))).astype(int), strict=True):
            assert value == pytest.approx(load_balance(chosen[np.repeat(np.arange(30), times)].astype(float)).cv2)

    def test_the_null_of_class_information_deals_the_labels_anew(self):
        rng = np.random.default_rng(1)
        labels = rng.integers(0, 3, 200)
        indices = np.stack([labels, 3 + (rng.random(200) < 0.5)], axis=1)  # expert 0 to 2 is the class
        null = information_null(indices, labels, 3, 5, draws=20, seed=0)
        rng = np.random.default_rng(0)
        assert null.tolist() == [class_information(indices, rng.permutation(labels), 3, 5) for _ in range(20)]
        assert class_information(indices, labels, 3, 5) > 10 * null.max()

    def test_labels_are_dealt_to_concepts_where_images_have_them(self):
        """Concepts are routed alike whatever their class: no information, however many images each has."""
        rng = np.random.default_rng(2)
        units = np.repeat(np.arange(30), 40)
        labels = rng.integers(0, 3, 30)[units]
        indices = rng.permuted(np.tile(np.arange(4), (30, 1)), axis=1)[units, :2]
        null = information_null(indices, labels, 3, 4, draws=30, seed=0, units=units)
        rng = np.random.default_rng(0)
        one = labels[::40]
        assert null.tolist() == [class_information(indices, rng.permutation(one)[units], 3, 4) for _ in range(30)]
        observed = class_information(indices, labels, 3, 4)
        assert null.min() <= observed <= null.max()
        assert (
            observed > information_null(indices, labels, 3, 4, draws=30, seed=0).max()
        )  # which dealing to images misses

    @pytest.mark.slow
    def test_the_map_is_repeatable_and_keeps_groups_apart(self):
        rng = np.random.default_rng(0)
        logits = np.concatenate([rng.normal(m, 0.1, (40, 4)) for m in (0, 5)]).astype(np.float32)
        points = tsne(logits, 10, seed=0)
        np.testing.assert_array_equal(points, tsne(logits, 10, seed=0))
        with threadpool_limits(3, user_api="openmp"):  # as on a machine of more cores
            np.testing.assert_array_equal(points, tsne(logits, 10, seed=0))
        within = np.ptp(points[:40], axis=0).max()
        assert np.linalg.norm(points[:40].mean(axis=0) - points[40:].mean(axis=0)) > within
        assert not tsne(np.ones((20, 4), np.float32), 5, seed=0).any()

    def test_images_may_have_fewer_experts_than_slots_or_none(self, tmp_path):
        subject = without_some_experts(example_subject(tmp_path))
        chosen_nE = subject.activations.chosen_nE
        sets = [sorted(set(row) - {NONE}) for row in subject.activations.indices_nK.tolist()]
        assert [np.flatnonzero(row).tolist() for row in chosen_nE] == sets
        assert [] in sets
        assert max(map(len, sets)) == 2
        result = ask(RoutingProbe(map_images=30, permutations=5, bootstrap=5), subject, tmp_path / "r")
        assert result.numbers["load_cv2"] == pytest.approx(load_balance(chosen_nE).cv2)
        labels, rows = subject.store.labels_N, table(tmp_path / "r" / "routing.csv")
        for label, row in enumerate(rows):
            expected = chosen_nE[labels == label].mean(axis=0)
            assert [float(row[str(expert)]) for expert in range(subject.experts)] == pytest.approx(expected, abs=1e-6)
        numbers = {name: n for n, name in enumerate(subject.store.ids)}
        for row in table(tmp_path / "r" / "map.csv"):
            assert sorted(map(int, row["experts"].split())) == sets[numbers[row["image"]]]

    def test_the_share_of_images_in_the_map_is_stated(self, tmp_path):
        result = ask(
            RoutingProbe(map_images=30, permutations=5, bootstrap=5), example_subject(tmp_path), tmp_path / "r"
        )
        assert len(table(tmp_path / "r" / "map.csv")) == 30
        assert result.numbers["class_information"] > result.numbers["class_information_null"]

    def test_one_expert_has_no_map_and_says_so(self, tmp_path):
        result = ask(RoutingProbe(permutations=5), example_subject(tmp_path, experts=1), tmp_path / "r")
        assert any(note.startswith("no map") for note in result.notes)
        assert not (tmp_path / "r" / "map.png").exists()
        assert result.numbers["load_cv2"] == 0

    def test_an_unused_expert_is_named(self, tmp_path):
        s = example_subject(tmp_path)
        logits = s.activations.logits_nE.copy()
        logits[:, 3] = -100
        s = with_activations(s, logits, s.activations.readouts_EnD)
        result = ask(RoutingProbe(map_images=0, permutations=0), s, tmp_path / "r")
        assert result.numbers["dead"] == 1
        assert "no image of example is routed to expert 3" in result.notes

    @pytest.mark.parametrize("size", [0.0, 1.0, 1e-7, 1e-30])
    def test_a_constant_gate_has_no_map_and_says_so(self, tmp_path, size):
        """To within rounding too; t-SNE would end the process."""
        s = example_subject(tmp_path)
        rng = np.random.default_rng(0)
        logits = np.tile(size * rng.normal(size=4), (120, 1)).astype(np.float32)
        logits *= 1 + np.finfo(np.float32).eps * rng.integers(0, 3, logits.shape)
        s = with_activations(s, logits, s.activations.readouts_EnD)
        result = ask(RoutingProbe(permutations=0, bootstrap=0), s, tmp_path / "r")
        assert "no map of the gate: it is constant, its logits are the same for all images" in result.notes
        assert not (tmp_path / "r" / "map.png").exists()

    def test_gates_of_any_size_have_a_map(self):
        rng = np.random.default_rng(0)
        for size in (1e-18, 1e-9, 1e9):
            assert np.isfinite(tsne((size * rng.normal(size=(40, 4))).astype(np.float32), 5, seed=0)).all()
        assert not tsne((1e-30 * rng.normal(size=(40, 4))).astype(np.float32), 5, seed=0).any()
