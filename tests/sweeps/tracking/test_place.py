"""Where the runs of a sweep go in W&B, on every path that leads to one: as the sweep says."""

import pytest

from moe.config import from_flat
from probes.probing import probe_run, probe_sweep
from sweeps.launching import plan, register_planned
from sweeps.runs.store import RunStore
from sweeps.tracking.results import publish_findings
from sweeps.tracking.sync import sync, waiting
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_config, tiny_store
from tests.wandb_server.faults import Fault

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_server")]


def silent(_line):
    return None


@pytest.fixture
def planned(isolated):
    """Two seeds, for another entity and project than the environment's."""
    tiny_store()
    lines = ["name: little", "entity: team", "project: vision", "method: grid", "parameters:"]
    lines += ["  seed: {values: [0, 1]}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in (TINY | {"train.epochs": 1}).items()]
    (isolated / "little.yaml").write_text("\n".join(lines) + "\n")
    return plan(str(isolated / "little.yaml"), {})


@pytest.fixture
def sweep(planned):
    return register_planned(*planned)


def trained(sweep):
    return [train(tiny_config(seed=seed, train__epochs=1), group=sweep.name, report=silent) for seed in range(2)]


def check_lineage(server, sweep, runs):
    """All lie in the sweep's project; the analysis is made from the models, and so is what probes found."""
    there = server.state.runs.values()
    assert {(run.entity, run.project, run.group) for run in there} == {("team", "vision", "little")}
    (analysis,) = [run for run in there if run.job_type == "analysis"]
    assert (analysis.tags, analysis.state, analysis.history) == (["tiny", "little"], "finished", [])
    assert analysis.summary["probe/tiny/similarity/experts"] == 8
    assert analysis.summary["probe/tiny/similarity/figures/similarity"]["_type"] == "image-file"
    for run in runs:
        mine = server.run(run.id, project="vision", entity="team")
        assert (mine.series("epoch"), mine.state) == ([0, 1], "finished")
        used_by = server.artifact(f"model-{run.id}:last", project="vision", entity="team").used_by
        assert {one.name for one in used_by} == {analysis.name, run.id}
        for name in (f"activations-{run.id}-tiny", f"probe-{run.id}-tiny-similarity"):
            assert server.artifact(f"{name}:latest", project="vision", entity="team")
    assert server.artifact(f"{analysis.name}-similarity:latest", project="vision", entity="team").run is analysis


def test_a_sweep_of_the_local_queue_and_its_analysis_lie_where_its_file_says(wandb_server, sweep, monkeypatch, capsys):
    runs = trained(sweep)
    fault = wandb_server.faults.add(Fault("status", "CreateArtifact", status=404, count=20))
    probe_run(runs[0].id, ["similarity"], ["tiny"], silent)
    wandb_server.faults.remove(fault)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert f"2 artifacts (activations-{runs[0].id}-tiny, ...)" in said  # and tables, which travel in the same way
    probe_sweep(sweep.name, ["similarity"], ["tiny"], silent)
    assert [place.id for place in waiting(RunStore())] == [runs[0].id]
    assert sync(waiting(RunStore()), silent) == []
    check_lineage(wandb_server, sweep, runs)
    # sent once more, equal results are no new version
    publish_findings(sweep.folder.analysis("tiny"))
    (analysis,) = [run for run in wandb_server.state.runs.values() if run.job_type == "analysis"]
    results = wandb_server.artifact(f"{analysis.name}-similarity:latest", project="vision", entity="team")
    assert len(results.collection.committed) == 1
    # on another machine
    monkeypatch.setenv("MOE_HOME", str(RunStore().root / "elsewhere"))
    probe_run(f"team/vision/{runs[0].id}", ["routing"], ["tiny"], silent)
    assert waiting(RunStore()) == []
    assert wandb_server.artifact(f"probe-{runs[0].id}-tiny-routing:latest", project="vision", entity="team")
    assert len(wandb_server.state.runs) == 3


def test_a_sweep_made_offline_has_its_lineage_after_sync(wandb_server, sweep, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        runs = trained(sweep)
        probe_sweep(sweep.name, ["similarity"], ["tiny"], silent)
    assert sync(waiting(RunStore()), silent) == []
    assert waiting(RunStore()) == []
    check_lineage(wandb_server, sweep, runs)


def test_a_trial_of_a_plain_agent_is_grouped_as_the_server_calls_its_sweep(wandb_server, planned, monkeypatch):
    sweep = register_planned(*planned, "wandb")
    assert sweep.address.startswith("team/vision/")
    for name, value in (("ENTITY", "team"), ("PROJECT", "vision"), ("RUN_ID", "handed"),
                        ("SWEEP_ID", sweep.address.rsplit("/", 1)[1])):  # fmt: skip
        monkeypatch.setenv(f"WANDB_{name}", value)  # as `wandb agent` does
    train(from_flat(sweep.cells[0].values), report=silent)
    there = wandb_server.run("handed", project="vision", entity="team")
    assert (there.state, there.group, there.tags) == ("finished", "little", ["E4", "tiny", "little"])
