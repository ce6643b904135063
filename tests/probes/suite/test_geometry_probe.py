"""Geometry: planted references are found, what the user brings is matched, clusters are compared over measures."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from moe.errors import UserError
from probes.drawing.geometry import matched_codes
from probes.registry import chosen
from probes.statistics.references import noise_ceiling
from probes.statistics.similarity import second_order
from probes.suite.geometry_probe import GeometryProbe
from probes.testing import example_subject
from tests.probes.conftest import table
from tests.probes.suite.made import ask, with_activations

pytestmark = pytest.mark.slow

QUICK = {"permutations": 19, "distances": ("euclidean",)}


def units_of(subject):
    """Rows of the images: the first of each concept, of which the example has two images each."""
    return np.arange(0, len(subject.store), 2)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Three runs, the third with six experts, and a matrix of three subjects: results of all together."""
    folder = tmp_path_factory.mktemp("geometry")
    rng = np.random.default_rng(0)
    subjects = []
    for seed, experts in enumerate((4, 4, 6)):
        s = example_subject(folder / str(seed), experts=experts, seed=seed)
        ratings = s.store.factors_NF
        readouts = np.stack([
            ratings @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + (0.1 if e % 2 else 2.0) * rng.normal(size=(120, 3))
            for e in range(experts)
        ])  # fmt: skip
        if seed == 0:
            readouts[1] = 7.0
        subjects.append(with_activations(s, s.activations.logits_nE, readouts))
    rated = subjects[0].store.factors_NF
    brains = np.stack([squareform(pdist(rated + rng.normal(size=rated.shape))) for _ in range(3)])
    np.save(folder / "brains.npy", brains)
    out = folder / "out"
    out.mkdir()
    steps = []
    probe = GeometryProbe(permutations=19, rdm=(str(folder / "brains.npy"),))
    result = probe.across_runs(subjects, out, lambda *at: steps.append(at))
    assert steps[-1][0] == steps[-1][1]
    return result, out, subjects, brains


def test_every_expert_stands_beside_every_reference(found):
    result, out, subjects, _ = found
    rows = table(out / "reference_similarity.csv")
    kinds = {(row["reference"], row["distance"], row["measure"]) for row in rows}
    assert len(kinds) == 3 * 9 + 3  # dimensions, categories, other seeds by nine; the matrix by Spearman alone
    assert {row["reference"] for row in rows} == {"dimensions", "categories", "rdm_brains", "other_seeds"}
    mine = [row for row in rows if (row["reference"], row["measure"]) == ("dimensions", "spearman")]
    assert len(mine) == 3 * 13  # one expert of 14 is dead
    assert result.notes[0] == f"dead expert 1 of run {subjects[0].run.id}: the same readout for all images"
    images = units_of(subjects[0])
    for row in mine:
        s = next(s for s in subjects if s.run.id == row["run"])
        readout = s.activations.readouts_EnD[int(row["expert"])][images]
        kind = {"euclidean": "euclidean", "unit_length": "cosine", "correlation": "correlation"}[row["distance"]]
        slow = spearmanr(pdist(readout, kind), pdist(subjects[0].store.factors_NF[images], kind)).statistic
        assert float(row["value"]) == pytest.approx(slow, abs=2e-6)
        assert (row["low"] == "") == (row["distance"] != "euclidean") == (row["p"] == "")
    euclidean = [row for row in mine if row["distance"] == "euclidean"]
    near, far = ([float(r["value"]) for r in euclidean if int(r["expert"]) % 2 == odd] for odd in (1, 0))
    assert min(near) > max(far)


def test_ceilings_are_between_seeds_and_between_subjects(found):
    result, out, subjects, brains = found
    rows = table(out / "reference_similarity.csv")
    images = units_of(subjects[0])
    fours = [
        s.activations.readouts_EnD[e][images] for s in subjects[:2] for e in range(4) if (s, e) != (subjects[0], 1)
    ]
    slow = noise_ceiling(second_order(fours), np.repeat([0, 1], [3, 4]))
    mine = [r for r in rows if (r["reference"], r["distance"], r["measure"]) == ("dimensions", "euclidean", "spearman")]
    np.testing.assert_allclose([float(r["ceiling_low"]) for r in mine if r["E"] == "4"], slow.low_S, rtol=1e-4)
    np.testing.assert_allclose([float(r["ceiling_high"]) for r in mine if r["E"] == "4"], slow.high_S, rtol=1e-4)
    assert all(r["ceiling_low"] == "" for r in mine if r["E"] == "6")  # one run alone
    between = noise_ceiling(np.array(spearmanr(np.stack([squareform(b) for b in brains]), axis=1).statistic))
    for row in rows:
        if row["reference"] == "rdm_brains":
            assert float(row["ceiling_low"]) == pytest.approx(between.low_S.mean(), rel=1e-4)
            assert float(row["ceiling_high"]) == pytest.approx(between.high_S.mean(), rel=1e-4)
        if row["measure"] == "procrustes":
            assert row["ceiling_low"] == ""
    assert result.numbers["rdm_brains_E4_ceiling_low"] == pytest.approx(between.low_S.mean(), abs=1e-6)


