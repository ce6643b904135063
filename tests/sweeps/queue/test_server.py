"""Sweeps handed out by a W&B server: the real client and the real `wandb agent`, against the server's double."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from moe.config import from_flat
from moe.errors import UserError
from sweeps.commands import stop_command
from sweeps.launching import Silence, _all_known, plan, register_planned, resume
from sweeps.queue.launched import run_id_of
from sweeps.queue.leases import Beats
from sweeps.queue.opening import choose_queue, open_queue, open_sweep
from sweeps.runs.store import RunStore
from sweeps.tracking.record import Remote
from tests.conftest import TINY, tiny_store
from tests.holding import Held, needed

MOE = [sys.executable, "-P", "-m", "cli"]
SITE = Path(__file__).parents[1] / "faults" / "site"
DEADLINE = 600


def write_spec(tmp_path, seeds, epochs=2):
    lines = ["name: little", "method: grid", "parameters:", f"  seed: {{values: {list(range(seeds))}}}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in (TINY | {"train.epochs": epochs}).items()]
    path = tmp_path / "little.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def machine(isolated, monkeypatch):
    """`moe` is found by its name, as in an activated environment; images are there."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    tiny_store()
    return isolated


def moe(*words, code=0, **environment):
    done = subprocess.run(
        [*MOE, *map(str, words)], env=os.environ | environment, capture_output=True, text=True, check=False,
        timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done


def trials(done):
    return [trial["state"] for trial in json.loads(done.stdout)["trials"]]


def wait_until(holds):
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class Notes(Silence):
    """Keeps what a launch notes."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def complete(server, sweep, seeds, epochs):
    """Every cell has one finished run on the server, with its configuration and every epoch once."""
    finished = [run for run in server.sweep(sweep).runs if run.state == "finished"]
    assert sorted(run.config["seed"] for run in finished) == list(range(seeds))
    assert {run.config["identity"] for run in finished} == {cell.run_id for cell in open_sweep("little").cells}
    for run in finished:
        assert run.series("epoch") == list(range(epochs + 1))
        assert run.config["model"]["width"] == TINY["model.width"]
        local = RunStore().run(run.config["identity"])
        assert run.series("val/loss") == [row["val/loss"] for row in local.history()]


@pytest.mark.slow
@pytest.mark.long
def test_two_agents_ours_and_a_plain_one_finish_a_grid(wandb_server, machine):
    spec = Path(write_spec(machine, 3))
    spec.write_text(spec.read_text().replace("values: [0, 1, 2]", "min: 0, max: 2"))
    launcher = subprocess.Popen(
        [*MOE, "sweep", "launch", str(spec), "--backend", "wandb", "--agents", "1", "--json"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(wandb_server.runs)
    (sweep,) = wandb_server.state.sweeps
    plain = subprocess.run(
        [sys.executable, "-m", "wandb", "agent", f"me/moe/{sweep}"], capture_output=True, text=True, check=True,
        timeout=DEADLINE, cwd=machine,
    )  # fmt: skip
    launcher.communicate(timeout=DEADLINE)  # its own agent may end first, while the other has a trial at work
    assert trials(moe("sweep", "status", "little", "--json")) == ["finished"] * 3, plain.stderr
    assert len(wandb_server.sweep(sweep).runs) == 3
    complete(wandb_server, sweep, seeds=3, epochs=2)
    assert all(agent.commands[-1]["type"] == "exit" for agent in wandb_server.sweep(sweep).agents)
    assert any(
        f"W&B me/moe/{sweep}" in row["queue"] for row in json.loads(moe("sweep", "ls", "--json").stdout)["sweeps"]
    )


@pytest.mark.slow
@pytest.mark.long
def test_an_outage_ends_neither_a_launch_nor_its_agents(wandb_server, machine, moe, monkeypatch):
    """As 503 for a minute: three questions of the launch in a row get no answer while it shows how cells stand."""
    monkeypatch.setattr("sweeps.queue.server._FRESH", 0.2)
    monkeypatch.setattr("sweeps.tracking.connection._TIMEOUT", 1)  # of 20 s
    outages = []

    def outage():
        wait_until(lambda: any(run.series("epoch") for run in wandb_server.runs()))
        outages.append(wandb_server.faults.lasting(4.0, "status", status=503))

    watcher = threading.Thread(target=outage)
    watcher.start()
    code, out, said = moe("sweep", "launch", write_spec(machine, 1), "--backend", "wandb", "--agents", "1")
    watcher.join()
    assert code == 0, said
    assert outages[0].hits > 3
    assert [line for line in said.splitlines() if "until it answers, cells are shown as it last said" in line]
    assert "Traceback" not in out + said
    (sweep,) = wandb_server.state.sweeps
    assert len(wandb_server.sweep(sweep).agents) == 1  # none was replaced
    complete(wandb_server, sweep, seeds=1, epochs=2)


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_agent_and_a_killed_trial_are_made_up_for_in_the_same_runs(wandb_server, machine, monkeypatch):
    """The server counts what it handed out as done, and the dead as running; `resume` finds out what is not."""
    faults = machine / "faults"
    faults.mkdir()
    (faults / "plan.json").write_text(json.dumps({"0": ["worker:step"], "1": ["agent:writing"]}))
    path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    launched = moe("sweep", "launch", write_spec(machine, 3), "--backend", "wandb", "--json", code=1,
                   PYTHONPATH=path, MOE_TEST_FAULTS=str(faults))  # fmt: skip
    assert trials(launched).count("finished") < 3
    (sweep,) = wandb_server.state.sweeps
    begun = {run.config["seed"]: run.name for run in wandb_server.sweep(sweep).runs}
    before = {run.name: run.series("epoch") for run in wandb_server.sweep(sweep).runs}
    assert any(run.state == "running" for run in wandb_server.runs())  # the server notices a silent run after minutes
    monkeypatch.setattr("sweeps.queue.server._SILENT_HERE", 2.0)  # seconds; this machine knows that they are dead
    monkeypatch.setattr("sweeps.queue.server._FRESH", 0.5)
    assert [cell.state for cell in resume("little").cells] == ["finished"] * 3
    complete(wandb_server, sweep, seeds=3, epochs=2)
    after = {run.name: run.series("epoch") for run in wandb_server.sweep(sweep).runs}
    assert all(after[name][: len(epochs)] == epochs for name, epochs in before.items())
    for run in wandb_server.sweep(sweep).runs:
        if run.config["seed"] in begun:
            assert run.name == begun[run.config["seed"]]


@needed
@pytest.mark.slow
@pytest.mark.long
def test_stop_hands_back_and_another_machine_goes_on_by_the_sweeps_path(wandb_server, machine, monkeypatch):
    launcher = subprocess.Popen(
        [*MOE, "sweep", "launch", write_spec(machine, 2, epochs=5), "--backend", "wandb", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(RunStore().all)
    held = Held(*RunStore().all(), epochs=3)
    stop_command("little")
    held.go_on()
    launcher.communicate(timeout=DEADLINE)
    assert launcher.returncode == 1
    (sweep,) = wandb_server.state.sweeps
    assert wandb_server.sweep(sweep).state == "PAUSED"
    (begun,) = [run for run in wandb_server.runs() if run.series("epoch")]
    assert (begun.state, begun.exit_code) == ("preempted", 75)
    sent = len(begun.series("epoch"))
    assert 2 < sent < 6
    monkeypatch.setenv("MOE_HOME", str(machine / "elsewhere"))
    done = moe("sweep", "resume", f"me/moe/{sweep}", "--json")
    assert trials(done) == ["finished"] * 2
    complete(wandb_server, sweep, seeds=2, epochs=5)
    assert begun.state == "finished"


@pytest.fixture
def handed_out(wandb_server, machine):
    """A sweep of two cells whose runs the server calls running, and its queue."""
    sweep, cells = plan(write_spec(machine, 2), {})
    launched = register_planned(sweep, cells, "wandb")
    queue = open_queue(launched)
    there = wandb_server.sweep(queue.remote.id)
    for cell in launched.cells:
        run = wandb_server.state.make_run("me", "moe", f"run{cell.values['seed']}")
        run.sweep, run.raw_config = there.name, {"identity": {"value": cell.run_id}}
        there.runs.append(run)
    yield queue, there.runs
    queue.close()


def test_runs_that_are_silent_are_taken_over_and_those_at_work_are_let_be(handed_out, monkeypatch):
    queue, (silent, at_work) = handed_out
    clock = [1000.0]
    monkeypatch.setattr("sweeps.queue.server.time", SimpleNamespace(monotonic=lambda: clock[0]))
    silent.reported = "pending"  # handed out, and never heard of
    assert "for another 360 seconds" in queue.held()
    at_work.reported = "finished"
    clock[0] += 10
    assert (
        "1 run that was at work when W&B last heard: one that gives no sign of life for another 110 seconds"
        in queue.held()
    )
    at_work.reported = silent.reported = "running"
    clock[0] += 10
    assert "2 runs that were at work when W&B last heard" in queue.held()
    assert "for another 360 seconds is taken over" in queue.held()
    clock[0] += 60
    at_work.heard += 60
    assert "1 run that was at work" in queue.held()
    assert "for another 300 seconds" in queue.held()
    store = queue.sweep.store
    lock = store.create(from_flat(queue.sweep.cells[0].values)).lock_file
    lock.touch()  # its process was here, and has ended
    assert "for another 15 seconds" in queue.held()
    clock[0] += 16
    assert queue.held() is None
    assert [cell.run_id for cell in queue.left_over()] == [queue.sweep.cells[0].run_id]


def test_a_resume_says_once_how_long_it_waits(handed_out, monkeypatch):
    queue, _ = handed_out
    clock, said = [1000.0], Notes()

    def sleep(seconds):
        clock[0] += 60 * seconds

    monkeypatch.setattr("sweeps.queue.server.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("sweeps.launching.time", SimpleNamespace(sleep=sleep))
    assert _all_known(queue.sweep, queue, said)
    (line,) = said.lines
    assert line.startswith("waiting for 2 runs that were at work when W&B last heard")
    assert line.endswith("no sign of life for another 360 seconds is taken over; Ctrl-C leaves it")
    assert len(queue.left_over()) == 2


def test_the_last_words_of_a_dying_process_are_no_life():
    beats = Beats("a", since=0.0, first=0.0)
    beats.hear("b", 20.0)
    assert not beats.go_on
    beats.hear("b", 100.0)
    assert (beats.go_on, beats.since) == (False, 20.0)
    beats.hear("c", 101.0)
    assert beats.go_on


def test_a_run_is_known_by_what_it_was_handed_if_it_crashed_at_once():
    flat = TINY | {"seed": 3}
    nested = {"identity": "abc"}
    assert run_id_of(nested) == "abc"
    assert run_id_of(flat) == plan_cell(flat)
    assert run_id_of({"learning_rate": 3}) == ""


def plan_cell(values):
    return from_flat(values).identity()


@pytest.mark.parametrize("path", ["me/moe", "me/moe/", "a/b/c/d"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(UserError, match="ENTITY/PROJECT/SWEEP"):
        Remote.of(path)


def test_auto_is_local_without_a_server_and_says_why(machine):
    sweep, _ = plan(write_spec(machine, 1), {})
    assert choose_queue("auto", sweep) == ("local", "WANDB_MODE=disabled")
    with pytest.raises(UserError, match="--backend local"):
        choose_queue("wandb", sweep)


def test_auto_takes_a_server_that_answers_and_no_other(wandb_server, machine, monkeypatch):
    sweep, _ = plan(write_spec(machine, 1), {})
    assert choose_queue("auto", sweep) == ("wandb", "a W&B server answers")
    (machine / "random.yaml").write_text("method: random\nrun_cap: 3\nparameters: {seed: {values: [0, 1]}}\n")
    random, _ = plan(str(machine / "random.yaml"), {})
    assert choose_queue("wandb", random) == ("wandb", "as asked")
    chosen, why = choose_queue("auto", random)
    assert (chosen, "with --backend wandb" in why) == ("local", True)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("sweeps.tracking.connection._TIMEOUT", 2)
    chosen, why = choose_queue("auto", sweep)
    assert chosen == "local"
    assert "does not answer" in why


def test_a_sweep_that_is_not_there_is_said(wandb_server, machine):
    with pytest.raises(UserError, match="W&B has no sweep me/moe/none"):
        open_sweep("me/moe/none")
