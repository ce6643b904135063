"""`moe probe --model FILE.py:FACTORY`: the same numbers as of a run, results where they are found again."""

import json
import sys

import numpy as np
import pytest

from moe.data.datasets import open_store
from moe.data.readers import no_progress
from probes import probing
from probes.activations import activations
from probes.snapshots import final_snapshot
from sweeps.runs.foreign import foreign_runs
from sweeps.runs.store import RunStore
from sweeps.tracking import sync
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow

# a model of ours as somebody else would write it down
FILE = """
from pathlib import Path
from moe.export import load_model
from theirs import SHIFT

def build():
    model, card = load_model(Path("{folder}"))
    model.image_size, model.mean, model.sd = card.preparation
    readouts = model.all_readouts
    model.all_readouts = lambda x: readouts(x) + SHIFT
    {more}
    return model
"""
QUICK = ["coupling.bootstrap=10", "tuning.permutations=2", "geometry.permutations=2", "geometry.distances=[euclidean]",
         "geometry.measures=[spearman]"]  # fmt: skip


@pytest.fixture
def run(two_runs, monkeypatch):
    """A run of ours, and `net.py` in the working folder, which makes the same model."""
    monkeypatch.setenv("MOE_HOME", str(two_runs / "runs"))
    monkeypatch.setenv("MOE_DATA", str(two_runs / "data"))
    monkeypatch.chdir(two_runs)
    monkeypatch.syspath_prepend(two_runs)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    found = RunStore().run(tiny_config(seed=0).identity())
    (two_runs / "theirs.py").write_text("SHIFT = 0.0\n")
    write(found)
    return found


def write(run, more=""):
    (run.path.parents[1] / "net.py").write_text(FILE.format(folder=run.model, more=more))


def probe(*names, baselines=False, lines=None):
    return probing.probe_model(
        "net.py:build", None, names, ["tiny"], (lines if lines is not None else []).append, quick(names),
        baselines=baselines,
    )  # fmt: skip


def quick(names):
    return [option for option in QUICK if option.partition(".")[0] in names]


def test_the_numbers_are_those_of_the_same_model_as_a_run(run):
    names = ["routing", "tuning", "separability", "similarity"]
    ours = probing.probe_run(run.id, names, ["tiny"], lambda _line: None, quick(names))
    theirs = probe(*names)
    assert theirs["images"] == ours["images"]
    (kept,) = foreign_runs(RunStore())
    assert theirs["model"] == kept.id
    assert kept.about["model"] == "net.py:build"
    assert {(images, name.split("--")[0]) for images, name, _ in kept.probe_results()} == {("tiny", n) for n in names}
    for name in ("logits_nE", "readouts_EnD"):
        ours_, theirs_ = (np.load(one.activations("tiny") / f"{name}.npy") for one in (run, kept))
        np.testing.assert_array_equal(ours_, theirs_)


def test_baselines_are_those_that_the_model_tells_of(run):
    assert baselines_of(probe("separability", "coupling", baselines=True)) == {"embedding", "pixels", "random_router"}
    write(run, "model.shared_features = model.pooled_shared")
    told = probe("separability", baselines=True)
    ours = probing.probe_run(run.id, ["separability"], ["tiny"], lambda _line: None, baselines=True)
    assert told["images"] == ours["images"]
    assert baselines_of(told) == {"shared", "embedding", "pixels"}


def baselines_of(found):
    """The baselines in all results of a model."""
    files = (RunStore().root / "models" / found["model"] / "probes" / "tiny").glob("*/result.json")
    return {key.partition("/")[0] for file in files for key in json.loads(file.read_text()) if "/" in key}


def test_shared_features_are_a_reference_where_they_are_told(run):
    lines: list[str] = []
    found = probe("geometry", lines=lines)["images"]["tiny"]["geometry"]
    assert "pixels" in found
    assert "shared" not in found
    assert any("shared features are left out" in line for line in lines)
    write(run, "model.shared_features = model.pooled_shared")
    assert "shared" in probe("geometry")["images"]["tiny"]["geometry"]


def test_activations_are_reused_unless_code_beside_the_file_has_changed(run, monkeypatch):
    lines: list[str] = []
    first, again = probe("separability", lines=lines), probe("separability", lines=lines)
    assert first == again
    said = [line for line in lines if ": activations " in line]
    assert [line.endswith("activations reused") for line in said] == [False, True]
    monkeypatch.setattr(sys.modules["theirs"], "SHIFT", 3.0)  # as a new process would find it
    changed = probe("separability", lines=lines)
    assert changed["model"] == first["model"]
    assert [line.endswith("activations reused") for line in lines if ": activations " in line] == [False, True, False]
    readouts = np.load(RunStore().root / "models" / first["model"] / "activations/tiny/readouts_EnD.npy")
    ours, _ = activations(final_snapshot(run), open_store("tiny"), no_progress)
    np.testing.assert_allclose(readouts, ours.readouts_EnD + 3, atol=1e-5)


def test_results_are_in_the_tracker_also_after_an_offline_session(run, wandb_server, monkeypatch):
    found = probe("separability")
    there = wandb_server.run(found["model"])
    assert (there.state, there.job_type) == ("finished", "probe")
    assert there.config["model"] == "net.py:build"
    mean = found["images"]["tiny"]["separability"]["mean"]
    assert there.summary["probe/tiny/separability/mean"] == pytest.approx(mean)
    assert sync.waiting(RunStore()) == []
    monkeypatch.setenv("WANDB_MODE", "offline")
    again = probe("coupling")
    (waiting,) = sync.waiting(RunStore())
    assert waiting.id == again["model"] == found["model"]
    monkeypatch.setenv("WANDB_MODE", "online")
    assert sync.sync([waiting], lambda _line: None) == []
    assert sync.waiting(RunStore()) == []
    (label,) = {name for images, name, _ in waiting.probe_results() if name.startswith("coupling")}
    mean = again["images"]["tiny"]["coupling"]["mean_pearson"]
    assert there.summary[f"probe/tiny/{label}/mean_pearson"] == pytest.approx(mean)
    assert wandb_server.artifact(f"{waiting.id}-tiny-separability:latest").run is there


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "net.py:build"], "say on what images to probe the model: --images NAME"),
        (["--model", "net.py:build", "--run", "ab"], "one of them"),
        (["--model", "net.py:build", "--images", "tiny", "--epochs"], "--epochs is for runs"),
        (["--model", "net.py:biuld", "--images", "tiny"], 'did you mean "build"?'),
        (["--model", "net.py:build", "--images", "tinny"], 'no images named "tinny"'),
        (["--model", "net.py:build", "--images", "tiny", "--weights", "no.st"], "no.st does not exist"),
        (["--weights", "a.safetensors", "--run", "ab"], "--weights is for --model"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_code_2(moe, run, words, said):
    code, out, err = moe("probe", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