def test_the_value_of_several_subjects_is_their_mean(found):
    _, out, subjects, brains = found
    row = next(r for r in table(out / "reference_similarity.csv") if r["reference"] == "rdm_brains")
    readout = subjects[0].activations.readouts_EnD[0]
    slow = np.mean([spearmanr(pdist(readout), squareform(b)).statistic for b in brains])
    assert float(row["value"]) == pytest.approx(slow, abs=2e-6)
    assert float(row["low"]) < slow < float(row["high"])


def test_the_headline_and_the_figures(found):
    result, out, _, _ = found
    numbers = result.numbers
    assert (numbers["experts"], numbers["images"]) == (13, 60)
    for size in (4, 6):
        assert (
            numbers[f"dimensions_E{size}_low"] <= numbers[f"dimensions_E{size}"] <= numbers[f"dimensions_E{size}_high"]
        )
        assert numbers[f"dimensions_E{size}_p"] == 0.05
        assert {f"dimensions_E{size}_cka", f"dimensions_E{size}_procrustes"} <= numbers.keys()
    assert -1 <= numbers["clusters_agree_least"] <= numbers["clusters_agree"] <= 1
    names = {file.name for file in out.iterdir()}
    assert {"references.png", "references_by_measure.png", "references.csv", "reference_means.csv"} <= names
    assert {f"clusters_by_measure{suffix}.png" for suffix in ("", "_E4", "_E6")} <= names
    made = {row["reference"]: row for row in table(out / "references.csv")}
    assert (made["rdm_brains"]["subjects"], made["rdm_brains"]["images"]) == ("3", "120")
    assert len(made["rdm_brains"]["sha256"]) == 64
    measures = table(out / "clusters_by_measure.csv")
    assert len(measures) == 3 * 9
    assert measures[0]["rand_index"] == "1"
    assert len(table(out / "members_by_measure.csv")) == 9 * (13 + 7 + 6)


def test_one_run_alone(tmp_path):
    result = ask(GeometryProbe(**QUICK), example_subject(tmp_path), tmp_path / "out")
    assert {"dimensions", "dimensions_low", "dimensions_p", "categories_cka"} <= result.numbers.keys()
    assert "other_seeds" not in result.numbers
    assert "pixels and shared features are left out: the model is not at hand" in result.notes


def test_all_experts_dead(tmp_path):
    result = ask(GeometryProbe(**QUICK), example_subject(tmp_path, experts=2, dead=(0, 1)), tmp_path / "out")
    assert result.notes == ["dead experts 0, 1: the same readout for all images", "no living expert"]


def test_a_file_that_fits_no_images_is_refused_before_anything_runs_and_one_that_fits_some_is_noted(tmp_path):
    s = example_subject(tmp_path)
    np.save(tmp_path / "rdm.npy", squareform(pdist(np.random.default_rng(0).normal(size=(7, 2)))))
    probe = GeometryProbe(rdm=(str(tmp_path / "rdm.npy"),), **QUICK)
    with pytest.raises(UserError, match="has 7 rows and example has 120 images"):
        probe.check([s.store])
    result = ask(probe, s, tmp_path / "out")
    assert any(note.startswith("left out: ") and "has 7 rows" in note for note in result.notes)
    with pytest.raises(UserError, match="does not exist"):
        GeometryProbe(rdm=(str(tmp_path / "none.npy"),)).check([s.store])


def test_a_choice_of_measures(tmp_path):
    probe = chosen(["geometry"], ["geometry.measures=[cka]", "geometry.distances=[unit_length]"])["geometry"]
    result = ask(probe.model_copy(update={"permutations": 3}), example_subject(tmp_path), tmp_path / "out")
    assert result.numbers["dimensions_p"] >= 0.25
    assert "clusters_agree" not in result.numbers  # nothing to agree with
    with pytest.raises(UserError, match=r"geometry\.measures"):
        chosen(["geometry"], ["geometry.measures=[rv]"])


def test_colours_follow_the_clusters_of_the_first_measure():
    first, other = np.array([0, 0, 0, 1, 1, 2]), np.array([2, 2, 1, 0, 0, 3])
    assert matched_codes(first, other).tolist() == [0, 0, 3, 1, 1, 2]
