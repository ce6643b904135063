"""The promises of a sweep backend, on the local one."""

import multiprocessing
import os
import signal

import pytest

from sweeps.backend import Job
from sweeps.launch import BACKENDS

JOBS = [Job(f"run{number:02d}", {"seed": number, "augment.crop_scale": [0.1, 1.0]}) for number in range(6)]


def drain(name, root, log, barrier):
    backend = BACKENDS[name]("sweep", root)
    barrier.wait()
    while (claim := backend.claim()) is not None:
        with log.open("a") as file:
            file.write(f"{claim.job.run_id} {os.getpid()}\n")
        backend.finish(claim, 1.0)


def claim_and_die(name, root):
    backend = BACKENDS[name]("sweep", root)
    assert backend.claim() is not None
    os.kill(os.getpid(), signal.SIGKILL)


def in_process(target, *arguments):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@pytest.fixture
def open_backend(name, tmp_path):
    """Opens the backend, any number of times; closes all at the end."""
    opened = []

    def open_one():
        opened.append(BACKENDS[name]("sweep", tmp_path))
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

    def test_a_killed_agents_cell_is_recovered_once(self, name, tmp_path, open_backend):
        backend = open_backend()
        backend.publish(JOBS[:2])
        process = in_process(claim_and_die, name, tmp_path)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert backend.states()[JOBS[0].run_id].state == "waiting"
        assert backend.recover() == 1
        assert backend.recover() == 0
        assert {backend.claim().job.run_id for _ in range(2)} == {"run00", "run01"}
        assert backend.claim() is None

    def test_cells_of_an_earlier_version_of_the_sweep_are_let_be(self, name, tmp_path, open_backend):
        open_backend().publish(JOBS[:3])
        now = BACKENDS[name]("sweep", tmp_path)
        now.publish(JOBS[2:4])
        claimed = [now.claim().job.run_id, now.claim().job.run_id]
        assert (claimed, now.claim()) == ([JOBS[2].run_id, JOBS[3].run_id], None)
        assert set(now.states()) == set(claimed)
        now.close()

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

    @pytest.mark.slow
    def test_agents_at_once_never_share_a_cell(self, name, tmp_path, open_backend):
        jobs = [Job(f"run{number:02d}", {"seed": number}) for number in range(24)]
        open_backend().publish(jobs)
        log = tmp_path / "log"
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(4)
        processes = [context.Process(target=drain, args=(name, tmp_path, log, barrier)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        done = [line.split()[0] for line in log.read_text().splitlines()]
        assert sorted(done) == [job.run_id for job in jobs]
