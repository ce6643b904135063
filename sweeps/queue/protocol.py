"""What hands out the trials of a sweep: a small protocol and the names of those that implement it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweeps.runs.state import State


@dataclass(frozen=True)
class Job:
    """One cell of a sweep, as the backend keeps it.

    Attributes:
        run_id: the cell's run; of a cell whose values are still to be found, its place, such as "place-00003".
        values: the sweep's parameters for it, by dotted path; of such a cell, its seed.
    """

    run_id: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A cell handed to one agent.

    Attributes:
        job: the cell.
        attempt: number of this attempt, from 1.
        failures: attempts before that failed by themselves.
        weight: places on a device that it needs: more than one after it ran out of memory beside others.
        cell: the backend's name of the cell: the run id it was published under.
        trial: number of its trial in the Optuna study, if it has one.
    """

    job: Job
    attempt: int
    failures: int = 0
    weight: int = 1
    cell: str = ""
    trial: int | None = None


@dataclass(frozen=True)
class JobState:
    """How a cell stands.

    Attributes:
        state: of its newest attempt; waiting if its agent is gone.
        attempts: how many there were.
        error: why the last one ended, unless the cell is finished.
        here: whether the results of a finished cell lie in this `MOE_HOME`.
        where: host that runs it.
        note: of a finished cell, that it was stopped early; of a failed one, the end of its log.
        job: the cell as it is now, its values found.
    """

    state: State
    attempts: int
    error: str | None = None
    here: bool = True
    where: str | None = None
    note: str | None = None
    job: Job | None = None


class LeaseLostError(Exception):
    """The cell was taken for lost and given to another agent; this one has to drop it."""


class SweepBackend(Protocol):
    """Hands out each cell of one sweep until it is finished, never to two agents at a time.

    What an agent says of a cell (`beat`, `finish`, `fail`, `release`) raises LeaseLostError if it is no longer its own.
    """

    def __init__(self, sweep: str, root: Path, storage: str | None = None) -> None:
        """Open a sweep's queue; `storage` is a database URL."""
        ...

    def publish(self, jobs: Sequence[Job]) -> None:
        """Make these the sweep's cells; known ones keep their state, those of an earlier version are let be."""
        ...

    def publish_again(self, jobs: Sequence[Job]) -> None:
        """Let cells that were finished wait again."""
        ...

    def mark_finished(self, jobs: Sequence[Job]) -> None:
        """Close waiting cells whose run is finished already, by another sweep or alone."""
        ...

    def claim(self) -> Claim | None:
        """Take the first waiting cell, or None if none waits."""
        ...

    def beat(self, claim: Claim) -> None:
        """Say that the cell's agent lives; to be called every few seconds."""
        ...

    def finish(self, claim: Claim, value: float | None, note: str | None = None) -> None:
        """The cell is done; `value` is its metric."""
        ...

    def fail(self, claim: Claim, reason: str, *, retry: bool, tail: str | None = None) -> None:
        """The attempt failed; with `retry` the cell waits again, else `tail` is the end of its log."""
        ...

    def release(self, claim: Claim, *, weight: int | None = None) -> None:
        """Hand a cell back unfinished, not counted as an attempt; `weight` changes the places it needs."""
        ...

    def fill(self, claim: Claim, job: Job) -> Claim:
        """Give a claimed cell the values that were found for it; returns the claim with them."""
        ...

    def suggestion(self, number: int, propose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The values of a suggestion: the first that any agent proposed, for all of them."""
        ...

    def record_trial(self, claim: Claim, trial: int) -> None:
        """Remember the number of the cell's trial in the Optuna study."""
        ...

    def skip_waiting(self, note: str) -> int:
        """Close the cells that wait: they need not be run; returns how many."""
        ...

    def recover(self, *, failed: bool = False) -> int:
        """Let cells whose agent is gone wait again (with `failed`: failed ones too); returns how many."""
        ...

    def waiting(self) -> int:
        """Number of cells that wait."""
        ...

    def states(self) -> dict[str, JobState]:
        """State of every cell by run id."""
        ...

    def request_stop(self, *, stop: bool) -> None:
        """Ask agents to hand back their cells and end, or (False) withdraw that."""
        ...

    def stop_requested(self) -> bool:
        """Whether agents shall end."""
        ...

    def define(self, definition: Mapping[str, Any]) -> None:
        """Store what another machine needs to join the sweep."""
        ...

    def definition(self) -> dict[str, Any] | None:
        """What `define` stored, or None."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...
