"""A sweep on a W&B server: the server hands cells to W&B's own agents; what it holds is compared with the sweep's grid.

The server calls a grid done once every cell was handed out, whatever became of it. So completeness is ours to judge:
each run of the server's sweep is matched to a cell by its configuration, and cells without a finished run are run again
inside the same sweep (`moe sweep resume`), a crashed run under its own id.
"""

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from moe.config import from_flat
from moe.errors import UserError
from sweeps.plan.spec import Sweep, restore
from sweeps.queue.base import CellState, Offer
from sweeps.queue.database import DatabaseQueue
from sweeps.queue.launched import LaunchedSweep, QueuedCell, blank_number, blanks, run_id_of, values_of
from sweeps.queue.leases import Beats
from sweeps.runs.endings import Ending
from sweeps.runs.lock import is_locked
from sweeps.runs.state import State
from sweeps.runs.store import RunStore
from sweeps.tracking.artifacts import has_model
from sweeps.tracking.connection import TrackerError, api, asking, connection, for_children, project, stop_asked
from sweeps.tracking.record import Record, Remote, stopped_by

# what W&B calls a run, in our words; one whose process ended without a word is found out by the server's own clock
_STATES: dict[str, State] = {"finished": "finished", "running": "running", "pending": "running", "preempted": "waiting"}
_ENDINGS = {"finished": Ending.FINISHED, "preempted": Ending.INTERRUPTED, "killed": Ending.KILLED}
_FOR_GOOD = {ending.value: ending for ending in Ending if ending.for_good}
_FRESH = 5.0  # seconds that an answer of the server counts as new
# Seconds without a sign of life, by our own clock, after which a run that the server calls running is lost. Its client
# gives a sign every half a minute; W&B itself waits for five.
_SILENT = 360.0
_SILENT_HERE = 75.0  # if this machine knows that the run's process has ended
_SILENT_PENDING = 120.0  # if it was handed out, and its process was never heard of


@dataclass(frozen=True)
class RemoteRun:
    """A run of the server's sweep.

    Attributes:
        id: in W&B.
        cell: the run id of the cell with its configuration; "" if it has none that moe knows.
        state: in W&B's words.
        ending: how its last attempt ended in our words, if it could say so.
        config: as W&B has it: nested, or by dotted path what it was handed.
        beat: when the server last heard of it, by its clock.
    """

    id: str
    cell: str
    state: str
    ending: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    beat: str = ""


def _drawn(sweep: Sweep) -> bool:
    """Whether the server chooses which cells there are: draws at random, searches, or takes some of a grid."""
    return sweep.method != "grid" or sweep.run_cap is not None


def create(sweep: Sweep) -> Remote:
    """Make the sweep on the server.

    Raises:
        UserError: the server refuses it.
    """
    import wandb

    where = sweep.raw.get("project") or project()
    try:
        with _quiet(), asking():
            entity = sweep.raw.get("entity") or os.environ.get("WANDB_ENTITY") or api().default_entity
            made = wandb.sweep(sweep.raw | {"name": sweep.name}, entity=entity, project=where)
    except TrackerError as error:
        raise UserError(f"W&B refuses the sweep: {error}") from None
    return Remote(str(entity), where, made.rsplit("/", 1)[-1])


def definition(remote: Remote) -> dict[str, Any]:
    """The sweep's configuration, for a machine that did not launch it.

    Raises:
        UserError: there is no such sweep.
    """
    return dict(_sweep(remote).config)


def _sweep(remote: Remote) -> Any:
    if connection().keyless:
        raise UserError(f"sweep {remote} is in W&B: {connection().why}")
    try:
        with _quiet(), asking():
            return api().sweep(str(remote))
    except TrackerError as error:
        unknown = "Could not find" in str(error)  # its client raises nothing of its own for it
        raise UserError(f"W&B {'has no' if unknown else 'does not show the'} sweep {remote}: {error}") from None


