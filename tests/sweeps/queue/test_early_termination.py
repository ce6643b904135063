"""Early termination that a W&B server decides: real trials under W&B's own agent, against the server's double."""

import os
import sys
from pathlib import Path

import pytest

from moe.config import flat, from_flat
from probes.probing import probe_sweep
from sweeps.launching import plan, register_planned, resume
from sweeps.queue.launched import QueuedCell
from sweeps.queue.server import prepare
from sweeps.queue.status import status
from sweeps.runs.endings import STOPPED_EARLY, Ending
from sweeps.tracking.record import Record, Remote, stopped_by
from sweeps.training.trial import train
from sweeps.views import dashboard
from sweeps.views.compare import compare
from tests.conftest import TINY, tiny_store
from tests.wandb_server.test_sweeps import finished

GOOD, BAD = 1, 2  # model.top_k: with four experts chance is 1/4 and 1/6. The double draws the second for its second run


def write_spec(folder, epochs, method="random"):
    lines = [f"method: {method}", "run_cap: 2", "metric: {name: agreement/chance_uniform, goal: maximize}"]
    lines += [
        "early_terminate: {type: hyperband, max_iter: 6, s: 1}",
        "parameters:",
        f"  model.top_k: {{values: [{BAD}, {GOOD}]}}",
    ]
    fixed = TINY | {"train.epochs": epochs, "data.name": "longer"}
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in fixed.items()]
    (folder / "early.yaml").write_text("\n".join(lines) + "\n")
    return str(folder / "early.yaml")


@pytest.mark.slow
def test_a_run_that_the_server_ends_early_is_done(wandb_server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    tiny_store("longer", count=48)
    sweep = register_planned(*plan(write_spec(tmp_path, epochs=80), {}), "wandb")
    good = from_flat(TINY | {"train.epochs": 2, "data.name": "longer", "model.top_k": GOOD})
    prepare(Remote.of(str(sweep.address)), QueuedCell(good.identity(), flat(good)), sweep.store, [])
    train(good, group=sweep.name, report=lambda _line: None)  # here and short, which is quicker
    finished(wandb_server.client("agent", str(sweep.address), env={"MOE_SWEEP": sweep.name}))
    whole, early = wandb_server.sweep(sweep.address.rsplit("/", 1)[1]).runs
    assert [run.config["model"]["top_k"] for run in (whole, early)] == [GOOD, BAD]
    assert [run.ended_early for run in (whole, early)] == [False, True]
    assert (whole.state, early.state, early.exit_code) == ("finished", "failed", STOPPED_EARLY)
    assert (early.preempting, early.summary["ending"]) == (False, "stopped early")
    epochs = early.series("epoch")
    assert epochs == list(range(len(epochs)))
    assert 2 <= len(epochs) < 81
    now = status(sweep)
    assert [(cell.state, cell.ending) for cell in now.cells] == [
        ("finished", Ending.FINISHED), ("finished", Ending.STOPPED_EARLY),
    ]  # fmt: skip
    kept = now.cells[1].run
    assert [row["epoch"] for row in kept.history()] == epochs
    assert list(kept.checkpoints.iterdir())
    before = len(wandb_server.runs())
    assert [cell.ending for cell in resume(sweep.name).cells] == [Ending.FINISHED, Ending.STOPPED_EARLY]
    assert (len(wandb_server.runs()), early.series("epoch")) == (before, epochs)
    said = []
    probed = probe_sweep(sweep.name, ["routing"], ["longer"], said.append)
    assert said[0] == "1 of 2 runs are left out: 1 stopped in W&B or early, 0 not finished"
    assert [one["run_id"] for one in probed["runs"]] == [now.cells[0].run.id]
    assert dashboard.save(sweep)["report"]
    assert "1 run was stopped early, as the sweep's file asks; not averaged" in compare(sweep).notes


def logs(run, values, key="agreement/chance_uniform"):
    run.streams["wandb-history.jsonl"] = [f'{{"_step": {step}, "{key}": {value}}}' for step, value in enumerate(values)]


def test_a_persons_stop_and_early_termination_are_told_apart(wandb_server, tmp_path):
    """W&B stops runs in one way: whether its rule had a reason says who it was."""
    tiny_store("longer")
    sweep = register_planned(*plan(write_spec(tmp_path, epochs=3, method="bayes"), {}), "wandb")
    name = sweep.address.rsplit("/", 1)[1]
    histories = {"first": [1.0, 2.0, 3.0], "bad": [1.0, 1.5], "good": [1.0, 2.5], "young": [0.5], "nan": ['"NaN"', 0.1]}
    for run_id, values in histories.items():
        run = wandb_server.state.make_run("me", "moe", run_id)
        run.sweep = name
        wandb_server.sweep(name).runs.append(run)
        logs(run, values)

    def who(run_id, **place):
        return stopped_by(Record(id=run_id, entity="me", project="moe", sweep=name).model_copy(update=place))

    # second values are 2.5, 2.0 and 1.5: a third of the runs is better than 2.0, which is the bar
    assert {run_id: who(run_id) for run_id in histories} == {
        "first": Ending.STOPPED, "bad": Ending.STOPPED_EARLY, "good": Ending.STOPPED,
        "young": Ending.STOPPED, "nan": Ending.STOPPED,
    }  # fmt: skip
    assert who("bad", sweep=None) is Ending.STOPPED
    with wandb_server.faults.during("status", "SweepWithRuns", status=400):
        assert who("young") is Ending.STOPPED_EARLY  # nobody knows
