"""For tests of queues: the promises that every queue keeps.

class TestShelf(QueueContract):
    kind = ShelfQueue
"""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sweeps.queue.base import Claim, LeaseLostError, Queue, SteerableQueue
from sweeps.queue.launched import LaunchedSweep, QueuedCell
from sweeps.runs.endings import Ending

CELLS = tuple(QueuedCell(f"run{number:02d}", {"seed": number, "augment.crop_scale": [0.1, 1.0]}) for number in range(6))
_MANY = tuple(QueuedCell(f"run{number:02d}", {"seed": number}) for number in range(24))
_AGENTS = 4


def taken(queue: Queue) -> Claim:
    """The next cell, which there has to be."""
    claim = queue.claim()
    assert claim is not None, "no cell waits"
    return claim


def claim_and_die(kind: type[Queue], sweep: LaunchedSweep) -> None:
    """As an agent that is killed at once; to be run as a process."""
    if kind(sweep).claim() is not None:
        os.kill(os.getpid(), signal.SIGKILL)


def drain(kind: type[Queue], sweeps: list[LaunchedSweep], log: Path, barrier: Any) -> None:
    """Finish whatever waits, and note it; to be run as several processes."""
    for sweep in sweeps:
        queue = kind(sweep)
        barrier.wait()
        claim = queue.claim()
        barrier.wait()  # each has one before any takes a second
        while claim is not None:
            with log.open("a") as file:
                file.write(f"{sweep.name} {claim.cell.run_id} {os.getpid()}\n")
            queue.finish(claim)
            claim = queue.claim()
        queue.close()


