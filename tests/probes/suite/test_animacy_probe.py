"""Animacy: what the probe makes of data whose answer is known, and of the bad cases of real data."""

from dataclasses import replace

import numpy as np
import pytest

from probes.suite.animacy_probe import AnimacyProbe
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, store_of, with_activations


class TestAnimacy:
    def test_an_expert_for_animals_is_found_at_the_gate_and_not_at_the_readout(self, tmp_path):
        s = example_subject(tmp_path, images=1200)
        animate = s.store.labels_N < 2
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(1200, 4))
        logits[:, 1] += 3 * animate
        norms = 5 + rng.normal(size=(4, 1200, 1))
        s = with_activations(s, logits, norms)
        result = ask(AnimacyProbe(bootstrap=200), s, tmp_path / "a")
        rows = table(tmp_path / "a" / "animacy.csv")
        assert float(rows[1]["gate"]) == pytest.approx(3, abs=0.3)
        assert 2.5 < float(rows[1]["gate_low"]) < float(rows[1]["gate"]) < float(rows[1]["gate_high"])
        assert abs(float(rows[1]["readout"])) < 0.25
        assert "animate: bird, cat" in result.notes
        assert result.numbers["gate_p"] == 1 / 200
        assert result.numbers["readout_p"] > 0.05

    def test_unlabelled_images_are_left_out(self, tmp_path):
        s = example_subject(tmp_path)
        labels = s.store.labels_N.copy()
        labels[:40] = -1
        fewer = replace(s, store=store_of(tmp_path, labels, s.store.manifest.classes))
        assert ask(AnimacyProbe(bootstrap=5), fewer, tmp_path / "a").numbers["images"] == 80

    def test_one_side_alone_is_not_asked(self, tmp_path):
        store = store_of(tmp_path, [0, 0, 1], ["cat", "dog", "car"])
        assert "all animate or all inanimate" in AnimacyProbe().skip(store)
        assert "known which" in AnimacyProbe().skip(store_of(tmp_path, [0, 1], ["striped", "plain"]))
        assert AnimacyProbe(animate=("striped",)).skip(store_of(tmp_path, [0, 1], ["striped", "plain"])) is None
