"""An agent in a situation: its workers do what a plan says, and its clock is turned by its own waiting.

Quickly while a worker is at work, so that the real limits of minutes pass in milliseconds.
"""

import contextlib
import json
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from sweeps.agents import agent
from sweeps.agents.agent import Agent
from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue
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
        command = (sys.executable, "-I", "-S", str(SCRIPT))

        @classmethod
        def start(cls, environment):
            started.append(super().start(environment))
            return started[-1]

        def another(self):
            """They start quickly as they are."""

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