def in_process(target: Any, *arguments: Any) -> BaseProcess:
    """A process that does this and shares nothing with us."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


class QueueContract:
    """The promises that every queue keeps. Subclass it in a test and name the queue.

    Attributes:
        kind: the queue under test.
        sweeps: so many sweeps are drained by four processes at once.
    """

    kind: ClassVar[type[Queue]]
    sweeps: ClassVar[int] = 5

    def launched(self, root: Path, name: str = "sweep") -> LaunchedSweep:
        """A sweep for the queue; `root` is an empty folder, and the same for all that share the queue."""
        return LaunchedSweep(name, root)

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Any]:
        """Opens the queue of one sweep, any number of times; closes all at the end."""
        queues: list[Queue] = []

        def one(root: Path = tmp_path) -> Queue:
            queues.append(self.kind(self.launched(root)))
            return queues[-1]

        yield one
        for queue in queues:
            queue.close()

    # --- consistency ------------------------------------------------------------------------------------------------

    def test_cells_are_handed_out_once_in_order(self, opened: Any) -> None:
        """Each cell goes to one claim."""
        queue = opened()
        queue.publish(CELLS)
        claims = [taken(queue) for _ in CELLS]
        assert [claim.cell for claim in claims] == list(CELLS)
        assert queue.claim() is None
        for claim in claims:
            queue.finish(claim)
        assert [(cell.state, cell.ending) for cell in queue.states().values()] == [("finished", Ending.FINISHED)] * 6
        assert queue.claim() is None

    def test_publishing_again_adds_only_what_is_new(self, opened: Any) -> None:
        """Known cells keep their state."""
        queue = opened()
        queue.publish(CELLS[:2])
        queue.finish(taken(queue))
        opened().publish(CELLS[:3])
        assert [cell.state for cell in queue.states().values()] == ["finished", "waiting", "waiting"]
        assert queue.waiting() == 2

    def test_cells_of_an_earlier_version_of_the_sweep_are_let_be(self, opened: Any) -> None:
        """They are not handed out and not shown."""
        opened().publish(CELLS[:3])
        now = opened()
        now.publish(CELLS[2:4])
        claimed = [taken(now).cell.run_id, taken(now).cell.run_id]
        assert (claimed, now.claim()) == ([CELLS[2].run_id, CELLS[3].run_id], None)
        assert set(now.states()) == set(claimed)

    def test_four_agents_at_once_never_share_a_cell(self, tmp_path: Path) -> None:
        """24 cells in each of several sweeps, four processes that start together on each."""
        sweeps = [self.launched(tmp_path, f"sweep{number}") for number in range(self.sweeps)]
        for sweep in sweeps:
            queue = self.kind(sweep)
            queue.publish(_MANY)
            queue.close()
        log = tmp_path / "log"
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(_AGENTS)
        processes = [context.Process(target=drain, args=(self.kind, sweeps, log, barrier)) for _ in range(_AGENTS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * _AGENTS
        lines = [line.split() for line in log.read_text().splitlines()]
        expected = Counter((sweep.name, cell.run_id) for sweep in sweeps for cell in _MANY)
        assert Counter((name, run_id) for name, run_id, _ in lines) == expected
        assert {len({process for name, _, process in lines if name == sweep.name}) for sweep in sweeps} == {_AGENTS}

    # --- how trials end ---------------------------------------------------------------------------------------------

    def test_a_failed_cell_waits_again_until_told_not_to(self, opened: Any) -> None:
        """Attempts and failures are counted; with `failed` it is as new."""
        queue = opened()
        queue.publish(CELLS[:1])
        first = taken(queue)
        queue.fail(first, Ending.FAILED, "a fault", retry=True)
        second = taken(queue)
        assert (first.attempt, second.attempt) == (1, 2)
        queue.fail(second, Ending.TIMED_OUT, "too long", retry=False, tail="the end of its log")
        assert queue.claim() is None
        cell = queue.states()[CELLS[0].run_id]
        assert (cell.state, cell.attempts, cell.error) == ("failed", 2, "too long")
        assert (cell.ending, cell.note) == (Ending.TIMED_OUT, "the end of its log")
        assert (first.failures, second.failures) == (0, 1)
        assert queue.recover() == 0
        assert queue.recover(failed=True) == 1
        assert taken(queue).attempt == 1

    def test_a_released_cell_keeps_its_attempt(self, opened: Any) -> None:
        """It was not the cell's fault."""
        queue = opened()
        queue.publish(CELLS[:1])
        queue.release(taken(queue))
        cell = queue.states()[CELLS[0].run_id]
        assert (cell.state, cell.ending) == ("waiting", Ending.INTERRUPTED)
        assert taken(queue).attempt == 1

    def test_a_cell_may_weigh_more_when_it_comes_back(self, opened: Any) -> None:
        """After a lack of memory."""
        queue = opened()
        queue.publish(CELLS[:1])
        claim = taken(queue)
        assert claim.weight == 1
        queue.release(claim, Ending.OUT_OF_MEMORY, weight=4)
        again = taken(queue)
        assert (again.weight, again.attempt) == (4, 1)

    def test_a_cell_may_be_done_without_results(self, opened: Any) -> None:
        """It is not taken for one whose results were deleted."""
        queue = opened()
        queue.publish(CELLS[:2])
        queue.finish(taken(queue), Ending.STOPPED_EARLY, "not among the best")
        queue.finish(taken(queue))
        early, done = queue.states().values()
        assert (early.ending, early.note) == (Ending.STOPPED_EARLY, "not among the best")
        assert [cell.lacks_results(set()) for cell in (early, done)] == [False, True]

    def test_finished_cells_can_be_queued_again(self, opened: Any) -> None:
        """Their results were deleted, say."""
        queue = opened()
        queue.publish(CELLS[:1])
        queue.finish(taken(queue))
        queue.publish_again(CELLS[:1])
        assert taken(queue).cell == CELLS[0]

    def test_runs_finished_elsewhere_are_linked(self, opened: Any) -> None:
        """Only cells that wait are closed."""
        queue = opened()
        queue.publish(CELLS[:3])
        running = taken(queue)
        queue.mark_finished(CELLS[:2])
        assert [cell.state for cell in queue.states().values()] == ["running", "finished", "waiting"]
        queue.finish(running)

    # --- ownership --------------------------------------------------------------------------------------------------

    def test_a_living_agents_cell_is_not_recovered(self, opened: Any) -> None:
        """Whoever asks."""
        queue, other = opened(), opened()
        queue.publish(CELLS[:1])
        claim = taken(queue)
        queue.beat(claim)
        assert other.recover(failed=True) == 0
        assert other.claim() is None
        assert other.states()[claim.cell.run_id].state == "running"

    def test_a_killed_agents_cell_is_recovered_once(self, opened: Any, tmp_path: Path) -> None:
        """Its process got SIGKILL."""
        queue = opened()
        queue.publish(CELLS[:2])
        process = in_process(claim_and_die, self.kind, self.launched(tmp_path))
        process.join()
        assert process.exitcode == -signal.SIGKILL
        cell = queue.states()[CELLS[0].run_id]
        assert (cell.state, cell.ending) == ("waiting", Ending.LOST)
        assert queue.recover() == 1
        assert queue.recover() == 0
        assert {taken(queue).cell.run_id for _ in range(2)} == {"run00", "run01"}
        assert queue.claim() is None

    def test_who_does_not_hold_a_cell_changes_nothing(self, opened: Any) -> None:
        """The cell was taken back, and another has it."""
        queue, other = opened(), opened()
        queue.publish(CELLS[:1])
        lost = taken(queue)
        queue.release(lost)
        held = taken(other)
        calls: list[Callable[[], None]] = [
            lambda: queue.beat(lost),
            lambda: queue.finish(lost),
            lambda: queue.fail(lost, Ending.FAILED, "late", retry=False),
            lambda: queue.release(lost),
        ]
        for late in calls:
            with pytest.raises(LeaseLostError, match="run00"):
                late()
        other.finish(held)
        assert queue.states()["run00"].state == "finished"

    # --- the sweep --------------------------------------------------------------------------------------------------

    def test_stop_is_seen_by_others_and_can_be_withdrawn(self, opened: Any) -> None:
        """The mark is the sweep's, not the process'."""
        queue, other = opened(), opened()
        assert not other.stop_requested()
        queue.request_stop(stop=True)
        assert other.stop_requested()
        queue.request_stop(stop=False)
        assert not other.stop_requested()

    def test_the_definition_comes_back(self, opened: Any) -> None:
        """The last one that was stored."""
        queue = opened()
        assert queue.definition() is None
        queue.define({"name": "sweep", "cells": [1, 2]})
        queue.define({"name": "sweep", "cells": [1]})
        assert opened().definition() == {"name": "sweep", "cells": [1]}
        assert not queue.stop_requested()

    def test_it_says_where_it_lives(self, opened: Any) -> None:
        """In one line, for people."""
        assert opened().place.strip()
        assert "\n" not in opened().place


