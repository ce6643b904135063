"""An agent between a database that fails and workers that hang, die and run out of memory.

The workers are processes that do what a plan says instead of training; the agent's clock is turned by its own waiting,
quickly while a worker is at work, so that the real limits of minutes pass in milliseconds.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from sweeps.agents import agent
from sweeps.agents.agent import Agent, Limits
from sweeps.agents.devices import Device
from sweeps.launching import plan, register_planned
from sweeps.queue import leases, storage
from sweeps.queue.base import AwayError
from sweeps.queue.database import DatabaseQueue
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.opening import open_queue
from sweeps.runs.endings import Ending
from tests.conftest import TINY

SCRIPT = Path(__file__).parents[1] / "faults" / "worker.py"
DEADLINE = 60
OUT_OF_MEMORY = "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"


def wait_until(holds):
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class OverdueError(BaseException):
    """Not an Exception: an agent would take that for its cell's."""


@contextlib.contextmanager
def overdue():
    """End the agent after a while, or when what should happen beside it failed."""

    def end(_number, _frame):
        raise OverdueError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(DEADLINE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Clock:
    """Time as the agent knows it: it passes by waiting, quickly once a worker is at work."""

    def __init__(self, at_work):
        self.now, self.at_work, self.speed = 1000.0, at_work, 150

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        time.sleep(0.005)
        self.now += seconds * (self.speed if self.at_work.exists() else 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the workers' plan lies."""
    folder = tmp_path / "plan"
    folder.mkdir()
    monkeypatch.setenv("MOE_TEST_PLAN", str(folder))
    return folder


@pytest.fixture
def clock(folder, monkeypatch):
    result = Clock(folder / "at work")
    monkeypatch.setattr(agent, "time", result)
    return result


@pytest.fixture
def workers(folder, clock, monkeypatch):
    """Every worker that was started."""
    started = []

    class Planned(agent.Worker):
        def __init__(self, environment):
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", SCRIPT],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            started.append(self)

        def train(self, run):
            (folder / "at work").unlink(missing_ok=True)
            super().train(run)

        def ask_to_stop(self):
            (folder / "at work").unlink(missing_ok=True)  # time to answer; who will not, says so
            super().ask_to_stop()

    monkeypatch.setattr(agent, "Worker", Planned)
    yield started
    assert started
    for worker in started:
        assert worker.process.poll() is not None
        worker.process.stdin.close()


class Situation:
    """A launched sweep, one agent for it, and what the agent said."""

    def __init__(self, sweep, folder):
        self.sweep, self.folder, self.said = sweep, folder, []
        self.ids = [cell.run_id for cell in sweep.cells]
        self.queue = open_queue(sweep)

    def run(self, device=None, limits=None):
        with overdue():
            return Agent(self.sweep, self.said.append, device, limits).run()

    def states(self):
        return [(state.state, state.attempts) for state in self.queue.states().values()]

    def row(self, number=0):
        return self.queue._rows()[number]

    def at_work(self):
        return (self.folder / "at work").exists()


@pytest.fixture
def situation(tmp_path, folder, workers):
    """Publishes one cell for each list of what its attempts do; the last one is repeated."""
    opened = []

    def situation(*actions):
        lines = ["name: little", "method: grid", "parameters:", f"  seed: {{values: {list(range(len(actions)))}}}"]
        lines += [f"  {path}: {{value: {value!r}}}" for path, value in TINY.items()]
        (tmp_path / "little.yaml").write_text("\n".join(lines) + "\n")
        sweep = register_planned(*plan(str(tmp_path / "little.yaml"), {}))
        opened.append(Situation(sweep, folder))
        opened[-1].queue.publish(sweep.cells)
        planned = dict(zip(opened[-1].ids, actions, strict=True))
        (folder / "plan.json").write_text(json.dumps(planned))
        return opened[-1]

    yield situation
    for one in opened:
        one.queue.close()
        assert not list(one.sweep.folder.agents.glob("*.lock"))


@contextlib.contextmanager
def meanwhile(act):
    """Do something beside the agent, which needs the main thread for its signals."""
    failures = []

    def guarded():
        try:
            act()
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        yield
    except OverdueError as late:
        raise (failures or [AssertionError("the agent does not end")])[0] from late
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert not failures


# --- workers that fail ----------------------------------------------------------------------------------------------


def test_every_cell_is_run_once(situation):
    here = situation(["finish"], ["finish"], ["finish"])
    assert here.run() == 3
    assert here.states() == [("finished", 1)] * 3


def test_failures_are_repeated_then_given_up_and_the_others_finish(situation):
    here = situation(["boom"], ["boom", "finish"], ["kill"], ["mistake in the values"], ["finish"])
    assert here.run() == 2
    assert here.states() == [("failed", 3), ("finished", 2), ("failed", 3), ("failed", 1), ("finished", 1)]
    states = list(here.queue.states().values())
    assert [state.error for state in states] == ["boom", None, "killed by SIGKILL", "mistake in the values", None]
    assert states[0].note == "what it did before\nerror: boom"  # of the last attempt alone
    assert sum("trying again" in line for line in here.said) == 5
    assert sum("giving up" in line for line in here.said) == 3


def test_failures_are_counted_over_all_agents_and_anew_after_resume(situation):
    here = situation(["boom"])
    first = open_queue(here.sweep)
    for _ in range(2):
        first.fail(first.claim(), Ending.FAILED, "boom", retry=True)
    first.close()
    assert here.run() == 0
    assert here.states() == [("failed", 3)]
    assert here.queue.recover(failed=True) == 1
    assert here.run() == 0
    assert here.states() == [("failed", 3)]


def test_an_attempt_that_takes_too_long_is_ended_and_counted(situation, clock):
    here = situation(["busy", "busy", "finish"], ["busy"], ["finish"])
    assert here.run(limits=Limits(minutes=30)) == 2
    assert here.states() == [("finished", 3), ("failed", 3), ("finished", 1)]
    assert here.row(1).error == "not finished after 30 minutes"
    assert clock.now > 1000 + 5 * 30 * 60


def test_an_attempt_that_shows_no_sign_of_life_is_ended_and_counted(situation):
    here = situation(["silent", "finish"], ["silent"], ["finish"])
    assert here.run() == 2
    assert here.states() == [("finished", 2), ("failed", 3), ("finished", 1)]
    assert here.row(1).error == "no sign of life for 30 minutes"


def test_one_that_works_long_is_not_taken_for_hung(situation, clock, folder):
    """It writes to its log all the time, for three times as long as silence is borne."""
    here = situation(["wait", "finish"])
    log = here.sweep.store.run(here.ids[0]).log_file

    def write():
        wait_until(here.at_work)
        start = clock.now
        while clock.now < start + 90 * 60:
            log.touch()
            time.sleep(0.001)
        (folder / "go on").touch()

    with meanwhile(write):
        assert here.run() == 1
    assert not any("sign of life" in line for line in here.said)


def test_a_hung_worker_that_ignores_sigterm_is_killed_after_its_grace(situation, clock, workers):
    here = situation(["stubborn", "finish"], ["finish"])
    assert here.run() == 2
    assert here.states() == [("finished", 2), ("finished", 1)]
    assert "no sign of life for 30 minutes" in here.said[1]
    assert workers[0].process.returncode == -signal.SIGKILL
    assert clock.now > 1000 + 30 * 60 + agent.GRACE


def test_a_worker_killed_while_it_waits_for_work_costs_an_attempt_and_no_more(situation, workers):
    here = situation(["wait", "finish"], ["finish"])

    def kill_the_next():
        wait_until(lambda: here.at_work() and len(workers) == 2)
        workers[1].kill()
        (here.folder / "go on").touch()

    with meanwhile(kill_the_next):
        assert here.run() == 2
    assert here.states() == [("finished", 3), ("finished", 1)]
    assert "killed by SIGKILL" in here.said[3]


def test_trouble_around_a_cell_is_not_that_of_the_others(situation, monkeypatch):
    """Its folder cannot be made: a full disk, say."""
    here = situation(["finish"], ["finish"])
    real = LaunchedSweep.prepare

    def prepare(self, cell):
        if cell.run_id == here.ids[0]:
            raise OSError(28, "No space left on device")
        return real(self, cell)

    monkeypatch.setattr(LaunchedSweep, "prepare", prepare)
    assert here.run() == 1
    assert here.states() == [("failed", 3), ("finished", 1)]
    assert here.row().error == "OSError: [Errno 28] No space left on device"


# --- told to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_sigterm_hands_the_cell_back_uncounted(situation, workers, kind):
    here = situation([kind], ["finish"])
    before = signal.getsignal(signal.SIGTERM)

    def tell():
        wait_until(here.at_work)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(tell):
        assert here.run() == 0
    assert here.states() == [("waiting", 0), ("waiting", 0)]
    assert here.row().owner is None
    assert here.said[-1] == f"{here.ids[0]} handed back"
    assert workers[0].process.returncode == (75 if kind == "polite" else -signal.SIGKILL)
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_while_the_stop_mark_is_read_is_not_lost(situation, monkeypatch):
    here = situation(["polite"], ["finish"])
    real = DatabaseQueue.stop_requested

    def read(self):
        if here.at_work():
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self)

    monkeypatch.setattr(DatabaseQueue, "stop_requested", read)
    assert here.run() == 0
    assert here.states() == [("waiting", 0), ("waiting", 0)]


def test_the_stop_mark_does_the_same(situation):
    here = situation(["polite", "finish"], ["finish"])

    def tell():
        wait_until(here.at_work)
        queue = open_queue(here.sweep)
        queue.request_stop(stop=True)
        queue.close()

    with meanwhile(tell):
        assert here.run() == 0
    assert here.states() == [("waiting", 0), ("waiting", 0)]
    here.queue.request_stop(stop=False)
    assert here.run() == 2
    assert here.states() == [("finished", 1), ("finished", 1)]


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [OUT_OF_MEMORY, "MemoryError: "])
def test_out_of_memory_beside_others_asks_for_more_places_and_is_no_failure(situation, words):
    here = situation([words, words, "finish"])
    assert here.run(Device("0", 4)) == 1
    assert here.states() == [("finished", 1)]
    assert (here.row().weight, here.row().failures) == (4, 0)
    assert sum("fewer runs beside it" in line for line in here.said) == 2


