"""The promises of a sweep backend, on the local one with SQLite and with a real PostgreSQL server."""

import multiprocessing
import os
import signal
from collections import Counter

import pytest

from moe.errors import UserError
from sweeps.launching import BACKENDS
from sweeps.queue import database, leases
from sweeps.queue.protocol import Job, LeaseLostError
from sweeps.queue.storage import without_password

JOBS = [Job(f"run{number:02d}", {"seed": number, "augment.crop_scale": [0.1, 1.0]}) for number in range(6)]


def drain(name, root, storage, sweeps, log, barrier):
    for sweep in sweeps:
        backend = BACKENDS[name](sweep, root, storage)
        barrier.wait()
        while (claim := backend.claim()) is not None:
            with log.open("a") as file:
                file.write(f"{sweep} {claim.job.run_id} {os.getpid()}\n")
            backend.finish(claim, 1.0)
        backend.close()


def claim_and_die(name, root, storage):
    backend = BACKENDS[name]("sweep", root, storage)
    assert backend.claim() is not None
    os.kill(os.getpid(), signal.SIGKILL)


def in_process(target, *arguments):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@pytest.fixture
def open_backend(name, tmp_path, storage):
    """Opens the backend, any number of times; closes all at the end."""
    opened = []

    def open_one(root=tmp_path):
        opened.append(BACKENDS[name]("sweep", root, storage))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


