"""An agent between a database that fails and workers that hang, die and run out of memory.

The workers are processes that do what a plan says instead of training; the agent's clock is turned by its own waiting,
quickly while a worker is at work, so that the real limits of minutes pass in milliseconds.
"""

import errno
import json
import os
import signal
import time

import pytest

from sweeps.agents import agent
from sweeps.agents.agent import Limits
from sweeps.agents.devices import Device
from sweeps.launching import SILENT, _refresh
from sweeps.queue.database import DatabaseQueue
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.opening import open_queue
from sweeps.runs.endings import Ending
from tests.sweeps.agents.situations import OUT_OF_MEMORY, meanwhile, wait_until

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


def test_a_run_that_a_person_stopped_is_done_until_it_is_asked_for(situation, moe):
    here = situation(["stopped by you", "finish"], ["finish"])
    here.run()
    assert here.states() == [("finished", 1), ("finished", 1)]
    assert here.queue.states()[here.ids[0]].ending is Ending.STOPPED
    _, said, _ = moe("sweep", "status", "little")
    assert "stopped by you in W&B" in said
    assert "1 of 2 stopped by you in W&B; `moe sweep retry little --stopped` goes on with them" in said
    _, said, _ = moe("compare", "little", "--json")
    assert json.loads(said)["notes"][0].startswith("1 run was stopped by you")
    here.queue.update(set(), failed=True)  # as resume does
    here.run()
    assert here.queue.states()[here.ids[0]].ending is Ending.STOPPED
    _refresh(here.sweep, here.queue, SILENT, failed=True, stopped=True)  # as retry does
    assert here.run() == 1
    assert here.states() == [("finished", 1), ("finished", 1)]
    assert here.queue.states()[here.ids[0]].ending is Ending.FINISHED


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


@pytest.mark.slow
def test_an_attempt_that_takes_too_long_is_ended_and_counted(situation, clock):
    here = situation(["busy", "busy", "finish"], ["busy"], ["finish"])
    assert here.run(limits=Limits(minutes=30)) == 2
    assert here.states() == [("finished", 3), ("failed", 3), ("finished", 1)]
    assert here.row(1).error == "not finished after 30 minutes"
    assert clock.now > 1000 + 5 * 30 * 60


@pytest.mark.slow
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


def test_why_a_worker_ends_before_it_has_an_order_is_told(situation):
    here = situation(["finish"])
    (here.folder / "imports fail").touch()
    assert here.run() == 0
    assert here.states() == [("failed", 3)]
    error = "ImportError: libcudart.so.13: cannot open shared object file"
    assert (here.row().error, here.row().note) == (error, f"Traceback (most recent call last):\n{error}")
    assert here.sweep.store.run(here.ids[0]).log_file.read_text().count(error) == 3


def failing(here, monkeypatch, cell_number, number):
    """The folder of a cell's run cannot be made."""
    real = LaunchedSweep.prepare

    def prepare(self, cell):
        if cell.run_id == here.ids[cell_number]:
            raise OSError(number, os.strerror(number))
        return real(self, cell)

    monkeypatch.setattr(LaunchedSweep, "prepare", prepare)


def test_trouble_around_a_cell_is_not_that_of_the_others(situation, monkeypatch):
    here = situation(["finish"], ["finish"])
    failing(here, monkeypatch, 0, errno.EACCES)
    assert here.run() == 1
    assert here.states() == [("failed", 3), ("finished", 1)]
    assert here.row().error == "PermissionError: [Errno 13] Permission denied"


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_on_a_full_disk_the_cell_is_handed_back_uncounted_and_the_agent_ends(situation, moe):
    here = situation(["disk full", "disk full", "finish"], ["finish"])
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device") as caught:
            here.run()
        assert caught.value.filename == str(here.sweep.store.run(here.ids[0]).path)
        assert here.states() == [("waiting", 0), ("waiting", 0)]
        assert here.row().failures == 0
    _, said, _ = moe("sweep", "status", "little", "--json")
    first, other = json.loads(said)["trials"]
    assert (first["ending"], first["error"].split(";")[0]) == ("disk full", "handed back, as the disk was full")
    assert (other["ending"], other["error"]) == (None, None)
    assert here.run() == 2
    assert here.states() == [("finished", 1), ("finished", 1)]


def test_so_where_the_agent_itself_finds_the_disk_full(situation, monkeypatch):
    here = situation(["finish"], ["finish"], ["finish"])
    failing(here, monkeypatch, 1, errno.EDQUOT)
    with pytest.raises(OSError, match="No space left on device"):
        here.run()
    assert here.states() == [("finished", 1), ("waiting", 0), ("waiting", 0)]


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


def test_a_worker_that_the_system_killed_for_its_memory_is_told_from_one_that_a_person_killed(situation, monkeypatch):
    counts = iter([4, 5, 5, 5, 5, 5])  # asked before each attempt, and after one that was killed
    monkeypatch.setattr(agent, "memory_kills", counts.__next__)
    here = situation(["kill", "kill", "finish"])
    assert here.run() == 1
    lines = [line for line in here.said if "failed" in line]
    assert "killed by SIGKILL: the machine has no more memory for run" in lines[0]
    assert "lower train.batch_size=16, data.image_size=16, model.width=0.0625" in lines[0]
    assert "failed (killed by SIGKILL)" in lines[1]


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
