"""Random and bayes sweeps, early termination and stopped runs on a W&B server: cells are the runs that it lists."""

from contextlib import closing

import pytest

from moe.config import from_flat
from moe.errors import UserError
from sweeps.launching import plan, register_planned
from sweeps.queue import server
from sweeps.queue.opening import open_queue, open_sweep, steering
from sweeps.queue.status import filled_cells, status
from sweeps.runs.endings import Ending
from sweeps.tracking.record import Record
from tests.conftest import TINY, tiny_store

pytestmark = pytest.mark.slow


@pytest.fixture
def launch(wandb_server, tmp_path, monkeypatch):
    """Launches a sweep on the server that draws, of three runs unless it is said otherwise."""
    tiny_store()
    monkeypatch.setattr(server, "_FRESH", 0.0)

    def make(method="random", run_cap=3, lr_max=1e-2):
        lines = [f"method: {method}", f"run_cap: {run_cap}", "metric: {name: val/loss, goal: minimize}"]
        lines += ["parameters:", f"  train.lr: {{distribution: log_uniform_values, min: 1.0e-4, max: {lr_max}}}"]
        lines += [f"  {path}: {{value: {value!r}}}" for path, value in TINY.items() if path != "train.lr"]
        (tmp_path / "drawn.yaml").write_text("\n".join(lines) + "\n")
        return register_planned(*plan(str(tmp_path / "drawn.yaml"), {}), "wandb")

    return make


def drawn(wandb_server, sweep, number, state, lr=1e-3, **summary):
    """A run that the server drew, with what its process said of it."""
    there = wandb_server.sweep(sweep.address.rsplit("/", 1)[1])
    run = wandb_server.state.make_run("me", "moe", f"drawn{number}")
    values = TINY | {"train.lr": lr * (1 + number)}
    config = from_flat(values).scientific() | {"identity": from_flat(values).identity()}
    run.raw_config = {key: {"value": value} for key, value in config.items()}
    run.sweep, run.reported, run.summary = there.name, state, summary
    there.runs.append(run)
    return run


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_cells_are_the_runs_of_the_server_up_to_run_cap(wandb_server, launch, monkeypatch, tmp_path, method):
    sweep = launch(method)
    assert wandb_server.sweep(sweep.address.rsplit("/", 1)[1]).config["method"] == method
    assert [cell.state for cell in status(sweep).cells] == ["waiting"] * 3
    runs = [drawn(wandb_server, sweep, 0, "finished"), drawn(wandb_server, sweep, 1, "failed")]
    for there in (sweep, elsewhere(sweep, monkeypatch, tmp_path)):
        now = status(there)
        assert [cell.state for cell in now.cells] == ["finished", "failed", "waiting"]
        assert [cell.cell.values.get("train.lr") for cell in now.cells] == [1e-3, 2e-3, None]
        assert [cell.run_id for cell in filled_cells(there)] == [run.config["identity"] for run in runs]
        with closing(open_queue(there)) as queue:
            assert steering(there, queue) is None  # the server's
            assert [path for path, _ in queue.trained_elsewhere()] == ["me/moe/drawn0"]
            (left,) = queue.left_over()  # what it has not drawn yet is not made up here
            assert left.run_id == runs[1].config["identity"]
            assert Record.of(there.store.run(left.run_id)).id == "drawn1"  # it goes on in the same run
            claim = queue.claim()
            assert claim.cell == left
            assert [cell.state for cell in status(there, queue).cells] == ["finished", "running", "waiting"]


def elsewhere(sweep, monkeypatch, tmp_path):
    """The same sweep on a machine that has never heard of it."""
    monkeypatch.setenv("MOE_HOME", str(tmp_path / "elsewhere"))
    return open_sweep(sweep.address)


def test_a_run_that_was_stopped_is_done_until_it_is_asked_for(wandb_server, launch):
    sweep = launch()
    drawn(wandb_server, sweep, 0, "failed", ending="stopped by you")
    drawn(wandb_server, sweep, 1, "failed", ending="stopped early")
    drawn(wandb_server, sweep, 2, "failed", ending="killed")
    with closing(open_queue(sweep)) as queue:
        cells = status(sweep, queue).cells
        assert [cell.state for cell in cells] == ["finished", "finished", "failed"]
        assert [cell.ending for cell in cells] == [Ending.STOPPED, Ending.STOPPED_EARLY, Ending.FAILED]
        assert cells[0].note == "stopped by you in W&B"
        assert [cell.run_id for cell in queue.left_over()] == [cells[2].run.id]
        queue.publish_again([sweep.cells[0]])
        assert [cell.run_id for cell in queue.left_over()] == [cells[0].run.id, cells[2].run.id]
        assert Record.of(cells[0].run).stopped  # so that it does not obey W&B's memory of the stop
        assert not Record.of(cells[2].run).stopped


def test_a_run_that_was_killed_over_its_stop_is_done_too(wandb_server, launch):
    """W&B's agent waits half a minute for a checkpoint, then the process cannot say how it ended any more."""
    sweep = launch()
    drawn(wandb_server, sweep, 0, "crashed").stop_asked = True
    drawn(wandb_server, sweep, 1, "crashed")
    drawn(wandb_server, sweep, 2, "failed", ending="failed").stop_asked = True  # it went on, and failed
    with closing(open_queue(sweep)) as queue:
        cells = status(sweep, queue).cells
        assert [cell.ending for cell in cells] == [Ending.STOPPED, Ending.FAILED, Ending.FAILED]
        assert [cell.run_id for cell in queue.left_over()] == [cells[1].run.id, cells[2].run.id]
    Record.of(cells[0].run).model_copy(update={"stopped": True}).save(
        sweep.store.create(from_flat(cells[0].cell.values))
    )
    assert status(sweep).cells[0].ending is Ending.FAILED  # it goes on here, and its stop is no news


def test_another_recipe_under_the_same_name_is_refused(wandb_server, launch):
    sweep = launch()
    assert launch().address == sweep.address
    with pytest.raises(UserError, match="was launched with another file"):
        launch(lr_max=1e-1)
    with pytest.raises(UserError, match="raise run_cap there"):
        launch(run_cap=5)
