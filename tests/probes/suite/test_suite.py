"""What the probes make of data whose answer is known, and of the bad cases of real data."""

import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from callbacks.metrics import class_information, load_balance
from moe.data.readers import no_progress
from moe.data.store import Images, write_store
from probes.activations import Activations
from probes.statistics.resampling import bootstrap_counts
from probes.subject import Subject, evenly, rated_rows, representative_rows
from probes.suite.animacy_probe import AnimacyProbe
from probes.suite.coupling_probe import CouplingProbe
from probes.suite.exciting_probe import ExcitingProbe, overlap_p
from probes.suite.routing_probe import RoutingProbe, cv2_bootstrap, information_null, tsne
from probes.suite.separability_probe import SeparabilityProbe
from probes.suite.similarity_probe import SimilarityProbe
from probes.suite.tuning_probe import TuningProbe, profile_cosines
from probes.testing import example_subject
from tests.probes.conftest import table


def ask(probe, subject, folder):
    folder.mkdir(exist_ok=True)
    assert probe.skip(subject.store) is None
    return probe.run(subject, folder, no_progress)


def store_of(folder, labels, classes, groups=None, **more):
    n = len(labels)
    images = np.zeros((n, 16, 16, 3), np.uint8)
    content = Images(
        images, [f"i{k:04d}" for k in range(n)], "made", np.array(labels), tuple(classes), groups=groups, **more
    )
    return write_store("made", content, folder / "stores", replace=True)


def with_activations(subject, logits_nE, readouts_EnD):
    slots = min(2, logits_nE.shape[1])
    indices = np.argsort(-logits_nE, axis=1, kind="stable")[:, :slots]
    weights = np.full(indices.shape, 1 / slots, np.float32)
    found = Activations(logits_nE.astype(np.float32), indices, weights, readouts_EnD.astype(np.float32))
    return replace(subject, activations=found)


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

    def test_the_map_is_repeatable_and_keeps_groups_apart(self):
        rng = np.random.default_rng(0)
        logits = np.concatenate([rng.normal(m, 0.1, (40, 4)) for m in (0, 5)]).astype(np.float32)
        points = tsne(logits, 10, seed=0)
        np.testing.assert_array_equal(points, tsne(logits, 10, seed=0))
        within = np.ptp(points[:40], axis=0).max()
        assert np.linalg.norm(points[:40].mean(axis=0) - points[40:].mean(axis=0)) > within
        assert not tsne(np.ones((20, 4), np.float32), 5, seed=0).any()

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


class TestCoupling:
    def test_a_readout_that_follows_the_gate_is_coupled(self, tmp_path):
        s = example_subject(tmp_path)
        norms = 3 + s.activations.logits_nE.T / 10
        s = with_activations(s, s.activations.logits_nE, norms[:, :, None])
        numbers = ask(CouplingProbe(bootstrap=20), s, tmp_path / "c").numbers
        assert numbers["mean_pearson"] == pytest.approx(1, abs=1e-4)
        assert numbers["mean_r2_low"] == pytest.approx(1, abs=1e-3)


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


def reference_accuracy(Z, second, groups=None):
    """scikit-learn, one pair, written out."""
    splitter = StratifiedKFold(5, shuffle=True, random_state=0) if groups is None else StratifiedGroupKFold(
        5, shuffle=True, random_state=0)  # fmt: skip
    scores = []
    for train, test in splitter.split(Z, second, groups):
        model = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(Z[train].astype(float), second[train])
        scores.append(balanced_accuracy_score(second[test], model.predict(Z[test].astype(float))))
    return np.mean(scores)


