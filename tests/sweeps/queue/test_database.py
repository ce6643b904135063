"""The promises of a sweep backend, on the local one with SQLite and with a real PostgreSQL server."""

import multiprocessing
import os
import signal
from collections import Counter

import pytest

from moe.errors import UserError
from sweeps.queue import database, leases
from sweeps.queue.base import LeaseLostError
from sweeps.queue.launched import LaunchedSweep, QueuedCell
from sweeps.queue.opening import open_queue
from sweeps.queue.storage import without_password

CELLS = [QueuedCell(f"run{number:02d}", {"seed": number, "augment.crop_scale": [0.1, 1.0]}) for number in range(6)]


def launched(name, root, storage=None):
    return LaunchedSweep(name, root, storage=storage)


def drain(root, storage, sweeps, log, barrier):
    for sweep in sweeps:
        backend = open_queue(launched(sweep, root, storage))
        barrier.wait()
        while (claim := backend.claim()) is not None:
            with log.open("a") as file:
                file.write(f"{sweep} {claim.cell.run_id} {os.getpid()}\n")
            backend.finish(claim)
        backend.close()


def claim_and_die(root, storage):
    backend = open_queue(launched("sweep", root, storage))
    assert backend.claim() is not None
    os.kill(os.getpid(), signal.SIGKILL)


def in_process(target, *arguments):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@pytest.fixture
def open_backend(tmp_path, storage):
    """Opens the backend, any number of times; closes all at the end."""
    opened = []

    def open_one(root=tmp_path):
        opened.append(open_queue(launched("sweep", root, storage)))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


