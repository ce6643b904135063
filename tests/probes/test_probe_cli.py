"""`moe probe` as a user meets it."""

import csv
import json

import numpy as np
import pytest

from moe.data.datasets import open_store
from probes.registry import PROBES
from sweeps import console
from tests.conftest import tiny_config
from tests.plugins import write_plugin


def test_the_list_has_every_probe_with_its_options(moe):
    code, out, _ = moe("probe", "--list")
    assert code == 0
    for name, probe in PROBES.usable().items():
        assert f"{probe.about}\n" in out
        for option in probe.model_fields:
            assert f"  {name}.{option}=" in out
    listed = json.loads(moe("probe", "--list", "--json")[1])
    assert [probe["name"] for probe in listed["probes"]] == list(PROBES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--probe", "tunning"], 'unknown probe "tunning": did you mean "tuning"?'),
        (["--set", "tuning.standardise=false"], 'did you mean "tuning.standardize"?'),
        (["--set", "exciting.count=0"], "exciting.count=0: input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2_before_anything_runs(moe, words, said):
    code, out, err = moe("probe", "--run", "no-such-run", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_json_is_one_document_and_nothing_else(moe, two_runs, monkeypatch):
    monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
    run_id = tiny_config(seed=0).identity()
    code, out, err = moe("probe", "--run", run_id[:8], "--probe", "exciting", "--set", "exciting.count=3", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["images"]["tiny"]["exciting"]["images"] == 120
    code, out, _ = moe("probe", "--run", run_id, "--probe", "exciting", "--set", "exciting.count=3")
    assert code == 0
    assert "exciting--count-3: images 120" in out


@pytest.mark.slow
def test_a_terminal_shows_progress(moe, two_runs, monkeypatch):
    monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
    monkeypatch.setattr(console.err, "_force_terminal", True)
    words = ["probe", "--run", tiny_config(seed=0).identity(), "--probe", "separability", "--probe", "coupling"]
    code, _, err = moe(*words)
    assert code == 0
    assert "activations of 120 images" in err
    assert "separability on tiny" in err
    assert "4/4" in err


@pytest.mark.slow
def test_a_bad_rdm_is_one_sentence_and_code_2(moe, two_runs, monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
    np.save(tmp_path / "brain.npy", np.arange(36.0).reshape(6, 6) * (1 - np.eye(6)))
    words = ["probe", "--run", tiny_config(seed=0).identity(), "--probe", "geometry", "--rdm"]
    for file, said in (("brain.npy", "is not symmetric"), ("none.npy", "does not exist")):
        code, out, err = moe(*words, str(tmp_path / file))
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_an_rdm_of_ones_own_beside_the_experts(moe, two_runs, monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
    monkeypatch.chdir(tmp_path)
    ids, places = open_store("tiny").ids[:20], np.arange(20.0)
    rows = [",".join(["", *ids, "stranger"])]
    rows += [",".join([name, *(str(abs(a - b)) for b in places), "9"]) for name, a in zip(ids, places, strict=True)]
    rows.append(",".join(["stranger", *["9"] * 20, "0"]))
    (tmp_path / "brain.csv").write_text("\n".join(rows))
    run_id = tiny_config(seed=0).identity()
    words = ["--probe", "geometry", "--set", "geometry.permutations=3", "--set", "geometry.distances=[euclidean]"]
    code, out, err = moe("probe", "--run", run_id, *words, "--rdm", "brain.csv")
    assert (code, err) == (0, "")
    assert "rdm_brain " in out
    assert "brain: 1 name left out, no image of tiny: stranger" in out
    (folder,) = (two_runs / "runs" / run_id / "probes" / "tiny").glob("geometry--*")
    with (folder / "references.csv").open() as file:
        made = {row["reference"]: row for row in csv.DictReader(file)}
    assert made["rdm_brain"]["images"] == "20"
    assert {"dimensions", "categories", "pixels", "shared"} <= made.keys()


def test_a_broken_plugin_is_listed_with_its_reason(moe, monkeypatch, tmp_path):
    entries = {"moe.probes": {"theirs": "not_there:Probe"}}
    monkeypatch.syspath_prepend(str(write_plugin(tmp_path / "site", {}, entries)))
    PROBES.forget()
    code, out, _ = moe("probe", "--list")
    monkeypatch.undo()
    PROBES.forget()
    assert code == 0
    assert "theirs: cannot be loaded: not_there:Probe of their-package: ModuleNotFoundError" in out
