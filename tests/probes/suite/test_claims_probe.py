"""Claims on runs whose truth is planted, and on those that cannot answer them."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.planted import store, sweep
from moe.data.readers import no_progress
from probes.statistics.verdicts import Verdict
from probes.suite.claims_probe import MEASURES, ClaimsProbe
from probes.suite.claims_words import COLUMNS, NOT_ASKED, published_claim
from probes.suite.published import published_claims
from tests.probes.conftest import table

QUICK = {"permutations": 19, "halves": 8}


def asked(folder, subjects, **options):
    folder.mkdir()
    result = ClaimsProbe(**QUICK, **options).across_runs(subjects, folder, no_progress)
    return result, {row["claim"]: row for row in result.record["claims"]}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    subjects = sweep(folder)
    return subjects, folder / "found", *asked(folder / "found", subjects)


@pytest.mark.slow
class TestManyRuns:
    @pytest.mark.parametrize(
        "claim",
        [
            "gate_above_readout", "gate_readout_bent", "gate_readout_loose", "separability_of_images",
            "animacy_in_separability", "animacy_in_geometry", "two_clusters", "clusters_by_animacy",
            "clusters_in_every_run", "dimensions_beyond_categories_gate",
        ],
    )  # fmt: skip
    def test_what_is_planted_holds(self, planted, claim):
        row = planted[3][claim]
        assert row["verdict"] == Verdict.HOLDS, row["sentence"]
        low, high = row["region_low"], row["region_high"]
        assert row["low"] > (-np.inf if low is None else low)
        assert row["high"] < (np.inf if high is None else high)

    def test_numbers_files_and_sentences(self, planted):
        subjects, folder, result, rows = planted
        assert list(rows) == list(MEASURES) == list(published_claims())
        assert (result.numbers["two_clusters_holds"], rows["two_clusters"]["more"]["clusters"]) == (1, 2)
        assert rows["two_clusters"]["low"] <= rows["two_clusters"]["effect"] <= rows["two_clusters"]["high"]
        assert result.numbers["animacy_in_geometry_p"] == pytest.approx(1 / 210)
        assert [row["claim"] for row in table(folder / "claims.csv")] == list(MEASURES)
        assert tuple(table(folder / "claims.csv")[0]) == COLUMNS
        assert {p.name for p in folder.iterdir()} == {
            "claims.csv", "claims.png", "clusters.csv", "partition.csv", "runs.csv"
        }  # fmt: skip
        runs = [row for row in table(folder / "runs.csv") if row["claim"] == "gate_above_readout"]
        assert [row["run"] for row in runs] == [subject.run.id for subject in subjects]
        effects = np.array([float(row["effect"]) for row in runs])  # cells weigh the same
        assert result.numbers["gate_above_readout"] == pytest.approx(effects.reshape(2, 3).mean(), abs=1e-5)
        assert result.notes == [row["sentence"] for row in rows.values()]
        assert "the paper: 0.27 (Tables 1, S1)" in rows["gate_above_readout"]["sentence"]

    def test_clusters_are_named_by_their_members(self, planted):
        members = table(planted[1] / "clusters.csv")
        assert len(members) == 30
        preferring = {member["cluster"] for member in members if float(member["animacy"]) > 0}
        assert len(preferring) == 1
        assert all((float(m["animacy"]) > 0) == (int(m["expert"]) % 2 == 0) for m in members)

    def test_parts_of_variance_add_up(self, planted):
        for row in table(planted[1] / "partition.csv"):
            assert float(row["together"]) >= float(row["only_dimensions"]) - 0.1
        assert len(table(planted[1] / "partition.csv")) == 60

    def test_nothing_holds_where_nothing_is_true(self, tmp_path):
        _, rows = asked(tmp_path / "found", sweep(tmp_path, true=False))
        said = {claim: row["verdict"] for claim, row in rows.items()}
        assert Verdict.HOLDS not in said.values(), said
        assert list(said.values()).count(Verdict.FAILS) >= 5

    def test_nothing_holds_of_noise(self, tmp_path):
        rng = np.random.default_rng(1)
        subjects = sweep(tmp_path)
        noise = [
            replace(
                s,
                activations=replace(
                    s.activations,
                    logits_nE=rng.normal(size=(200, s.experts)).astype(np.float32),
                    readouts_EnD=rng.normal(size=(s.experts, 200, 8)).astype(np.float32),
                ),
            )
            for s in subjects
        ]
        _, rows = asked(tmp_path / "noise", noise)
        holds = {claim for claim, row in rows.items() if row["verdict"] == Verdict.HOLDS}
        assert holds <= {"gate_readout_loose", "separability_alike", "separability_of_images"}


@pytest.mark.slow
class TestWhatIsMissing:
    def test_one_run_cannot_tell_and_says_so(self, tmp_path):
        subject = sweep(tmp_path, experts=(4,))[0]
        (tmp_path / "one").mkdir()
        result = ClaimsProbe(**QUICK).run(subject, tmp_path / "one", no_progress)
        rows = result.record["claims"]
        assert {row["verdict"] for row in rows} == {Verdict.CANNOT_TELL, NOT_ASKED}
        assert "over images alone" in rows[0]["sentence"]
        assert "One run cannot tell over seeds: add seeds to the sweep's file" in rows[0]["sentence"]
        assert len(result.notes) == 1
        assert result.notes[0].startswith("one run has no verdicts, which are over seeds; `moe probe --sweep SWEEP`")

    def test_single_seeds_of_two_cells_cannot_tell_either(self, tmp_path):
        _, rows = asked(tmp_path / "found", sweep(tmp_path, experts=(4, 6)))
        assert rows["gate_above_readout"]["verdict"] == Verdict.CANNOT_TELL
        assert "Single seeds cannot tell over seeds" in rows["gate_above_readout"]["sentence"]

    def test_unrated_images(self, tmp_path):
        _, rows = asked(tmp_path / "found", sweep(tmp_path, experts=(4, 4), rated=False))
        for claim in ("gate_above_readout", "dimensions_beyond_categories_readout"):
            assert rows[claim]["verdict"] == NOT_ASKED
            assert "add `--images things` (`moe data import things FOLDER` brings them)" in rows[claim]["sentence"]
        assert rows["two_clusters"]["effect"] is not None

    def test_unlabelled_images(self, tmp_path):
        result, rows = asked(tmp_path / "found", sweep(tmp_path, experts=(4, 4), labelled=False))
        for claim in ("separability_alike", "animacy_in_geometry", "clusters_by_animacy"):
            assert rows[claim]["verdict"] == NOT_ASKED
            assert "add `--images stl10-labelled`" in rows[claim]["missing"]
            assert claim not in result.numbers
        assert rows["gate_above_readout"]["effect"] is not None

    def test_one_expert(self, tmp_path):
        _, rows = asked(tmp_path / "found", sweep(tmp_path, experts=(1, 1)))
        assert rows["separability_alike"]["missing"] == "no run has two living experts to compare"
        assert rows["two_clusters"]["missing"] == "to cluster experts 4 living ones are needed, here: 2"
        assert np.isfinite(rows["gate_above_readout"]["low"])

    def test_a_constant_gate(self, tmp_path):
        subjects = sweep(tmp_path, experts=(4, 4))
        same = [replace(s, activations=replace(s.activations, logits_nE=0 * s.activations.logits_nE)) for s in subjects]
        result, rows = asked(tmp_path / "found", same)
        assert (rows["gate_above_readout"]["effect"], rows["gate_above_readout"]["verdict"]) == (
            None, Verdict.CANNOT_TELL,
        )  # fmt: skip
        assert result.numbers["gate_above_readout_holds"] is None
        assert "No expert has both a gate and readouts that vary" in rows["gate_readout_bent"]["sentence"]

    def test_an_option_that_names_no_class_is_refused(self, tmp_path):
        from moe.errors import UserError

        with pytest.raises(UserError, match=r'claims\.animate: no class "cta"'):
            ClaimsProbe(animate=("cta",)).check([store(tmp_path, np.random.default_rng(0))])


def test_the_papers_value_is_that_of_its_tables():
    assert published_claim("gate_above_readout").value == pytest.approx((0.3368 + 0.3087 + 0.1636) / 3, abs=0.002)
    assert all(claim.place and claim.says for claim in published_claims().values())