class TestBackendContract:
    """The promises of a queue."""

    def test_cells_are_handed_out_once_in_order(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS)
        claims = [backend.claim() for _ in CELLS]
        assert [claim.cell for claim in claims] == CELLS
        assert backend.claim() is None
        for claim in claims:
            backend.finish(claim)
        assert {state.state for state in backend.states().values()} == {"finished"}
        assert backend.claim() is None

    def test_publishing_again_adds_only_what_is_new(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:2])
        backend.finish(backend.claim())
        open_backend().publish(CELLS[:3])
        assert [state.state for state in backend.states().values()] == ["finished", "waiting", "waiting"]

    def test_a_failed_cell_waits_again_until_told_not_to(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:1])
        first = backend.claim()
        backend.fail(first, "out of memory", retry=True)
        second = backend.claim()
        assert (first.attempt, second.attempt) == (1, 2)
        backend.fail(second, "out of memory again", retry=False)
        assert backend.claim() is None
        state = backend.states()[CELLS[0].run_id]
        assert (state.state, state.attempts, state.error) == ("failed", 2, "out of memory again")
        assert (first.failures, second.failures) == (0, 1)
        assert backend.recover() == 0
        assert backend.recover(failed=True) == 1
        assert backend.claim().attempt == 1

    def test_a_released_cell_keeps_its_attempt(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:1])
        backend.release(backend.claim())
        assert backend.states()[CELLS[0].run_id].state == "waiting"
        assert backend.claim().attempt == 1

    def test_a_living_agents_cell_is_not_recovered(self, open_backend):
        backend, other = open_backend(), open_backend()
        backend.publish(CELLS[:1])
        claim = backend.claim()
        assert other.recover(failed=True) == 0
        assert other.claim() is None
        assert other.states()[claim.cell.run_id].state == "running"

    def test_a_killed_agents_cell_is_recovered_once(self, tmp_path, storage, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:2])
        process = in_process(claim_and_die, tmp_path, storage)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert backend.states()[CELLS[0].run_id].state == "waiting"
        assert backend.recover() == 1
        assert backend.recover() == 0
        assert {backend.claim().cell.run_id for _ in range(2)} == {"run00", "run01"}
        assert backend.claim() is None

    def test_cells_of_an_earlier_version_of_the_sweep_are_let_be(self, open_backend):
        open_backend().publish(CELLS[:3])
        now = open_backend()
        now.publish(CELLS[2:4])
        claimed = [now.claim().cell.run_id, now.claim().cell.run_id]
        assert (claimed, now.claim()) == ([CELLS[2].run_id, CELLS[3].run_id], None)
        assert set(now.states()) == set(claimed)

    def test_stop_is_seen_by_others_and_can_be_withdrawn(self, open_backend):
        backend, other = open_backend(), open_backend()
        assert not other.stop_requested()
        backend.request_stop(stop=True)
        assert other.stop_requested()
        backend.request_stop(stop=False)
        assert not other.stop_requested()

    def test_finished_cells_can_be_queued_again(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:1])
        backend.finish(backend.claim())
        backend.publish_again(CELLS[:1])
        assert backend.claim().cell == CELLS[0]

    def test_a_cell_that_brings_its_agent_down_again_and_again_is_given_up(self, open_backend, monkeypatch):
        monkeypatch.setattr(leases.Owner, "known_dead", lambda self, name: name != self.name)
        backend, other = open_backend(), open_backend()
        backend.publish(CELLS[:1])
        for _ in range(database.LOSSES):
            assert other.claim() is not None
            assert backend.recover() == 1
        state = backend.states()[CELLS[0].run_id]
        assert (state.state, state.error) == ("failed", f"its agent was lost {database.LOSSES} times")

    def test_an_agent_elsewhere_keeps_its_cell_while_its_beat_goes_on(self, open_backend, tmp_path, monkeypatch):
        """Another machine: no lock file tells, and its clock may say anything; ours is steady."""
        clock = [1000.0]
        monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
        far = open_backend()
        far.owner.name = "elsewhere:boot/1-a"
        far.publish(CELLS[:1])
        claim = far.claim()
        near = open_backend()
        for _ in range(3):
            assert near.recover() == 0
            clock[0] += leases.LEASE - 1
            assert near.recover() == 0
            far.beat(claim)
        assert near.recover() == 0  # the beat moved on
        clock[0] += leases.LEASE + 1
        assert near.recover() == 1
        assert near.recover() == 0
        with pytest.raises(LeaseLostError, match="run00"):
            far.beat(claim)
        again = near.claim()
        with pytest.raises(LeaseLostError):
            far.finish(claim)
        with pytest.raises(LeaseLostError):
            far.fail(claim, "late", retry=True)
        with pytest.raises(LeaseLostError):
            far.release(claim)
        near.finish(again)
        assert near.states()[CELLS[0].run_id].state == "finished"

    def test_a_cell_killed_between_claim_and_first_beat_is_recovered(self, open_backend, monkeypatch):
        clock = [1000.0]
        monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
        far = open_backend()
        far.owner.name = "elsewhere:boot/1-a"
        far.publish(CELLS[:1])
        assert far.claim() is not None
        near = open_backend()
        assert near.recover() == 0
        clock[0] += leases.LEASE + 1
        assert near.recover() == 1

    def test_two_that_recover_at_once_do_it_once(self, open_backend, monkeypatch):
        monkeypatch.setattr(leases.Owner, "known_dead", lambda self, name: name != self.name)
        lost, first, second = open_backend(), open_backend(), open_backend()
        lost.publish(CELLS[:1])
        lost.claim()
        (row,) = first._rows("running")
        assert first._take_back(row)
        assert not second._take_back(row)  # it read the row before, too
        assert first.waiting() == 1

    def test_a_cell_may_weigh_more_when_it_comes_back(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:1])
        claim = backend.claim()
        assert claim.weight == 1
        backend.release(claim, weight=4)
        again = backend.claim()
        assert (again.weight, again.attempt) == (4, 1)

    def test_runs_finished_elsewhere_are_linked(self, open_backend):
        backend = open_backend()
        backend.publish(CELLS[:3])
        running = backend.claim()
        backend.mark_finished(CELLS[:2])
        states = [state.state for state in backend.states().values()]
        assert states == ["running", "finished", "waiting"]
        backend.finish(running)

    def test_results_of_another_home_count_as_elsewhere(self, open_backend, tmp_path):
        backend, other = open_backend(), open_backend(tmp_path / "other")
        if backend.url != other.url:
            pytest.skip("two homes share a PostgreSQL server, not a SQLite file")
        backend.publish(CELLS[:1])
        other.finish(other.claim())
        assert not backend.states()[CELLS[0].run_id].here
        assert other.states()[CELLS[0].run_id].here

    def test_the_definition_comes_back(self, open_backend):
        backend = open_backend()
        assert backend.definition() is None
        backend.define({"name": "sweep", "cells": [1, 2]})
        backend.define({"name": "sweep", "cells": [1]})
        assert open_backend().definition() == {"name": "sweep", "cells": [1]}
        assert not backend.stop_requested()

    @pytest.mark.slow
    def test_four_agents_at_once_never_share_a_cell(self, tmp_path, storage):
        """24 cells; twenty times on SQLite, five on PostgreSQL."""
        cells = [QueuedCell(f"run{number:02d}", {"seed": number}) for number in range(24)]
        sweeps = [f"sweep{number}" for number in range(20 if storage is None else 5)]
        for sweep in sweeps:
            backend = open_queue(launched(sweep, tmp_path, storage))
            backend.publish(cells)
            backend.close()
        log = tmp_path / "log"
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(4)
        arguments = (tmp_path, storage, sweeps, log, barrier)
        processes = [context.Process(target=drain, args=arguments) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        done = Counter(tuple(line.split()[:2]) for line in log.read_text().splitlines())
        assert done == Counter((sweep, cell.run_id) for sweep in sweeps for cell in cells)
        assert len({line.split()[2] for line in log.read_text().splitlines()}) == 4  # all had their share


def test_an_older_cell_stays_with_its_dead_owner_until_recovered(tmp_path):
    """`states` reports it as waiting, but nobody can claim it before `recover`."""
    backend = open_queue(launched("sweep", tmp_path))
    backend.publish(CELLS[:1])
    process = in_process(claim_and_die, tmp_path, None)
    process.join()
    assert backend.states()[CELLS[0].run_id].error == "interrupted: its agent is gone"
    assert backend.claim() is None
    assert backend.recover() == 1
    assert backend.claim() is not None
    backend.close()
    assert not list((tmp_path / "sweeps" / "sweep" / "agents").glob("*.lock"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is no database URL; write postgresql"),
        ("mysql://me@host/db", "only sqlite and postgresql"),
        ("postgresql://me:secret@127.0.0.1:1/none", "does not answer"),
    ],
)
def test_a_wrong_storage_is_a_users_mistake(tmp_path, url, message):
    if "postgresql:" in url:
        pytest.importorskip("psycopg")
    with pytest.raises(UserError, match=message) as caught:
        open_queue(launched("sweep", tmp_path, url))
    assert "secret" not in str(caught.value)


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me@host/db"
