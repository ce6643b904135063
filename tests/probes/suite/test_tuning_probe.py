"""Tuning: what the probe makes of data whose answer is known, and of the bad cases of real data."""

from dataclasses import replace

import numpy as np
import pytest

from moe.data.store import Images, write_store
from probes.suite.published import published_tuning
from probes.suite.tuning_probe import TuningProbe, profile_cosines
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, store_of, with_activations


class TestTuning:
    def test_simulated_tunings_to_the_66_dimensions_are_recovered(self, tmp_path, shared_data):
        """The real ratings of all 1,854 concepts; responses that are known mixtures of few of them, plus noise."""
        ratings = np.maximum(np.loadtxt(shared_data / "things" / "spose_embedding_66d_sorted.txt"), 0)
        names = (shared_data / "things" / "labels_66.txt").read_text().splitlines()
        rng = np.random.default_rng(0)
        chosen = [rng.choice(66, 3, replace=False) for _ in range(4)]
        z = (ratings - ratings.mean(axis=0)) / ratings.std(axis=0)
        clean = np.stack([z[:, dims] @ [0.5, 0.3, 0.2] for dims in chosen], axis=1)
        responses = clean + clean.std(axis=0) * rng.normal(size=clean.shape)  # r2 of the truth: 0.5
        store = store_of(tmp_path, [-1] * 1854, [], factors_NF=ratings.astype(np.float32), factors=tuple(names))
        s = replace(example_subject(tmp_path, experts=2), store=store)
        s = with_activations(s, responses[:, :2], 10 + responses.T[2:, :, None])
        result = ask(TuningProbe(permutations=0), s, tmp_path / "t")
        sd = responses.std(axis=0)
        for row, dims, scale in zip(table(tmp_path / "t" / "tuning.csv"), chosen, sd, strict=True):
            assert [row[f"dimension_{k}"] for k in (1, 2, 3)] == [names[d].strip() for d in dims]
            weights = [float(row[f"weight_{k}"]) * scale for k in (1, 2, 3)]
            assert weights == pytest.approx([0.5, 0.3, 0.2], abs=0.06)  # the penalty shrinks them a little
            assert float(row["r2_mean"]) == pytest.approx(0.5, abs=0.06)
        assert result.numbers["dead_targets"] == 0

    def test_a_dead_expert_is_listed_and_has_no_r2(self, tmp_path):
        result = ask(TuningProbe(permutations=2), example_subject(tmp_path, dead=(1,)), tmp_path / "t")
        rows = table(tmp_path / "t" / "tuning.csv")
        assert [row["r2_mean"] == "" for row in rows] == [False] * 5 + [True] + [False] * 2
        assert rows[5]["dead"] == "1"
        assert "dead, the same response to all images: readout of expert 1" in result.notes

    def test_cosines_by_hand(self):
        found = profile_cosines(
            np.array([[1.0, 0, 0], [1.0, 1, 0], [0, 0, 0]]), np.array([[2.0, 0, 0], [0, 0, 3.0], [1, 1, 0]])
        )
        assert found[0].tolist() == pytest.approx([1, 0, 0.5**0.5])
        assert found[1].tolist() == pytest.approx([0.5**0.5, 0, 1])
        assert np.isnan(found[2]).all()

    def test_notes_of_the_images_are_passed_on(self, tmp_path):
        s = example_subject(tmp_path)
        noted = replace(s, store=write_store("made", Images(
            s.store.images_NHWC, s.store.ids, "x", factors_NF=s.store.factors_NF, factors=("a", "b", "c"),
            notes=("46 negative embedding entries set to 0",)), tmp_path / "stores"))  # fmt: skip
        assert (
            ask(TuningProbe(permutations=0), noted, tmp_path / "t").notes[0] == "46 negative embedding entries set to 0"
        )

    def test_both_readings_stand_beside_the_papers_magnitudes(self, tmp_path):
        s = example_subject(tmp_path)
        numbers = ask(TuningProbe(permutations=0), s, tmp_path / "z").numbers
        raw = ask(TuningProbe(permutations=0, standardize=False), s, tmp_path / "raw").numbers
        assert numbers["gate_r2_raw_units"] == raw["gate_r2"]
        assert raw["readout_r2_standardised"] == numbers["readout_r2"]
        rows = {(row["reading"], row["target"], row["experts"]): row for row in table(tmp_path / "z" / "readings.csv")}
        assert rows.keys() >= {("standardised", "gate", "4"), ("raw units", "readout", "4")}
        assert float(rows["standardised", "gate", "4"]["r2_mean"]) == pytest.approx(numbers["gate_r2"], rel=1e-4)
        paper = rows["Table 1 of the paper", "gate", "4"]
        assert [float(paper[f"r2_{end}"]) for end in ("mean", "lowest", "highest")] == [0.49, 0.416, 0.538]
        assert float(paper["largest_weight_highest"]) == 0.496
        assert ("Table S1 of the paper", "readout", "16") in rows

    def test_how_often_a_dimension_is_chosen(self, tmp_path):
        s = example_subject(tmp_path)
        ask(TuningProbe(permutations=3), s, tmp_path / "t")
        rows = table(tmp_path / "t" / "selection.csv")
        assert [(row["target"], row["over"]) for row in rows] == [
            (target, over) for target in ("gate", "readout") for _ in range(4) for over in ("folds", "permutations")
        ]
        assert {float(row["animate"]) * 5 % 1 for row in rows if row["over"] == "folds"} == {0.0}
        assert all(0 <= float(row["chance"]) <= 1 for row in rows)


def test_the_papers_tables_are_complete():
    rows = published_tuning()
    assert [(row.target, row.experts, row.expert) for row in rows] == [
        (target, E, expert) for E in (4, 8, 16) for target in ("gate", "readout") for expert in range(E)
    ]
    assert {len(row.top) for row in rows if row.experts == 4} == {3}
    assert {len(row.top) for row in rows if row.experts > 4} == {5}
    for row in rows:
        weights = [weight for _, weight in row.top]
        assert weights == sorted(weights, reverse=True)
        assert 0 < row.r2 < 1
    assert rows[1].top[0] == ("animal-related", 0.496)