def runs(remote: Remote) -> list[RemoteRun]:
    """Every run of the sweep that the server knows.

    Raises:
        UserError: there is no such sweep, or the server does not answer.
    """
    sweep = _sweep(remote)
    try:
        with _quiet(), asking():
            return [_as_remote(run) for run in sweep.runs]
    except TrackerError as error:
        raise UserError(f"W&B does not show the runs of sweep {remote}: {error}") from None


def _as_remote(run: Any) -> RemoteRun:
    ending = "" if run.state == "running" else str(run.summary_metrics.get("ending", ""))
    return RemoteRun(run.id, run_id_of(run.config), run.state, ending, run.config, str(run.heartbeat_at))


class ServerQueue(DatabaseQueue):
    """A sweep that a W&B server hands out to W&B's own agents; what they leave over goes through a table of ours."""

    precedence = 10
    steers_itself = True

    def __init__(self, sweep: LaunchedSweep) -> None:
        super().__init__(sweep)
        self.remote = Remote.of(str(sweep.address))
        self._asked = -math.inf
        self._runs: list[RemoteRun] = []
        self._trained: set[str] = set()
        self._stopped: dict[str, Ending] = {}
        self._beats: dict[str, Beats] = {}  # of runs that the server calls at work
        self._away = False
        self._again: set[str] = set()

    @classmethod
    def offer(cls, sweep: Sweep) -> Offer:
        """It runs every sweep, where a server answers; unless it is named, whole grids alone, whose cells we check."""
        named = _drawn(sweep) or sweep.early_terminate is not None
        if problem := connection().problem():
            return Offer(accepted=False, why=problem)
        why = "the server would choose the cells or end runs, which it does with --backend wandb"
        return Offer(accepted=True, why=why if named else "a W&B server answers", if_named=named)

    @classmethod
    def draws(cls, sweep: Sweep) -> tuple[QueuedCell, ...] | None:
        """As many as `run_cap`, where the server chooses."""
        return blanks(sweep.run_cap or 0) if _drawn(sweep) else None

    @classmethod
    def create(cls, sweep: Sweep) -> str:
        """Make the sweep on the server; its address is ENTITY/PROJECT/SWEEP."""
        return str(create(sweep))

    @classmethod
    def find(cls, address: str) -> Sweep | None:
        """The sweep at ENTITY/PROJECT/SWEEP."""
        if "/" not in address:
            return None
        remote = Remote.of(address)
        raw = definition(remote)
        return restore(str(raw.get("name") or remote.id), raw, "")

    @classmethod
    def stored(cls, name: str, root: Path, storage: str) -> None:
        """Nothing: the database that has the definitions of its sweeps is that of the local queue."""

    @property
    def place(self) -> str:
        """Its address on the server."""
        return f"W&B {self.remote}"

    @property
    def tracker_sweep(self) -> str:
        """The server's sweep is the tracker's too."""
        return self.remote.id

    def update(self, finished: set[str], *, failed: bool) -> None:
        """Nothing: the server decides which cells wait."""

    def request_stop(self, *, stop: bool) -> None:
        """Let the server hand out nothing for now, or go on."""
        super().request_stop(stop=stop)
        if stop:
            pause(self.remote)
        else:
            resume(self.remote)

    def agent_command(self) -> list[str]:
        """W&B's own agent."""
        return [sys.executable, "-P", "-m", "wandb", "agent", "--forward-signals", str(self.remote)]

    def states(self) -> dict[str, CellState]:
        """State of every cell: of several runs on the server a finished one counts most, then a running one."""
        there = self._there()
        keys = {state.cell.run_id: key for key, state in there.items()}
        for run_id, state in super().states().items():
            key = keys.get(run_id)
            if key is not None and there[key].state != "finished":
                there[key] = state
        return there

    def held(self) -> str | None:
        """Says how long it may take until it is known whether runs that the server calls running are."""
        try:
            at_work = [run for run in self._known() if run.cell and run.state in ("running", "pending")]
        except UserError:  # `left_over` says so
            return None
        waits = [self._patience(run) - self._silence(run) for run in at_work if not self._beats[run.id].go_on]
        if not waits:
            return None
        runs = "1 run that was" if len(waits) == 1 else f"{len(waits)} runs that were"
        return (
            f"waiting for {runs} at work when W&B last heard: one that gives no sign of life for another "
            f"{max(waits):.0f} seconds is taken over"
        )

    def _patience(self, run: RemoteRun) -> float:
        """Seconds of silence after which a run that the server calls running is lost."""
        if run.state == "pending":
            return _SILENT_PENDING
        lock = self.sweep.store.run(run.cell).lock_file
        return _SILENT_HERE if lock.exists() and not is_locked(lock) else _SILENT

    def _silence(self, run: RemoteRun) -> float:
        """Seconds since its last sign of life that we know of."""
        now = time.monotonic()
        beats = self._beats.setdefault(run.id, Beats("", now, now))
        beats.hear(f"{run.state} {run.beat}", now)
        return now - beats.since

    def left_over(self) -> list[QueuedCell]:
        """Cells that the server calls done, or never handed out, without a finished or running run.

        Each is written down with the W&B run that it goes on with.
        """
        from sweeps.tracking.holdings import show

        store = self.sweep.store
        try:
            found = self._known(afresh=True)
        except UserError as error:
            sys.stderr.write(f"{error}; what it left over is found by `moe sweep resume {quote(self.sweep.name)}`\n")
            return []
        states, done = self._there(), store.finished_ids()
        waiting = (one.cell for one in states.values() if one.state in ("waiting", "failed"))
        lacking = [cell for cell in waiting if blank_number(cell) is None]  # the server has drawn no more
        for cell in lacking:
            prepare(self.remote, cell, store, found)
            if cell.run_id in done:  # trained here, but its end did not reach the server
                show(store.run(cell.run_id), self.sweep.name)
        left = [cell for cell in lacking if cell.run_id not in done]
        self.publish(left)
        self.recover(failed=True)
        return left

    def trained_elsewhere(self) -> list[tuple[str, str]]:
        """Finished runs that the server knows; none where W&B is not online."""
        if not connection().online:
            return []
        done = [run for run in self._known() if run.state == "finished" and run.cell]
        return [(f"{self.remote.entity}/{self.remote.project}/{run.id}", run.cell) for run in done]

    def _known(self, *, afresh: bool = False) -> list[RemoteRun]:
        """Every run of the sweep; asked again when the last answer is a few seconds old.

        A server that has answered once and is away now is believed what it said then: agents go on meanwhile.

        Raises:
            UserError: it has never answered, or is to be asked afresh and does not answer.
        """
        if afresh or time.monotonic() - self._asked > _FRESH:
            try:
                self._runs = [self._judged(run) for run in runs(self.remote)]
                self._away = False
            except UserError as error:
                if afresh or self._asked == -math.inf:
                    raise
                if not self._away:
                    sys.stderr.write(f"{error}; until it answers, cells are shown as it last said\n")
                self._away = True
            self._asked = time.monotonic()
        return self._runs

    def _judged(self, run: RemoteRun) -> RemoteRun:
        """The run, crashed if it is lost, finished if the server has its model.

        What a later process of a run came to is not its training.
        """
        if run.state in ("running", "pending") and run.cell and self._silence(run) > self._patience(run):
            run = replace(run, state="crashed")
        if run.state in ("finished", "running", "pending") or run.ending in _FOR_GOOD or not run.cell:
            return run
        if run.id not in self._trained:
            with contextlib.suppress(TrackerError):
                if has_model(self.remote.entity, self.remote.project, run.cell):
                    self._trained.add(run.id)
        if run.id in self._trained:
            return replace(run, state="finished")
        if not run.ending and run.state != "preempted" and (stopped := self._was_stopped(run)):
            return replace(run, ending=stopped.value)
        return run

    def _was_stopped(self, run: RemoteRun) -> Ending | None:
        """Who stopped a run that left no word: W&B's agent kills one that takes long to write its checkpoint."""
        went_on = Record.of(self.sweep.store.run(run.cell)).stopped  # all the same
        if run.id not in self._stopped and not went_on:
            with contextlib.suppress(TrackerError):
                if stop_asked(self.remote.entity, self.remote.project, run.id):
                    self._stopped[run.id] = stopped_by(Record(id=run.id, **self.remote.place))
        return self._stopped.get(run.id)

    def _there(self) -> dict[str, CellState]:
        """How the server says that the cells stand."""
        found = self._drawn() if self.sweep.drawn else self._of_grid()
        again = {
            key: replace(found[key], state="waiting") for key in self._again if found[key].ending in _FOR_GOOD.values()
        }
        return found | again

    def _of_grid(self) -> dict[str, CellState]:
        by_cell: dict[str, list[RemoteRun]] = {}
        for run in self._known():
            by_cell.setdefault(run.cell, []).append(run)
        return {cell.run_id: _state(cell, by_cell.get(cell.run_id, [])) for cell in self.sweep.cells}

    def _drawn(self) -> dict[str, CellState]:
        """A cell for each run of the server, in its order; the rest are still to be drawn."""
        found = {cell.run_id: CellState(cell, "waiting") for cell in self.sweep.cells}
        paths = list(self.sweep.raw.get("parameters", {}))
        for cell, run in zip(self.sweep.cells, self._known(), strict=False):
            known = QueuedCell(run.cell, values_of(run.config, paths)) if run.cell else cell
            found[cell.run_id] = _state(known, [run])
        return found

    def publish_again(self, cells: Sequence[QueuedCell]) -> None:
        """Let finished cells wait again: they are left over by the server."""
        super().publish_again(cells)
        self._again |= {cell.run_id for cell in cells}