@pytest.mark.parametrize("name", BACKENDS)
class TestBackendContract:
    """Any backend in BACKENDS keeps these promises."""

    def test_cells_are_handed_out_once_in_order(self, open_backend):
        backend = open_backend()
        backend.publish(JOBS)
        claims = [backend.claim() for _ in JOBS]
        assert [claim.job for claim in claims] == JOBS
        assert backend.claim() is None
        for claim in claims:
            backend.finish(claim, 0.5)
        assert {state.state for state in backend.states().values()} == {"finished"}
        assert backend.claim() is None

    def test_publishing_again_adds_only_what_is_new(self, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:2])
        backend.finish(backend.claim(), 0.1)
        open_backend().publish(JOBS[:3])
        assert [state.state for state in backend.states().values()] == ["finished", "waiting", "waiting"]

    def test_a_failed_cell_waits_again_until_told_not_to(self, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:1])
        first = backend.claim()
        backend.fail(first, "out of memory", retry=True)
        second = backend.claim()
        assert (first.attempt, second.attempt) == (1, 2)
        backend.fail(second, "out of memory again", retry=False)
        assert backend.claim() is None
        state = backend.states()[JOBS[0].run_id]
        assert (state.state, state.attempts, state.error) == ("failed", 2, "out of memory again")
        assert (first.failures, second.failures) == (0, 1)
        assert backend.recover() == 0
        assert backend.recover(failed=True) == 1
        assert backend.claim().attempt == 1

    def test_a_released_cell_keeps_its_attempt(self, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:1])
        backend.release(backend.claim())
        assert backend.states()[JOBS[0].run_id].state == "waiting"
        assert backend.claim().attempt == 1

    def test_a_living_agents_cell_is_not_recovered(self, open_backend):
        backend, other = open_backend(), open_backend()
        backend.publish(JOBS[:1])
        claim = backend.claim()
        assert other.recover(failed=True) == 0
        assert other.claim() is None
        assert other.states()[claim.job.run_id].state == "running"

    def test_a_killed_agents_cell_is_recovered_once(self, name, tmp_path, storage, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:2])
        process = in_process(claim_and_die, name, tmp_path, storage)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert backend.states()[JOBS[0].run_id].state == "waiting"
        assert backend.recover() == 1
        assert backend.recover() == 0
        assert {backend.claim().job.run_id for _ in range(2)} == {"run00", "run01"}
        assert backend.claim() is None

    def test_cells_of_an_earlier_version_of_the_sweep_are_let_be(self, open_backend):
        open_backend().publish(JOBS[:3])
        now = open_backend()
        now.publish(JOBS[2:4])
        claimed = [now.claim().job.run_id, now.claim().job.run_id]
        assert (claimed, now.claim()) == ([JOBS[2].run_id, JOBS[3].run_id], None)
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
        backend.publish(JOBS[:1])
        backend.finish(backend.claim(), None)
        backend.publish_again(JOBS[:1])
        assert backend.claim().job == JOBS[0]

    def test_a_cell_that_brings_its_agent_down_again_and_again_is_given_up(self, open_backend, monkeypatch):
        monkeypatch.setattr(leases.Owner, "known_dead", lambda self, name: name != self.name)
        backend, other = open_backend(), open_backend()
        backend.publish(JOBS[:1])
        for _ in range(database.LOSSES):
            assert other.claim() is not None
            assert backend.recover() == 1
        state = backend.states()[JOBS[0].run_id]
        assert (state.state, state.error) == ("failed", f"its agent was lost {database.LOSSES} times")

    def test_an_agent_elsewhere_keeps_its_cell_while_its_beat_goes_on(self, open_backend, tmp_path, monkeypatch):
        """Another machine: no lock file tells, and its clock may say anything; ours is steady."""
        clock = [1000.0]
        monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
        far = open_backend()
        far.owner.name = "elsewhere:boot/1-a"
        far.publish(JOBS[:1])
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
            far.finish(claim, 1.0)
        with pytest.raises(LeaseLostError):
            far.fail(claim, "late", retry=True)
        with pytest.raises(LeaseLostError):
            far.release(claim)
        near.finish(again, 2.0)
        assert near.states()[JOBS[0].run_id].state == "finished"

    def test_a_cell_killed_between_claim_and_first_beat_is_recovered(self, open_backend, monkeypatch):
        clock = [1000.0]
        monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
        far = open_backend()
        far.owner.name = "elsewhere:boot/1-a"
        far.publish(JOBS[:1])
        assert far.claim() is not None
        near = open_backend()
        assert near.recover() == 0
        clock[0] += leases.LEASE + 1
        assert near.recover() == 1

    def test_two_that_recover_at_once_do_it_once(self, open_backend, monkeypatch):
        monkeypatch.setattr(leases.Owner, "known_dead", lambda self, name: name != self.name)
        lost, first, second = open_backend(), open_backend(), open_backend()
        lost.publish(JOBS[:1])
        lost.claim()
        (row,) = first._rows("running")
        assert first._take_back(row)
        assert not second._take_back(row)  # it read the row before, too
        assert first.waiting() == 1

    def test_a_cell_may_weigh_more_when_it_comes_back(self, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:1])
        claim = backend.claim()
        assert claim.weight == 1
        backend.release(claim, weight=4)
        again = backend.claim()
        assert (again.weight, again.attempt) == (4, 1)

    def test_runs_finished_elsewhere_are_linked(self, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:3])
        running = backend.claim()
        backend.mark_finished(JOBS[:2])
        states = [state.state for state in backend.states().values()]
        assert states == ["running", "finished", "waiting"]
        backend.finish(running, 1.0)

    def test_results_of_another_home_count_as_elsewhere(self, open_backend, tmp_path):
        backend, other = open_backend(), open_backend(tmp_path / "other")
        if backend.url != other.url:
            pytest.skip("two homes share a PostgreSQL server, not a SQLite file")
        backend.publish(JOBS[:1])
        other.finish(other.claim(), 1.0)
        assert not backend.states()[JOBS[0].run_id].here
        assert other.states()[JOBS[0].run_id].here

    def test_the_definition_comes_back(self, open_backend):
        backend = open_backend()
        assert backend.definition() is None
        backend.define({"name": "sweep", "cells": [1, 2]})
        backend.define({"name": "sweep", "cells": [1]})
        assert open_backend().definition() == {"name": "sweep", "cells": [1]}
        assert not backend.stop_requested()

    @pytest.mark.slow
    def test_four_agents_at_once_never_share_a_cell(self, name, tmp_path, storage):
        """24 cells; twenty times on SQLite, five on PostgreSQL."""
        jobs = [Job(f"run{number:02d}", {"seed": number}) for number in range(24)]
        sweeps = [f"sweep{number}" for number in range(20 if storage is None else 5)]
        for sweep in sweeps:
            backend = BACKENDS[name](sweep, tmp_path, storage)
            backend.publish(jobs)
            backend.close()
        log = tmp_path / "log"
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(4)
        arguments = (name, tmp_path, storage, sweeps, log, barrier)
        processes = [context.Process(target=drain, args=arguments) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        done = Counter(tuple(line.split()[:2]) for line in log.read_text().splitlines())
        assert done == Counter((sweep, job.run_id) for sweep in sweeps for job in jobs)
        assert len({line.split()[2] for line in log.read_text().splitlines()}) == 4  # all had their share


def test_an_older_cell_stays_with_its_dead_owner_until_recovered(tmp_path):
    """`states` reports it as waiting, but nobody can claim it before `recover`."""
    backend = database.LocalBackend("sweep", tmp_path)
    backend.publish(JOBS[:1])
    process = in_process(claim_and_die, "local", tmp_path, None)
    process.join()
    assert backend.states()[JOBS[0].run_id].error == "interrupted: its agent is gone"
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
        database.LocalBackend("sweep", tmp_path, url)
    assert "secret" not in str(caught.value)


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me@host/db"
