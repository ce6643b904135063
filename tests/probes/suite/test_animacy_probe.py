"""Animacy: what the probe makes of data whose answer is known, and of the bad cases of real data."""

from dataclasses import replace

import numpy as np
import pytest

from moe.errors import UserError
from probes.suite.animacy_probe import AnimacyProbe
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, store_of, with_activations

STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


class TestAnimacy:
    def test_an_expert_for_animals_is_found_at_the_gate_and_not_at_the_readout(self, tmp_path):
        s = example_subject(tmp_path, images=1200)
        labels = np.arange(1200) % 10
        s = replace(s, store=store_of(tmp_path, labels, STL10))
        rng = np.random.default_rng(0)
        animate = np.isin(labels, [1, 3, 4, 5, 6, 7])
        logits = rng.normal(size=(1200, 4))
        logits[:, 1] += 3 * animate
        of_class = rng.normal(size=(4, 10))[:, labels]  # classes differ, in other ways than by animacy
        s = with_activations(s, logits, (5 + of_class + rng.normal(size=(4, 1200)))[:, :, None])
        result = ask(AnimacyProbe(bootstrap=200), s, tmp_path / "a")
        rows = table(tmp_path / "a" / "animacy.csv")
        assert float(rows[1]["gate"]) == pytest.approx(3, abs=0.3)
        assert 2.5 < float(rows[1]["gate_low"]) < float(rows[1]["gate"]) < float(rows[1]["gate_high"])
        assert "animate: bird, cat, deer, dog, horse, monkey" in result.notes
        assert "p-values compare with all 210 divisions of the classes into kinds of these sizes" in result.notes
        assert result.numbers["gate_p"] == 1 / 210
        assert result.numbers["gate_clear"] == 1
        assert float(rows[1]["gate_p_adjusted"]) < 0.02
        assert result.numbers["readout_p"] > 0.05
        assert result.numbers["readout_clear"] == 0

    def test_a_class_that_no_images_have_is_refused(self, tmp_path):
        stores = [store_of(tmp_path, np.arange(10), STL10)]
        AnimacyProbe(animate=("Dog", "cat ")).check(stores)
        AnimacyProbe().check(stores)
        with pytest.raises(UserError, match='no class "dgo": did you mean "dog"'):
            AnimacyProbe(animate=("cat", "dgo")).check(stores)
        assert AnimacyProbe(animate=tuple(STL10)).skip(stores[0]) == "animacy.animate names none of its classes, or all"

    def test_too_few_classes_to_tell_are_said(self, tmp_path):
        result = ask(AnimacyProbe(bootstrap=5), example_subject(tmp_path), tmp_path / "a")
        assert result.numbers["gate_clear"] is None
        assert result.numbers["gate_p"] >= 1 / 3  # a division and its reverse are one
        assert "animacy cannot be told from other divisions: with 6 of them p is at least 0.17" in result.notes

    def test_without_divisions_there_is_no_p(self, tmp_path):
        result = ask(AnimacyProbe(bootstrap=0, divisions=0), example_subject(tmp_path), tmp_path / "a")
        assert "gate_p" not in result.numbers
        assert set(table(tmp_path / "a" / "animacy.csv")[0]) >= {"expert", "gate", "readout_low"}

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