def _state(cell: QueuedCell, tries: Sequence[RemoteRun]) -> CellState:
    if not tries:
        return CellState(cell, "waiting")
    wanted = ("finished", "running", "pending")
    best = next((run for state in wanted for run in tries if run.state == state), tries[-1])
    if best.state not in wanted and (stopped := _FOR_GOOD.get(best.ending)):
        return CellState(cell, "finished", len(tries), here=False, ending=stopped, note=f"{stopped.value} in W&B")
    state = _STATES.get(best.state, "failed")
    error = f"W&B run {best.id} {best.state}" if state in ("failed", "waiting") else None
    ending = _ENDINGS.get(best.state, None if state == "running" else Ending.FAILED)
    return CellState(cell, state, len(tries), error, here=False, ending=ending)


def prepare(remote: Remote, cell: QueuedCell, store: RunStore, known: Sequence[RemoteRun]) -> None:
    """Write down under which id a cell is run again: that of its crashed run, if it has one."""
    run = store.create(from_flat(cell.values))
    before = next((each for each in reversed(known) if each.cell == cell.run_id), None)
    again = {"id": before.id, "stopped": before.ending in _FOR_GOOD} if before is not None else {}
    Record.of(run).model_copy(update=remote.place | again).save(run)


def resume(remote: Remote) -> None:
    """Let the server hand out cells again."""
    if _sweep(remote).state == "PAUSED":
        _wandb("sweep", "--resume", str(remote))


def pause(remote: Remote) -> None:
    """Let the server hand out nothing for now."""
    if _sweep(remote).state in ("RUNNING", "PENDING"):
        _wandb("sweep", "--pause", str(remote))


def _wandb(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wandb", *words], env=for_children(), capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(f"wandb {' '.join(words)}: {said[-1] if said else 'failed'}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without wandb's own words on standard output, which belongs to us."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
