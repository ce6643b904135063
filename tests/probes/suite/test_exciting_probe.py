"""Most exciting inputs: what the probe makes of data whose answer is known, and of the bad cases of real data."""

import numpy as np
import pytest

from probes.suite.exciting_probe import ExcitingProbe
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, with_activations


class TestExciting:
    @pytest.mark.slow
    def test_duplicates_tie_and_come_in_order(self, tmp_path):
        s = example_subject(tmp_path, duplicates=60)
        ask(ExcitingProbe(count=50), s, tmp_path / "e")
        rows = [r for r in table(tmp_path / "e" / "exciting.csv") if r["score"] == "readout" and r["expert"] == "0"]
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            assert first["value"] == second["value"]
            assert int(second["image"][-3:]) == int(first["image"][-3:]) + 60

    @pytest.mark.slow
    def test_the_overlap_is_that_of_the_two_lists(self, tmp_path):
        s = example_subject(tmp_path)
        norms = np.linalg.norm(s.activations.readouts_EnD, axis=2).T
        s = with_activations(s, norms, s.activations.readouts_EnD)
        assert ask(ExcitingProbe(), s, tmp_path / "e").numbers["overlap_gate_readout"] == 1
        s = with_activations(s, -norms, s.activations.readouts_EnD)
        numbers = ask(ExcitingProbe(), s, tmp_path / "f").numbers
        assert numbers["overlap_gate_readout"] == 0
        assert numbers["overlap_chance"] == pytest.approx(8 / 120)

    def test_dead_experts_have_no_overlap_and_are_in_no_list(self, tmp_path):
        s = example_subject(tmp_path, dead=(1,))
        logits = s.activations.logits_nE.copy()
        logits[:, 3] = 2.5
        s = with_activations(s, logits, s.activations.readouts_EnD)
        result = ask(ExcitingProbe(permutations=99), s, tmp_path / "e")
        shares = [row["overlap_gate_readout"] for row in table(tmp_path / "e" / "overlap.csv")]
        assert [share == "" for share in shares] == [False, True, False, True]
        assert result.numbers["overlap_gate_readout"] == pytest.approx(np.mean([float(shares[e]) for e in (0, 2)]))
        assert "expert 3: no overlap, the gate or the readout's norm is constant" in result.notes
        rows = table(tmp_path / "e" / "exciting.csv")
        assert {row["expert"] for row in rows if row["score"] == "readout"} == {"0", "2", "3"}
        assert {row["expert"] for row in rows if row["score"] == "gate"} == {"0", "1", "2"}

    def test_a_list_that_ends_among_copies_has_no_overlap(self, tmp_path):
        """Which of the copies are on both lists is a matter of their order."""
        s = example_subject(tmp_path)
        scores = np.random.default_rng(0).normal(size=(2, s.activations.logits_nE.shape[1]))[np.arange(120) % 2]
        logits = np.where(np.arange(4) == 2, s.activations.logits_nE, scores)
        s = with_activations(s, logits, s.activations.readouts_EnD)
        result = ask(ExcitingProbe(permutations=99), s, tmp_path / "e")
        shares = [row["overlap_gate_readout"] for row in table(tmp_path / "e" / "overlap.csv")]
        assert [share == "" for share in shares] == [True, True, False, True]
        assert "experts 0, 1, 3: no overlap, images on and off the list have the same score" in result.notes

    def test_only_dead_experts_leave_nothing_to_say(self, tmp_path):
        s = example_subject(tmp_path, dead=(0, 1, 2, 3))
        numbers = ask(ExcitingProbe(), s, tmp_path / "e").numbers
        assert numbers["overlap_gate_readout"] is None
        assert numbers["overlap_p"] is None
