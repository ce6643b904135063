"""Leases and databases that fail under an agent (see `situations`)."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from sweeps.agents.agent import Limits
from sweeps.queue import leases, storage
from sweeps.queue.base import AwayError
from sweeps.queue.database import DatabaseQueue
from sweeps.queue.opening import open_queue
from tests.sweeps.agents.situations import DEADLINE, SCRIPT, meanwhile, wait_until

# --- the lease ------------------------------------------------------------------------------------------------------


def test_a_cell_lost_while_it_is_trained_is_dropped_and_nothing_recorded(situation, clock, workers):
    """Another agent took it: its worker is killed at once, and the agent goes on with the next cell."""
    clock.speed = 1  # so that a beat does not follow the other: none is to come between another's look and its update
    here = situation(["stubborn"], ["finish"])
    other = open_queue(here.sweep)
    other.owner.known_dead = lambda name: name != other.owner.name
    claims = []

    def take():
        wait_until(here.at_work)
        wait_until(other.recover)
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
import sys
from pathlib import Path
from sweeps.agents import agent
from sweeps.queue import storage
from sweeps.queue.opening import open_sweep

class Planned(agent.Worker):
    command = (sys.executable, "-I", "-S", sys.argv[2])

    def another(self):
        pass

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
