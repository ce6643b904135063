"""A probe adds to a run of the tracker and changes nothing else of it, however the probe ends."""

import copy
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
import wandb

from moe.config import from_flat
from probes.failures import ProbesFailedError
from probes.probing import probe_run
from probes.suite.routing_probe import RoutingProbe
from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue, open_sweep
from sweeps.queue.server import prepare
from sweeps.runs.store import RunStore
from sweeps.tracking.record import Record, Remote
from sweeps.tracking.sync import sync, waiting
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_server")]

SITE = Path(__file__).parents[1] / "faults" / "site"


def silent(_line):
    return None


def test_ctrl_c_in_a_probe_leaves_the_run_finished_and_what_was_found_to_sync(
    wandb_server, trained, monkeypatch, capsys
):
    there = wandb_server.run(trained.id)
    before = len(there.upserts)

    def interrupted(self, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RoutingProbe, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            probe_run(trained.id, ["coupling", "routing"], ["tiny"], silent)
    assert (there.state, there.exit_code, len(there.upserts)) == ("finished", 0, before)
    assert "results so far were not sent; `moe runs sync` completes" in capsys.readouterr().err
    assert [run.id for run in waiting(RunStore())] == [trained.id]
    assert sync([trained], silent) == []
    found = {name: result for _, name, result in trained.probe_results()}["coupling"]
    assert there.summary["probe/tiny/coupling/mean_pearson"] == pytest.approx(found["mean_pearson"])
    assert (there.state, waiting(RunStore())) == ("finished", [])


def test_a_probe_that_is_killed_leaves_the_run_finished_and_what_was_found_to_sync(wandb_server, trained, tmp_path):
    there = wandb_server.run(trained.id)
    before = len(there.upserts)
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "plan.json").write_text('{"0": ["probe:run"]}')
    path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    words = ["probe", "--run", trained.id, "--probe", "coupling", "--probe", "routing", "--images", "tiny"]
    process = wandb_server.python("-P", "-m", "cli", *words, env={
        "MOE_HOME": str(RunStore().root.absolute()), "PYTHONPATH": path, "MOE_TEST_FAULTS": str(tmp_path / "faults"),
    })  # fmt: skip
    assert process.wait(timeout=120) == -signal.SIGKILL
    there.crash_after = 0.0
    assert (there.state, there.exit_code, len(there.upserts)) == ("finished", 0, before)
    assert Record.of(trained).unconfirmed
    assert sync([trained], silent) == []
    assert "probe/tiny/coupling/figures/coupling" in there.summary


def test_an_error_of_a_probe_is_none_of_the_run(wandb_server, trained, monkeypatch):
    def broken(self, *arguments):
        raise RuntimeError("a probe's own fault")

    with monkeypatch.context() as patch:
        patch.setattr(RoutingProbe, "run", broken)
        with pytest.raises(ProbesFailedError, match="own fault"):
            probe_run(trained.id, ["coupling", "routing"], ["tiny"], silent)
    there = wandb_server.run(trained.id)
    assert (there.state, there.exit_code) == ("finished", 0)
    assert "probe/tiny/coupling/figures/coupling" in there.summary  # found before the error, sent all the same


def test_name_tags_and_metrics_that_the_user_set_survive_a_probe(wandb_server, trained):
    mine = wandb.Api().run(f"me/moe/{trained.id}")
    mine.name, mine.tags, mine.notes = "my favourite", [*mine.tags, "keep"], "look at expert 3"
    mine.update()
    there = wandb_server.run(trained.id)
    there.raw_config["_wandb"]["value"]["m"].append({"1": "mine", "5": 1, "6": [1]})  # as define_metric says it
    before = (there.display_name, there.tags, there.notes, there.group, there.job_type)
    metrics = copy.deepcopy(there.raw_config["_wandb"]["value"]["m"])
    assert before[0] == "my favourite"
    probe_run(trained.id, ["routing"], ["tiny"], silent)
    assert "probe/tiny/routing/figures/routing" in there.summary
    assert (there.display_name, there.tags, there.notes, there.group, there.job_type) == before
    assert there.raw_config["_wandb"]["value"]["m"] == metrics
    assert there.config == trained.config.scientific() | {"identity": trained.id}


@pytest.mark.parametrize("became", ["failed", "crashed"])
def test_a_run_whose_model_is_on_the_server_is_trained_whatever_its_last_process_said(
    wandb_server, isolated, monkeypatch, tmp_path, became
):
    """An earlier version's probe, broken off, left it so; another machine then trained it anew."""
    tiny_store()
    lines = ["name: little", "method: grid", "parameters:", "  seed: {values: [0, 1]}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in TINY.items()]
    (tmp_path / "little.yaml").write_text("\n".join(lines) + "\n")
    sweep = register_planned(*plan(str(tmp_path / "little.yaml"), {}), "wandb")
    remote = Remote.of(str(sweep.address))
    for cell in sweep.cells:
        prepare(remote, cell, sweep.store, [])
    train(from_flat(sweep.cells[0].values), group="little", report=silent)
    runs = {run.name: run for run in wandb_server.runs()}
    runs[sweep.cells[0].run_id].reported = became
    monkeypatch.setenv("MOE_HOME", str(tmp_path / "elsewhere"))
    with closing(open_queue(open_sweep(str(sweep.address)))) as queue:
        states = queue.states()
        left = queue.left_over()
    assert [states[cell.run_id].state for cell in sweep.cells] == ["finished", "waiting"]
    assert [cell.run_id for cell in left] == [sweep.cells[1].run_id]