class TestSeparability:
    def test_the_table_holds_what_scikit_learn_finds(self, tmp_path):
        s = example_subject(tmp_path)
        result = ask(SeparabilityProbe(grouped=True, bootstrap=50), s, tmp_path / "s")
        rows = table(tmp_path / "s" / "separability.csv")
        classes = list(s.store.manifest.classes)
        assert len(rows) == 4 * 6
        for row in rows:
            a, b = classes.index(row["class_a"]), classes.index(row["class_b"])
            mine = np.isin(s.store.labels_N, [a, b])
            Z, second = s.activations.readouts_EnD[int(row["expert"])][mine], s.store.labels_N[mine] == b
            assert float(row["balanced_accuracy"]) == pytest.approx(reference_accuracy(Z, second), abs=1e-5)
            grouped = reference_accuracy(Z, second, s.units[mine])
            assert float(row["balanced_accuracy_grouped"]) == pytest.approx(grouped, abs=1e-5)
        means = [
            np.mean([float(row[key]) for row in rows]) for key in ("balanced_accuracy", "balanced_accuracy_grouped")
        ]
        assert result.numbers["mean"] == pytest.approx(means[0], abs=1e-5)
        assert result.numbers["grouped_minus_image"] == pytest.approx(means[1] - means[0], abs=1e-5)

    def test_a_class_with_too_few_images_is_empty_and_counted(self, tmp_path):
        s = example_subject(tmp_path)
        labels = s.store.labels_N.copy()
        labels[np.flatnonzero(labels == 3)[4:]] = -1
        few = replace(s, store=store_of(tmp_path, labels, s.store.manifest.classes))
        result = ask(SeparabilityProbe(bootstrap=20), few, tmp_path / "s")
        assert "no result, fewer than 5 images: ship (4)" in result.notes
        assert result.numbers["undefined_pairs"] == 3
        rows = table(tmp_path / "s" / "separability.csv")
        assert all((row["balanced_accuracy"] == "") == ("ship" in (row["class_a"], row["class_b"])) for row in rows)
        assert {row["images_b"] for row in rows if row["class_b"] == "ship"} == {"4"}

    def test_animate_classes_come_first(self, tmp_path):
        s = example_subject(tmp_path)
        mixed = replace(s, store=store_of(tmp_path, s.store.labels_N, ["car", "cat", "ship", "bird"]))
        labels = SeparabilityProbe()._labels(mixed)
        assert (labels.names, labels.boundary) == (["cat", "bird", "car", "ship"], 2)
        assert [labels.names[c] for c in labels.labels_n[:4]] == ["car", "cat", "ship", "bird"]
        unknown = replace(s, store=store_of(tmp_path, s.store.labels_N, ["w", "x", "y", "z"]))
        assert SeparabilityProbe()._labels(unknown).boundary is None
        assert SeparabilityProbe(animate=("z",))._labels(unknown).names == ["z", "w", "x", "y"]

    def test_concepts_are_counted_where_images_have_them(self, tmp_path):
        labels, groups = [0, 0, 0, 1, 1, -1], ["a", "a", "b", "c", "c", "d"]
        s = replace(example_subject(tmp_path), store=store_of(tmp_path, labels, ["cat", "car"], groups))
        found = SeparabilityProbe()._labels(s)
        assert (found.concepts_C.tolist(), found.unit) == ([2, 1], "concepts")

    def test_other_labels_of_the_same_images(self, tmp_path):
        s = example_subject(tmp_path)
        other = (s.store.labels_N % 2, ("even", "odd"))
        store = store_of(tmp_path, s.store.labels_N, s.store.manifest.classes, labelings={"manual": other})
        ask(SeparabilityProbe(labels="manual", bootstrap=0), replace(s, store=store), tmp_path / "s")
        rows = table(tmp_path / "s" / "separability.csv")
        assert {(row["class_a"], row["class_b"]) for row in rows} == {("even", "odd")}
        assert 'no labels "manuel" (did you mean "manual"?)' in SeparabilityProbe(labels="manuel").skip(store)

    def test_what_it_cannot_use(self, tmp_path):
        assert "fewer than two" in SeparabilityProbe().skip(store_of(tmp_path, [0, 0, -1], ["a", "b"]))
        assert "1,830 pairs" in SeparabilityProbe().skip(store_of(tmp_path, range(61), [f"c{k}" for k in range(61)]))
        assert "no groups" in SeparabilityProbe(grouped=True).skip(store_of(tmp_path, [0, 1], ["a", "b"]))

    def test_a_better_expert_is_told_from_a_worse_one(self, tmp_path):
        s = example_subject(tmp_path, experts=2)
        rng = np.random.default_rng(0)
        good = 4 * np.eye(4)[s.store.labels_N] + rng.normal(size=(120, 4))
        s = with_activations(s, s.activations.logits_nE, np.stack([good, rng.normal(size=(120, 4))]))
        numbers = ask(SeparabilityProbe(bootstrap=200), s, tmp_path / "s").numbers
        assert numbers["highest_expert"] > 0.95
        assert numbers["lowest_expert"] < 0.65
        assert numbers["expert_pairs_that_differ"] == 1


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
    def test_planted_kinds_are_found_at_the_right_k_across_runs_of_mixed_size(self, tmp_path):
        subjects = kinds_of_experts(tmp_path, [4, 4, 6], dead=(1,))
        folder = tmp_path / "s"
        folder.mkdir()
        result = SimilarityProbe(draws=4).across_runs(subjects, folder, no_progress)
        numbers = result.numbers
        assert (numbers["experts"], numbers["dead_experts"], numbers["clusters"]) == (13, 1, 2)
        assert (numbers["stability"], numbers["same_number_of_clusters"]) == (1.0, 1.0)
        assert abs(numbers["rand_with_runs"]) < 0.2  # each kind occurs in each run
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

    def test_one_run_works(self, tmp_path):
        result = ask(SimilarityProbe(draws=2), kinds_of_experts(tmp_path, [4])[0], tmp_path / "s")
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
        from probes.suite.similarity_probe import Member

        subjects = kinds_of_experts(tmp_path, [4, 4, 4])
        members = [Member(s, e) for s in subjects for e in range(4)]
        places = np.array([0, 2, 4, 6, 8, 10])
        assert SimilarityProbe(shown=4)._spread(members, places) == [0, 4, 8, 2]