class SteerableQueueContract(QueueContract):
    """The further promises of a queue whose cells get their values while the sweep runs."""

    kind: ClassVar[type[SteerableQueue]]

    def test_a_filled_cell_keeps_its_values_and_its_trial(self, opened: Any) -> None:
        """Through a failure, for whichever agent has it next."""
        queue, other = opened(), opened()
        queue.publish([QueuedCell("place-00000", {"seed": 0})])
        filled = QueuedCell("run77", {"seed": 0, "train.lr": 0.1})
        claim = queue.fill(taken(queue), filled)
        queue.record_trial(claim, 7)
        assert claim.cell == filled
        queue.fail(claim, Ending.FAILED, "a fault", retry=True)
        again = taken(other)
        assert (again.cell, again.trial, again.failures) == (filled, 7, 1)
        assert list(other.states()) == ["place-00000"]

    def test_the_first_proposal_counts_for_all(self, opened: Any) -> None:
        """Later ones are not even asked for."""
        queue, other = opened(), opened()
        assert queue.suggestion(0, lambda: {"train.lr": 0.1}) == {"train.lr": 0.1}
        assert other.suggestion(0, lambda: {"train.lr": 0.9}) == {"train.lr": 0.1}
        assert other.suggestion(1, lambda: {"train.lr": 0.9}) == {"train.lr": 0.9}

    def test_what_waits_can_be_closed(self, opened: Any) -> None:
        """Running cells go on."""
        queue = opened()
        queue.publish(CELLS[:3])
        claim = taken(queue)
        assert queue.skip_waiting("the target was reached") == 2
        queue.finish(claim)
        endings = [cell.ending for cell in queue.states().values()]
        assert endings == [Ending.FINISHED, Ending.NOT_NEEDED, Ending.NOT_NEEDED]
