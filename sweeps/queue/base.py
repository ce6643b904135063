"""What hands out the cells of a sweep, and what it guarantees whoever brings it."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sweeps.plan.spec import Sweep
from sweeps.queue.launched import LaunchedSweep, QueuedCell
from sweeps.runs.endings import Ending
from sweeps.runs.state import State


@dataclass(frozen=True)
class Offer:
    """A queue's answer to whether it runs a sweep.

    Attributes:
        accepted: whether it does.
        why: the reason, in words that fit behind its name and a colon.
        if_named: it does, but `auto` asks the others.
    """

    accepted: bool
    why: str
    if_named: bool = False


@dataclass(frozen=True)
class Claim:
    """A cell handed to one agent.

    Attributes:
        cell: the cell.
        attempt: number of this trial of the cell, from 1.
        failures: trials before that failed by themselves.
        weight: slots on a device that it needs: more than one after it ran out of memory beside others.
        key: the queue's name of the cell: the run id it was published under.
        trial: number of its trial in the Optuna study, if it has one.
    """

    cell: QueuedCell
    attempt: int
    failures: int = 0
    weight: int = 1
    key: str = ""
    trial: int | None = None


@dataclass(frozen=True)
class CellState:
    """How a cell stands.

    Attributes:
        cell: the cell as it is now, its values found.
        state: of its newest trial; waiting if its agent is gone.
        attempts: how many trials there were.
        error: why the last one ended, unless the cell is finished.
        here: whether the results of a finished cell lie in this `MOE_HOME`.
        where: host that runs it.
        ending: how the newest trial ended; None while none has.
        note: more about it in words: why a finished cell has no results, the end of a failed one's log.
    """

    cell: QueuedCell
    state: State
    attempts: int = 0
    error: str | None = None
    here: bool = True
    where: str | None = None
    ending: Ending | None = None
    note: str | None = None

    def lacks_results(self, finished: set[str]) -> bool:
        """Whether it is finished, its results should lie here, and they do not.

        Args:
            finished: ids of the finished runs in this `MOE_HOME`.
        """
        expected = self.state == "finished" and self.here and self.ending is not None and self.ending.has_results
        return expected and self.cell.run_id not in finished


class LeaseLostError(Exception):
    """The cell was taken for lost and given to another agent; this one has to drop it."""


class AwayError(Exception):
    """The queue's service does not answer just now."""


