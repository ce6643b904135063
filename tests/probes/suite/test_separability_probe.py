"""Separability: what the probe makes of data whose answer is known, and of the bad cases of real data."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from probes.suite.separability_probe import SeparabilityProbe
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, store_of, with_activations


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
    @pytest.mark.slow
    def test_the_table_holds_what_scikit_learn_finds(self, tmp_path):
        s = example_subject(tmp_path)
        result = ask(SeparabilityProbe(grouped=True), s, tmp_path / "s")
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
        result = ask(SeparabilityProbe(), few, tmp_path / "s")
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
        ask(SeparabilityProbe(labels="manual"), replace(s, store=store), tmp_path / "s")
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
        numbers = ask(SeparabilityProbe(), s, tmp_path / "s").numbers
        assert numbers["highest_expert"] > 0.95
        assert numbers["lowest_expert"] < 0.65
        assert numbers["expert_pairs_that_differ"] == 1


@pytest.mark.slow
def test_the_literal_solver_is_scikit_learns_default(tmp_path):
    s = example_subject(tmp_path)
    rng = np.random.default_rng(0)
    wide = with_activations(s, s.activations.logits_nE, rng.normal(size=(4, 120, 40)) * np.geomspace(0.01, 30, 40))
    ask(SeparabilityProbe(solver="literal"), wide, tmp_path / "s")
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
