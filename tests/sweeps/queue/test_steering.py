"""Bayes and hyperband over the real queue and the real study; runs are history files written by hand."""

import contextlib
import json

import pytest

from sweeps.launching import plan, register_planned
from sweeps.plan.draws import NothingNewError
from sweeps.queue.opening import open_queue, steering
from sweeps.queue.status import filled_cells, status
from sweeps.runs.endings import Ending
from sweeps.views.preview import preview
from tests.conftest import TINY, tiny_store
from tests.sweeps.test_sweep_cli import moe

FILE = """
name: search
method: bayes
metric: {{{metric}{target}}}
early_terminate: {{type: hyperband, min_iter: 1, eta: 2}}
run_cap: {cap}
parameters:
  seed: {{values: [0, 1]}}
  train.lr: {{distribution: log_uniform_values, min: 1.0e-4, max: 1.0e-2}}
  loss.temperature: {{min: 0.2, max: 1.0}}
"""


def launch(tmp_path, cap=8, target="", metric="name: val/loss, goal: minimize"):
    text = FILE.format(cap=cap, target=target, metric=metric)
    text += "".join(f"  {path}: {{value: {value!r}}}\n" for path, value in TINY.items() if path != "train.lr")
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return path, register_planned(*plan(str(path), {}))


@pytest.fixture
def agents(tmp_path):
    """Two agents' view of one sweep: queue and steering each."""
    _, sweep = launch(tmp_path)
    queues = [open_queue(sweep), open_queue(sweep)]
    queues[0].publish(sweep.cells)
    yield [(sweep, queue, steering(sweep, queue)) for queue in queues]
    for queue in queues:
        queue.close()


def test_a_closed_queue_holds_no_connection_to_its_study(tmp_path):
    _, sweep = launch(tmp_path)
    queue = open_queue(sweep)
    pool = steering(sweep, queue).search.storage.engine.pool
    assert pool.checkedin() > 0
    queue.close()
    assert pool.checkedin() == 0


def begun(agent):
    _, queue, steered = agent
    return steered.begin(queue.claim())


def write_history(sweep, claim, losses):
    run = sweep.prepare(claim.cell)
    rows = [{"epoch": epoch, "step": epoch, "val/loss": loss} for epoch, loss in enumerate(losses)]
    run.history_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_a_suggestion_is_run_with_every_seed_by_whichever_agent(agents):
    claims = [begun(agents[number % 2]) for number in range(8)]
    values = [claim.cell.values for claim in claims]
    assert [value["seed"] for value in values] == [0, 1] * 4
    for first, second in zip(values[::2], values[1::2], strict=True):
        assert first | {"seed": 1} == second
    assert len({value["train.lr"] for value in values}) == 4
    assert all(1e-4 <= value["train.lr"] <= 1e-2 for value in values)
    assert len({claim.cell.run_id for claim in claims}) == 8
    assert len({claim.trial for claim in claims}) == 8
    sweep = agents[0][0]
    assert {cell.run_id for cell in filled_cells(sweep)} == {claim.cell.run_id for claim in claims}
    cells = status(sweep, agents[1][1]).cells
    assert {cell.run.id for cell in cells} == {claim.cell.run_id for claim in claims}


def test_a_cell_that_comes_back_keeps_its_values_and_its_trial(agents):
    first = begun(agents[0])
    agents[0][1].fail(first, Ending.FAILED, "a fault", retry=True)
    again = begun(agents[1])
    assert (again.cell, again.trial, again.failures) == (first.cell, first.trial, 1)


def test_the_first_of_two_proposals_counts_for_both(agents):
    """Both ask at the same time: the slower one's trial is closed and it takes the other's values."""
    _, queue, steered = agents[0]
    slow_claim = queue.claim()
    real = steered.search.ask
    others = []

    def ask_while_another_does():
        mine = real()
        others.append(begun(agents[1]))
        return mine

    steered.search.ask = ask_while_another_does
    slow = steered.begin(slow_claim)
    assert slow.cell.values["train.lr"] == others[0].cell.values["train.lr"]
    states = [trial.state.name for trial in steered.search.study.get_trials()]
    assert sorted(states) == ["FAIL", "RUNNING", "RUNNING"]


def test_a_run_that_is_not_among_the_best_is_stopped_early(agents):
    sweep, queue, steered = agents[0]
    for losses in ([5.0, 1.0, 0.9], [5.0, 2.0]):
        good = begun(agents[0])
        run = write_history(sweep, good, losses)
        assert steered.follow(good, run) is None
        assert steered.follow(good, run) is None  # nothing new
    bad = begun(agents[0])
    run = write_history(sweep, bad, [5.0, 3.0])  # two of three are better, more than half
    why = steered.follow(bad, run)
    assert why == "stopped early after epoch 1: val/loss was not among the best"
    queue.finish(bad, Ending.STOPPED_EARLY, why)
    assert steered.finish(bad, run, stopped=True) == 3.0
    cell = next(c for c in status(sweep, queue).cells if c.run.id == bad.cell.run_id)
    assert (cell.state, cell.note) == ("finished", why)
    queue.update(set(), failed=False)  # it has no results, and shall have none
    assert next(c for c in status(sweep, queue).cells if c.run.id == bad.cell.run_id).state == "finished"


