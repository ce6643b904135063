"""How the cells of a launched sweep stand: what the queue says of them, beside the runs that lie here."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from sweeps.queue.base import CellState, Queue
from sweeps.queue.launched import LaunchedSweep, QueuedCell, blank_number
from sweeps.queue.opening import open_queue
from sweeps.runs.endings import Ending
from sweeps.runs.files import read_json, unless_damaged
from sweeps.runs.folders import TRAIN_AGAIN
from sweeps.runs.run import Run
from sweeps.runs.state import State

_NO_ROOM = "handed back, as the disk was full; free some space, and `moe sweep resume` goes on"


@dataclass(frozen=True)
class CellStatus:
    """One cell of a sweep, and how its newest trial stands.

    Attributes:
        cell: the cell.
        state: waiting, running, finished or failed.
        attempts: how many trials there were.
        error: why the last one ended.
        run: its run, which may lie on another machine.
        ending: how the newest trial ended; None while none has.
        note: see CellState.
        where: host that runs it.
    """

    cell: QueuedCell
    state: State
    attempts: int
    error: str | None
    run: Run
    ending: Ending | None = None
    note: str | None = None
    where: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "run_id": self.run.id,
            "config": unless_damaged(partial(read_json, self.run.config_file, TRAIN_AGAIN), None) or self.cell.values,
            "values": self.cell.values,
            "state": self.state,
            "attempts": self.attempts,
            "error": self.error,
            "ending": self.ending.value if self.ending else None,
            "note": self.note,
            "where": self.where,
        }


@dataclass(frozen=True)
class SweepStatus:
    """A sweep and how all its cells stand.

    Attributes:
        sweep: the sweep.
        cells: every cell, in the sweep's order.
    """

    sweep: LaunchedSweep
    cells: tuple[CellStatus, ...]

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.sweep.name

    @property
    def unfinished(self) -> list[CellStatus]:
        """Cells that wait, run or failed."""
        return [cell for cell in self.cells if cell.state != "finished"]

    def count(self, state: State) -> int:
        """Number of cells in a state."""
        return sum(cell.state == state for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types, as `moe sweep status --json` prints them."""
        return {"sweep": self.name, "trials": [cell.as_json() for cell in self.cells]}


def status(sweep: LaunchedSweep, queue: Queue | None = None) -> SweepStatus:
    """How every cell stands. A finished run counts, whichever sweep finished it.

    Args:
        sweep: the sweep.
        queue: its queue; None: it is opened for this look.

    Raises:
        UserError: the queue does not answer.
    """
    if queue is None:
        with closing(open_queue(sweep)) as opened:
            return status(sweep, opened)
    states, store = queue.states(), sweep.store
    finished = store.finished_ids()
    cells = []
    for cell in sweep.cells:
        known = states.get(cell.run_id, CellState(cell, "waiting"))
        state: State = "finished" if known.cell.run_id in finished else known.state
        if known.lacks_results(finished):
            state = "waiting"  # the queue says done, but its results were deleted
        error = known.error if state != "finished" else None
        if state == "waiting" and known.ending is Ending.NO_ROOM:
            error = _NO_ROOM
        run = store.run(known.cell.run_id)
        ending = Ending.FINISHED if known.cell.run_id in finished else known.ending
        cells.append(CellStatus(known.cell, state, known.attempts, error, run, ending, known.note, known.where))
    return SweepStatus(sweep, tuple(cells))


def filled_cells(sweep: LaunchedSweep) -> list[QueuedCell]:
    """Its cells with their values; those of a bayes sweep that have some by now."""
    if all(blank_number(cell) is None for cell in sweep.cells):
        return list(sweep.cells)
    with closing(open_queue(sweep)) as queue:
        found = [state.cell for state in queue.states().values()]
    return [cell for cell in found if blank_number(cell) is None]