def test_out_of_memory_alone_on_the_device_is_a_failure(situation):
    here = situation([OUT_OF_MEMORY], ["finish"])
    assert here.run(Device("0", 2)) == 1
    assert here.states() == [("failed", 3), ("finished", 1)]
    assert here.row().error == OUT_OF_MEMORY
    assert [here.row(number).weight for number in range(2)] == [2, 1]


def test_out_of_memory_where_nothing_is_shared_is_a_failure(situation):
    here = situation([OUT_OF_MEMORY, "finish"])
    assert here.run(Device()) == 1
    assert here.states() == [("finished", 2)]
    assert (here.row().weight, here.row().failures) == (1, 1)


def test_told_to_stop_while_waiting_for_a_place_the_cell_is_handed_back(situation, monkeypatch):
    monkeypatch.setattr("sweeps.agents.devices._POLL", 0.005)
    here = situation(["finish"])
    device = Device("0", 2)

    def tell():
        wait_until(lambda: here.states() == [("running", 1)])
        os.kill(os.getpid(), signal.SIGTERM)

    with device.hold(here.sweep.root, 2, lambda: False) as held, meanwhile(tell):
        assert held
        assert here.run(device) == 0
    assert here.states() == [("waiting", 0)]
    assert here.run(device) == 1


# --- the lease ------------------------------------------------------------------------------------------------------


