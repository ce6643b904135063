"""What hands out the trials of a sweep: a small protocol and the names of those that implement it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweeps.runs import State


@dataclass(frozen=True)
class Job:
    """One cell of a sweep, as the backend keeps it.

    Attributes:
        run_id: the cell's run.
        values: the sweep's parameters for it, by dotted path.
    """

    run_id: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A cell handed to one agent: `trial` is the backend's own number of this attempt."""

    job: Job
    trial: int
    attempt: int


@dataclass(frozen=True)
class JobState:
    """How a cell stands: its newest attempt's state, how many there were, and why the last one failed."""

    state: State
    attempts: int
    error: str | None = None


class SweepBackend(Protocol):
    """Hands out each cell of one sweep until it is finished, never to two agents at a time."""

    def __init__(self, sweep: str, root: Path, cells: Collection[str] | None = None) -> None:
        """Open a sweep's queue; with `cells`, run ids outside them (of an earlier version of it) are let be."""
        ...

    def publish(self, jobs: Sequence[Job]) -> None:
        """Add the cells that are not known yet."""
        ...

    def publish_again(self, jobs: Sequence[Job]) -> None:
        """Let cells that were finished wait again."""
        ...

    def claim(self) -> Claim | None:
        """Take a waiting cell, or None if none waits."""
        ...

    def finish(self, claim: Claim, value: float | None) -> None:
        """The cell is done; `value` is its metric."""
        ...

    def fail(self, claim: Claim, reason: str, *, retry: bool) -> None:
        """The attempt failed; with `retry` the cell waits again."""
        ...

    def release(self, claim: Claim) -> None:
        """Hand a cell back unfinished, not counted as a failure."""
        ...

    def recover(self, *, failed: bool = False) -> int:
        """Let cells whose agent is gone wait again (with `failed`: failed ones too); returns how many."""
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

    def close(self) -> None:
        """Let go of what is held."""
        ...