def test_the_metrics_target_ends_the_sweep(tmp_path):
    _, sweep = launch(tmp_path, target=", target: 0.5")
    queue = open_queue(sweep)
    queue.publish(sweep.cells)
    steered = steering(sweep, queue)
    claim = steered.begin(queue.claim())
    run = write_history(sweep, claim, [5.0, 0.4])
    steered.follow(claim, run)
    queue.finish(claim)
    steered.finish(claim, run)
    assert queue.waiting() == 0
    assert {cell.note for cell in status(sweep, queue).cells[1:]} == {
        "not run: another run reached the metric's target"
    }
    queue.close()


def test_a_dry_run_shows_blank_cells(tmp_path):
    tiny_store()
    path, _ = launch(tmp_path, cap=5)
    rows = preview(*plan(str(path), {}))
    assert [row["values"] for row in rows] == [{"seed": 0}, {"seed": 1}] * 2
    assert {row["epochs_left"] for row in rows} == {2}


FEW = """
name: few
method: bayes
metric: {name: val/loss, goal: minimize}
run_cap: 20
parameters:
  seed: {values: [0, 1]}
  model.experts: {values: [2, 4, 8]}
  model.top_k: {values: [1, 2]}
"""


@pytest.mark.slow
def test_a_search_tries_nothing_twice_and_ends_when_nothing_is_left(tmp_path):
    """TPE likes the same few values again and again; experts = 2 goes with top_k = 2, so there are six of them."""
    file = tmp_path / "few.yaml"
    file.write_text(
        FEW + "".join(f"  {path}: {{value: {value!r}}}\n" for path, value in TINY.items() if path not in FEW)
    )
    sweep = register_planned(*plan(str(file)))
    queues = [open_queue(sweep), open_queue(sweep)]
    queues[0].publish(sweep.cells)
    agents = [(queue, steering(sweep, queue)) for queue in queues]
    begun = []
    for number in range(12):  # two agents in turn, each with a run at work while the other asks
        queue, steered = agents[number % 2]
        claim = steered.begin(queue.claim())
        begun.append(claim)
        if number % 3:
            queue.finish(claim)
            steered.finish(claim, write_history(sweep, claim, [5.0, claim.cell.values["model.experts"]]))
    assert len({claim.cell.run_id for claim in begun}) == 12
    queue, steered = agents[0]
    with pytest.raises(NothingNewError, match="not run: the space has only 12 different runs"):
        steered.begin(queue.claim())
    for queue in queues:
        queue.close()


@pytest.mark.slow
def test_a_bayes_sweep_over_few_values_ends_complete(tmp_path):
    tiny_store()
    file = tmp_path / "few.yaml"
    text = FEW.replace("[0, 1]", "[0]").replace("[2, 4, 8]", "[2, 4]").replace("run_cap: 20", "run_cap: 7")
    given = TINY | {"train.epochs": 1}
    file.write_text(
        text + "".join(f"  {path}: {{value: {value!r}}}\n" for path, value in given.items() if path not in text)
    )
    done = moe("sweep", "launch", file, "--agents", "2", "--json")
    trials = json.loads(done.stdout)["trials"]
    assert "run_cap asks for 7 runs, but the space has only 4 different runs" in done.stderr
    assert [trial["state"] for trial in trials] == ["finished"] * 7
    ran = [trial for trial in trials if trial["ending"] == "finished"]
    assert len({trial["run_id"] for trial in ran}) == 4
    assert {trial["note"] for trial in trials if trial["ending"] == "not needed"} == {
        "not run: the space has only 4 different runs"
    }
    assert "runs were not run: the space has only 4 different runs" in moe("compare", "few").stdout


@pytest.mark.slow
def test_a_bayes_sweep_through_the_command_line(tmp_path):
    """By what nearest neighbours tell, with early ends."""
    tiny_store()
    path, sweep = launch(tmp_path, cap=4, metric="name: embedding/knn, goal: maximize")
    done = json.loads(moe("sweep", "launch", path, "--json").stdout)
    assert [trial["state"] for trial in done["trials"]] == ["finished"] * 4
    assert len({trial["values"]["train.lr"] for trial in done["trials"]}) == 2
    assert "4 of 4 already finished" in moe("sweep", "launch", path).stderr
    compared = json.loads(moe("compare", "search", "--json").stdout)["groups"]
    assert all(0 <= group["metrics"]["kNN accuracy"]["mean"] <= 1 for group in compared)
    with contextlib.closing(open_queue(sweep)) as queue:
        trials = steering(sweep, queue).search.study.get_trials()
    told = [sweep.store.run(trial["run_id"]).history()[-1]["embedding/knn"] for trial in done["trials"]]
    assert sorted(abs(trial.value) for trial in trials) == sorted(told)