def test_rows_to_look_at(tmp_path):
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert evenly(9, 3).tolist() == [0, 4, 8]
    factors = np.full((6, 2), np.nan, np.float32)
    factors[[1, 2, 5]] = 1
    rated = store_of(tmp_path, [0] * 6, ["a"], factors_NF=factors, factors=("x", "y"))
    assert rated_rows(rated).tolist() == representative_rows(rated).tolist() == [1, 2, 5]
    assert representative_rows(rated, 2).tolist() == [1, 5]
    assert representative_rows(store_of(tmp_path, [0] * 6, ["a"]), 2).tolist() == [0, 5]


def test_a_subject_knows_its_dead_experts_and_units(tmp_path):
    s = example_subject(tmp_path, dead=(0, 3))
    assert s.dead() == [0, 3]
    assert isinstance(s, Subject)
    assert np.unique(s.units).tolist() == list(range(60))
    assert s.title == f"run {s.run.id}"
    assert replace(s, epoch=3).title == f"run {s.run.id} after epoch 3"


def test_the_literal_solver_is_scikit_learns_default(tmp_path):
    s = example_subject(tmp_path)
    rng = np.random.default_rng(0)
    wide = with_activations(s, s.activations.logits_nE, rng.normal(size=(4, 120, 40)) * np.geomspace(0.01, 30, 40))
    ask(SeparabilityProbe(solver="literal", bootstrap=0), wide, tmp_path / "s")
    rows = table(tmp_path / "s" / "separability.csv")
    classes = list(s.store.manifest.classes)
    for row in rows[::5]:
        a, b = classes.index(row["class_a"]), classes.index(row["class_b"])
        mine = np.isin(s.store.labels_N, [a, b])
        Z, second = wide.activations.readouts_EnD[int(row["expert"])][mine], s.store.labels_N[mine] == b
        scores = []
        for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(Z, second):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = LogisticRegression().fit(Z[train].astype(float), second[train])
            scores.append(balanced_accuracy_score(second[test], model.predict(Z[test].astype(float))))
        assert float(row["balanced_accuracy"]) == pytest.approx(np.mean(scores), abs=1e-5)
