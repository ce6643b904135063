"""Similarity: what the probe makes of data whose answer is known, and of the bad cases of real data."""

import numpy as np
import pytest

from moe.data.readers import no_progress
from probes.suite.similarity_probe import SimilarityProbe, spread_over_runs
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, with_activations


def kinds_of_experts(tmp_path, runs, noise=0.2, dead=()):
    """Runs whose experts are of two kinds, alternating; geometries shared within a kind, rotated at random."""
    rng = np.random.default_rng(0)
    n = 120
    kinds = [rng.normal(size=(n, 5)) for _ in range(2)]
    subjects = []
    for seed, experts in enumerate(runs):
        s = example_subject(tmp_path / str(seed), experts=experts, seed=seed)
        readouts = np.stack([
            kinds[e % 2] @ np.linalg.qr(rng.normal(size=(5, 5)))[0] * (1 + e) + noise * rng.normal(size=(n, 5))
            for e in range(experts)
        ])  # fmt: skip
        if seed == 0:
            readouts[list(dead)] = 3.0
        subjects.append(with_activations(s, s.activations.logits_nE, readouts))
    return subjects


class TestSimilarity:
    @pytest.mark.slow
    def test_planted_kinds_are_found_at_the_right_k_across_runs_of_mixed_size(self, tmp_path):
        subjects = kinds_of_experts(tmp_path, [4, 4, 6], dead=(1,))
        folder = tmp_path / "s"
        folder.mkdir()
        result = SimilarityProbe(draws=4, permutations=199).across_runs(subjects, folder, no_progress)
        numbers = result.numbers
        assert (numbers["experts"], numbers["dead_experts"], numbers["clusters"]) == (13, 1, 2)
        assert (numbers["stability"], numbers["same_number_of_clusters"]) == (1.0, 1.0)
        assert (numbers["clusters_E4"], numbers["clusters_E6"]) == (2, 2)
        assert numbers["silhouette_p"] == 0.005
        assert numbers["silhouette_null"] < numbers["silhouette"]
        assert numbers["silhouette_E4_p"] <= 0.05
        assert numbers["silhouette_within_runs_p"] <= 0.01
        assert numbers["silhouette_within_runs_null"] < numbers["silhouette_within_runs"]
        assert numbers["runs_in_every_cluster_E4"] == 1.0  # each kind occurs in each run
        assert "runs_in_every_cluster_E6" not in numbers  # of one run there is nothing to say
        assert numbers["mean_similarity_low"] < numbers["mean_similarity"] < numbers["mean_similarity_high"]
        assert result.notes == [f"dead expert 1 of run {subjects[0].run.id}: the same readout for all images"]
        members = table(folder / "members.csv")
        assert all(int(m["cluster"]) == int(m["expert"]) % 2 for m in members)
        assert [(m["run"], m["experts"]) for m in members] == [
            (s.run.id, str(s.experts)) for s in subjects for e in range(s.experts) if (s, e) != (subjects[0], 1)
        ]
        # each E alone too, with tables that tell them apart
        assert {row["experts"] for row in table(folder / "silhouette.csv")} == {"all", "E = 4", "E = 6"}
        assert all((m["cluster_E4"] == "") == (m["experts"] == "6") for m in members)
        names = {file.name for file in folder.iterdir()}
        for stem in ("similarity", "clusters", "cluster_images"):
            assert {f"{stem}.png", f"{stem}_E4.png", f"{stem}_E6.png"} <= names

    @pytest.mark.slow
    def test_clusters_that_are_runs_are_told_from_motifs(self, tmp_path):
        """Two clusters of two whole runs each, of either E: no run has experts in both."""
        rng = np.random.default_rng(0)
        kinds = [rng.normal(size=(120, 5)) for _ in range(2)]
        subjects = []
        for seed, experts in enumerate([4, 4, 4, 4, 6, 6, 6, 6]):
            s = example_subject(tmp_path / str(seed), experts=experts, seed=seed)
            readouts = np.stack([kinds[seed % 2] + 0.2 * rng.normal(size=(120, 5)) for _ in range(experts)])
            subjects.append(with_activations(s, s.activations.logits_nE, readouts))
        folder = tmp_path / "s"
        folder.mkdir()
        numbers = SimilarityProbe(draws=0, permutations=199).across_runs(subjects, folder, no_progress).numbers
        for E in (4, 6):
            assert numbers[f"runs_in_every_cluster_E{E}"] == 0.0
            assert numbers[f"runs_in_every_cluster_E{E}_null"] > 0.7
            assert numbers[f"runs_in_every_cluster_E{E}_p_fewer"] <= 0.01
            assert numbers[f"runs_in_every_cluster_E{E}_p_more"] == 1.0
        assert numbers["silhouette_p"] == 0.005
        assert numbers["silhouette_within_runs_p"] > 0.05  # each run is one cloud
        counts = [int(row["experts_in_cluster"]) for row in table(folder / "recurrence.csv")]
        assert sorted(counts) == [0] * 8 + [4] * 4 + [6] * 4

    @pytest.mark.slow
    def test_two_runs_cannot_tell_how_far_the_mean_hangs_on_the_run(self, tmp_path):
        folder = tmp_path / "s"
        folder.mkdir()
        result = SimilarityProbe(draws=0, permutations=9).across_runs(
            kinds_of_experts(tmp_path, [4, 4]), folder, no_progress
        )
        assert result.numbers["mean_similarity_low"] is None
        assert "no interval of mean_similarity: 3 runs are needed to tell how far it hangs on the run" in result.notes

    @pytest.mark.slow
    def test_clusters_of_experts_that_have_none_are_not_clear(self, tmp_path):
        """The silhouette names a number all the same."""
        rng = np.random.default_rng(0)
        subject = example_subject(tmp_path / "run", experts=12)
        readouts = rng.normal(size=(120, 5)) + rng.normal(size=(12, 120, 5))
        subject = with_activations(subject, np.zeros((120, 12)), readouts)
        numbers = ask(SimilarityProbe(draws=0, permutations=99), subject, tmp_path / "s").numbers
        assert numbers["clusters"] >= 2
        assert numbers["silhouette_p"] > 0.05

    def test_three_experts_cannot_tell_whether_there_are_clusters(self, tmp_path):
        numbers = ask(SimilarityProbe(draws=0), example_subject(tmp_path, experts=3), tmp_path / "s").numbers
        assert (numbers["clusters"], numbers["silhouette_null"], numbers["silhouette_p"]) == (2, None, None)

    def test_one_run_works(self, tmp_path):
        result = ask(SimilarityProbe(draws=2, permutations=9), kinds_of_experts(tmp_path, [4])[0], tmp_path / "s")
        assert result.numbers["clusters"] == 2

    @pytest.mark.parametrize(("experts", "dead"), [(1, ()), (2, ()), (4, (0, 2))])
    def test_too_few_experts_to_cluster_is_said(self, tmp_path, experts, dead):
        result = ask(SimilarityProbe(), example_subject(tmp_path, experts=experts, dead=dead), tmp_path / "s")
        living = experts - len(dead)
        assert f"{living} living experts are too few to cluster; 3 are needed" in result.notes
        assert "clusters" not in result.numbers
        assert (result.numbers["mean_similarity"] is None) == (living < 2)

    def test_no_more_clusters_are_tried_than_experts_allow(self, tmp_path):
        ask(SimilarityProbe(draws=0), example_subject(tmp_path, experts=3), tmp_path / "s")
        assert [row["clusters"] for row in table(tmp_path / "s" / "silhouette.csv")] == ["2"]

    def test_pictures_come_from_different_runs(self, tmp_path):
        runs = [s.run.id for s in kinds_of_experts(tmp_path, [4, 4, 4]) for _ in range(4)]
        places = np.array([0, 2, 4, 6, 8, 10])
        assert spread_over_runs(runs, places)[:4] == [0, 4, 8, 2]