class Queue(ABC):
    """Hands out each cell of one sweep until it is finished.

    Other packages bring queues by the entry point group "moe.queues"; `sweeps.testing.QueueContract` is the test that
    they keep what follows.

    Ownership
    ---------
    A cell is held by one agent at a time. `claim` gives it away; `beat`, `finish`, `fail`, `release` and `fill` are for
    its holder, and raise LeaseLostError once the cell is no longer the caller's. Nothing is changed then.

    A holder that died, however it died, loses its cell: `recover` lets it wait again, once, whoever calls it and
    however many do at the same time. A living holder keeps its cell as long as it calls `beat` every few seconds.
    Whether it lives is never found out by comparing the clocks of two machines.

    Consistency
    -----------
    Every method takes effect as a whole or not at all, also when its process is killed in the middle, and every other
    process sees that at its next call. Two agents that claim at the same time get two cells.

    Cells are claimed in the order in which they were published. `states` has every published cell once, in this order.

    Durability
    ----------
    What a method has done outlives the process, the agents and the launcher. Finished cells stay finished until
    `publish_again`. A sweep that is published anew keeps the state of every cell that it had before; cells that it no
    longer has are let be.

    Processes
    ---------
    An object belongs to one process and one thread. Every agent, the launcher and whoever asks for the state opens one
    of its own; `close` lets go of what it holds, and a cell that it still holds is taken for lost.

    Failures
    --------
    A service that does not answer for a while raises AwayError, or SQLAlchemy's OperationalError; agents ask again for
    the length of a lease. A mistake that a person can mend, such as a wrong address, raises UserError.
    """

    precedence: ClassVar[int] = -1  # `auto` asks those with the highest number first, and never below 0
    steers_itself: ClassVar[bool] = False  # whether its service finds values and ends runs early, not we

    def __init__(self, sweep: LaunchedSweep) -> None:
        """Open a sweep's queue."""
        self.sweep = sweep

    # --- before there is a queue ------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def offer(cls, sweep: Sweep) -> Offer:
        """Whether this kind of queue can run a sweep, here and now."""

    @classmethod
    def create(cls, sweep: Sweep) -> str | None:
        """Make the sweep in the service that the queue belongs to; its address there, None without such a service.

        Raises:
            UserError: the service refuses it.
        """
        return None

    @classmethod
    def draws(cls, sweep: Sweep) -> tuple[QueuedCell, ...] | None:
        """Blank cells of a sweep whose values its service finds; None: its cells are as its file expands."""
        return None

    @classmethod
    def find(cls, address: str) -> Sweep | None:
        """The sweep at an address in the queue's service; None if the address is not one of its own.

        Raises:
            UserError: there is no such sweep, or this version cannot run it.
        """
        return None

    @classmethod
    def stored(cls, name: str, root: Path, storage: str) -> dict[str, Any] | None:
        """What `define` stored for a sweep that this machine does not know yet; None if nothing.

        Args:
            name: of the sweep.
            root: `MOE_HOME`.
            storage: where queues of this kind keep what is shared.
        """
        queue = cls(LaunchedSweep(name, root, storage=storage))
        try:
            return queue.definition()
        finally:
            queue.close()

    # --- the sweep --------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the queue lives, for people."""

    @property
    def tracker_sweep(self) -> str | None:
        """Id of the sweep that the tracker itself knows, if its runs are grouped by one."""
        return None

    @abstractmethod
    def define(self, definition: Mapping[str, Any]) -> None:
        """Store what another machine needs to join the sweep."""

    @abstractmethod
    def definition(self) -> dict[str, Any] | None:
        """What `define` stored last, or None."""

    def update(self, finished: set[str], *, failed: bool) -> None:
        """Bring the queue up to date, so that every cell that is to be run waits, and no other.

        Args:
            finished: ids of the finished runs in this `MOE_HOME`.
            failed: let failed cells wait again too.
        """
        cells = self.sweep.cells
        self.publish(cells)
        self.recover(failed=failed)
        known = self.states()
        self.publish_again([cell for cell in cells if known[cell.run_id].lacks_results(finished)])
        waiting = (cell for cell in cells if known[cell.run_id].state == "waiting")
        self.mark_finished([cell for cell in waiting if cell.run_id in finished])

    @abstractmethod
    def request_stop(self, *, stop: bool) -> None:
        """Ask agents to hand back their cells and end, or (False) withdraw that."""

    @abstractmethod
    def stop_requested(self) -> bool:
        """Whether agents shall end."""

    def agent_command(self) -> list[str] | None:
        """The command of a foreign agent, to which the service itself hands cells; None: ours claim them here."""
        return None

    def held(self) -> str | None:
        """Says what is waited for before `left_over` is final: cells whose holder may be gone; None: nothing."""
        return None

    def left_over(self) -> list[QueuedCell]:
        """After foreign agents: cells that their service calls done and that are not, published for ours to claim."""
        return []

    def trained_elsewhere(self) -> list[tuple[str, str]]:
        """Path in the tracker and run id of finished runs that may have been trained on other machines."""
        return []

    # --- cells ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def publish(self, cells: Sequence[QueuedCell]) -> None:
        """Make these the sweep's cells; known ones keep their state, those of an earlier version are let be."""

    @abstractmethod
    def publish_again(self, cells: Sequence[QueuedCell]) -> None:
        """Let finished cells wait again, as if they were new; others are let be."""

    @abstractmethod
    def mark_finished(self, cells: Sequence[QueuedCell]) -> None:
        """Close waiting cells whose run is finished already, by another sweep or alone; others are let be."""

    @abstractmethod
    def recover(self, *, failed: bool = False) -> int:
        """Let cells whose holder is gone wait again (with `failed`: failed ones too, as if new); returns how many."""

    @abstractmethod
    def waiting(self) -> int:
        """Number of cells that wait."""

    @abstractmethod
    def states(self) -> dict[str, CellState]:
        """State of every cell, by the run id it was published under."""

    # --- what agents say --------------------------------------------------------------------------------------------

    @abstractmethod
    def claim(self) -> Claim | None:
        """Take the first waiting cell, or None if none waits."""

    @abstractmethod
    def beat(self, claim: Claim) -> None:
        """Say that the cell's agent lives; to be called every few seconds."""

    @abstractmethod
    def finish(self, claim: Claim, ending: Ending = Ending.FINISHED, note: str | None = None) -> None:
        """The cell is done; `note` says why, where the ending leaves no results."""

    @abstractmethod
    def fail(self, claim: Claim, ending: Ending, reason: str, *, retry: bool, tail: str | None = None) -> None:
        """The trial failed, for a reason in one line; with `retry` the cell waits again, else `tail` ends its log."""

    @abstractmethod
    def release(self, claim: Claim, ending: Ending = Ending.INTERRUPTED, *, weight: int | None = None) -> None:
        """Hand a cell back unfinished, not counted as an attempt; `weight` changes the slots it needs."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held."""


class SteerableQueue(Queue):
    """A queue whose cells may get their values, or be ended early, while the sweep runs.

    Agreement
    ---------
    A suggestion has the values of the first proposal, for every agent that asks, for ever.

    Filling
    -------
    A cell that was given values keeps them, and its number in the Optuna study, through every later trial.

    Closing
    -------
    `close` closes `with_it`, too: what others have opened for as long as the queue is open.
    """

    def __init__(self, sweep: LaunchedSweep) -> None:
        super().__init__(sweep)
        self.with_it = contextlib.ExitStack()

    @property
    @abstractmethod
    def study(self) -> str:
        """URL of the database that holds the sweep's Optuna study."""

    @abstractmethod
    def fill(self, claim: Claim, cell: QueuedCell) -> Claim:
        """Give a claimed blank cell the values that were found for it; returns the claim with them."""

    @abstractmethod
    def suggestion(self, number: int, propose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The values of a suggestion: the first that any agent proposed, for all of them."""

    @abstractmethod
    def record_trial(self, claim: Claim, trial: int) -> None:
        """Remember the number of the cell's trial in the Optuna study."""

    @abstractmethod
    def skip_waiting(self, note: str) -> int:
        """Close the cells that wait: they need not be run; returns how many."""