def test_a_cell_lost_while_it_is_trained_is_dropped_and_nothing_recorded(situation, workers):
    """Another agent took it: its worker is killed at once, and the agent goes on with the next cell."""
    here = situation(["stubborn"], ["finish"])
    other = open_queue(here.sweep)
    other.owner.known_dead = lambda name: name != other.owner.name
    claims = []

    def take():
        wait_until(here.at_work)
        wait_until(other.recover)  # not while the cell's beat goes on between its look and its update
        claims.append(other.claim())

    with meanwhile(take):
        assert here.run(limits=Limits(silence=float("inf"))) == 1
    assert workers[0].process.returncode == -signal.SIGKILL
    assert any("given to another agent; dropped here" in line for line in here.said)
    assert here.states() == [("running", 2), ("finished", 1)]
    assert (here.row().owner, here.row().error) == (other.owner.name, "interrupted: its agent was lost")
    other.finish(claims[0])
    other.close()


CLAIM_AND_DIE = """
import os, signal, sys
from pathlib import Path
from sweeps.queue.opening import open_queue, open_sweep
assert open_queue(open_sweep("little", root=Path(sys.argv[1]))).claim() is not None
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_dead_agent_beside_it_held_is_taken_over(situation):
    here = situation(["finish"], ["finish"])
    died = subprocess.run([sys.executable, "-c", CLAIM_AND_DIE, here.sweep.root], check=False, timeout=DEADLINE)
    assert died.returncode == -signal.SIGKILL
    assert here.run() == 2
    assert here.states() == [("finished", 2), ("finished", 1)]
    assert here.row().losses == 1


def test_what_an_agent_of_a_machine_that_is_gone_held_is_taken_over_after_the_lease(situation, clock, monkeypatch):
    """A power cut: after the restart its lock file says nothing, its beat stands still."""
    monkeypatch.setattr(leases, "time", clock)
    here = situation(["finish"], ["finish"])
    lost = open_queue(here.sweep)
    lost.owner.name = f"{lost.owner.machine}-before/1-a"
    assert lost.claim() is not None
    assert here.run() == 2
    assert here.states() == [("finished", 2), ("finished", 1)]
    assert 1000 + leases.LEASE < clock.now < 1000 + 2 * leases.LEASE
    lost.close()


def test_an_agent_does_not_wait_for_ever_for_cells_of_others(situation, clock, monkeypatch):
    monkeypatch.setattr(leases, "time", clock)
    here = situation(["finish"], ["finish"])
    other = open_queue(here.sweep)
    other.owner.name = "elsewhere:boot/1-a"
    claim = other.claim()

    def live_on():
        while here.states() != [("running", 1), ("finished", 1)]:
            time.sleep(0.005)
        end = clock.now + leases.LEASE
        while clock.now < end:
            other.beat(claim)
            time.sleep(0.005)

    with meanwhile(live_on):
        assert here.run() == 1
    assert here.states() == [("running", 1), ("finished", 1)]
    other.finish(claim)
    other.close()


# --- the database ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked_database(root):
    """Nobody else can read or write."""
    connection = sqlite3.connect(root / "studies.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


def test_a_database_that_does_not_answer_for_a_while_is_waited_for(situation, clock, monkeypatch):
    """Locked by another process while a cell is trained and until after its end."""
    monkeypatch.setattr(storage, "_SECONDS", 0.01)
    clock.speed = 1
    here = situation(["wait", "finish"], ["finish"])

    def lock():
        wait_until(here.at_work)
        with locked_database(here.sweep.root):
            (here.folder / "go on").touch()
            time.sleep(0.3)  # many times as long as a writer waits

    with meanwhile(lock):
        assert here.run() == 2
    assert here.states() == [("finished", 2), ("finished", 1)]


@pytest.mark.parametrize("call", ["claim", "waiting", "stop_requested", "beat", "finish", "fail", "release", "recover"])
def test_any_call_may_fail_now_and_then(situation, clock, monkeypatch, call):
    clock.speed = 1
    here = situation(["wait", "finish"], ["finish"])
    real, failed = getattr(DatabaseQueue, call), []

    def flaky(self, *arguments, **options):
        if len(failed) < 3:
            failed.append(call)
            raise OperationalError(call, {}, Exception("server closed the connection unexpectedly"))
        return real(self, *arguments, **options)

    def proceed():
        during = call in ("beat", "stop_requested")  # asked now and then while a worker is at work
        wait_until(lambda: here.at_work() and (not during or len(failed) == 3))
        if call == "release":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            (here.folder / "go on").touch()

    with monkeypatch.context() as patch, meanwhile(proceed):
        patch.setattr(DatabaseQueue, call, flaky)
        finished = here.run()
    assert len(failed) == 3
    if call == "release":
        assert here.states() == [("waiting", 0), ("waiting", 0)]
        finished = here.run()
        assert here.states() == [("finished", 1), ("finished", 1)]
    else:
        assert here.states() == [("finished", 2), ("finished", 1)]
    assert finished == 2


def test_a_queue_of_another_kind_may_be_away_for_a_while_too(situation, clock, monkeypatch):
    clock.speed = 1
    here = situation(["finish"])
    real, failed = DatabaseQueue.claim, []

    def flaky(self):
        if len(failed) < 3:
            failed.append(1)
            raise AwayError("the service is restarted")
        return real(self)

    monkeypatch.setattr(DatabaseQueue, "claim", flaky)
    assert here.run() == 1
    assert here.states() == [("finished", 1)]


AGENT = """
import subprocess, sys
from pathlib import Path
from sweeps.agents import agent
from sweeps.queue import storage
from sweeps.queue.opening import open_sweep

class Planned(agent.Worker):
    def __init__(self, environment):
        command = [sys.executable, "-I", "-S", sys.argv[2]]
        self.process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, start_new_session=True)

agent.Worker, agent.LEASE = Planned, 0.05
agent._STOP_POLL = storage._SECONDS = 0.01
agent.Agent(open_sweep("little", root=Path(sys.argv[1])), print).run()
"""


def test_without_its_database_an_agent_ends_and_its_cell_is_free(situation, folder):
    """In a process of its own, which gives up sooner than it would; its worker ends with it."""
    here = situation(["silent", "finish"], ["finish"])
    here.sweep.prepare(here.sweep.cells[0])
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, here.sweep.root, SCRIPT], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_until(here.at_work)
    with locked_database(here.sweep.root):
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert b"database is locked" in said
    assert not Path(f"/proc/{(folder / 'at work').read_text()}").exists()
    assert [state for state, _ in here.states()] == ["waiting", "waiting"]
    assert here.run() == 2
    assert here.states() == [("finished", 2), ("finished", 1)]
