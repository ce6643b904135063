"""Most exciting inputs: what the probe makes of data whose answer is known, and of the bad cases of real data."""

from itertools import combinations

import numpy as np
import pytest

from probes.suite.exciting_probe import ExcitingProbe, overlap_p
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, with_activations


class TestExciting:
    def test_duplicates_tie_and_come_in_order(self, tmp_path):
        s = example_subject(tmp_path, duplicates=60)
        ask(ExcitingProbe(count=50), s, tmp_path / "e")
        rows = [r for r in table(tmp_path / "e" / "exciting.csv") if r["score"] == "readout" and r["expert"] == "0"]
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            assert first["value"] == second["value"]
            assert int(second["image"][-3:]) == int(first["image"][-3:]) + 60

    def test_the_overlap_is_that_of_the_two_lists(self, tmp_path):
        s = example_subject(tmp_path)
        norms = np.linalg.norm(s.activations.readouts_EnD, axis=2).T
        s = with_activations(s, norms, s.activations.readouts_EnD)
        assert ask(ExcitingProbe(), s, tmp_path / "e").numbers["overlap_gate_readout"] == 1
        s = with_activations(s, -norms, s.activations.readouts_EnD)
        numbers = ask(ExcitingProbe(), s, tmp_path / "f").numbers
        assert numbers["overlap_gate_readout"] == 0
        assert numbers["overlap_chance"] == pytest.approx(8 / 120)

    @pytest.mark.parametrize("shared", range(5))
    def test_the_chance_of_an_overlap_equals_counting_all_lists(self, shared):
        lists = list(combinations(range(5), 2))
        ways = [len({0, 1} & set(a)) + len({0, 1} & set(b)) for a in lists for b in lists]
        assert overlap_p(shared, 2, 5, 2) == pytest.approx(np.mean([way >= shared for way in ways]))
