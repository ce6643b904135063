"""A sweep on a W&B server: the server hands cells to W&B's own agents; what it holds is compared with the sweep's grid.

The server calls a grid done once every cell was handed out, whatever became of it. So completeness is ours to judge:
each run of the server's sweep is matched to a cell by its configuration, and cells without a finished run are run again
inside the same sweep (`moe sweep resume`), a crashed run under its own id.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe.config import check_paths, from_flat
from moe.errors import UserError
from sweeps.plan.spec import Sweep
from sweeps.queue.protocol import Job, JobState
from sweeps.runs.state import State
from sweeps.runs.store import RunStore
from sweeps.tracking.connection import TrackerError, api, asking, for_children, project
from sweeps.tracking.record import Record

# what W&B calls a run, in our words; one whose process ended without a word is found out by the server's own clock
_STATES: dict[str, State] = {"finished": "finished", "running": "running", "pending": "running", "preempted": "waiting"}
_FRESH = 5.0  # seconds that an answer of the server counts as new


@dataclass(frozen=True)
class Remote:
    """A sweep's place on the server: ENTITY/PROJECT/SWEEP."""

    entity: str
    project: str
    id: str

    @classmethod
    def of(cls, path: str) -> "Remote":
        """From ENTITY/PROJECT/SWEEP.

        Raises:
            UserError: the path has other parts.
        """
        parts = path.split("/")
        if len(parts) != 3 or not all(parts):  # noqa: PLR2004
            raise UserError(f'"{path}" is no W&B sweep; write ENTITY/PROJECT/SWEEP, as `moe sweep ls` shows it')
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.id}"


@dataclass(frozen=True)
class RemoteRun:
    """A run of the server's sweep.

    Attributes:
        id: in W&B.
        cell: the run id of the cell with its configuration; "" if it has none that moe knows.
        state: in W&B's words.
    """

    id: str
    cell: str
    state: str


def refusal(sweep: Sweep) -> str | None:
    """What of a sweep is not left to the server, in one sentence; None if nothing."""
    if sweep.method != "grid":
        return f"method: {sweep.method} runs on the local backend: the server's draws are no cells to check"
    if sweep.early_terminate:
        return "early_terminate runs on the local backend: the server's way to end runs looks like a crash to agents"
    if sweep.run_cap:
        return "run_cap with a grid runs on the local backend: the server chooses the cells itself"
    return None


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
    try:
        with _quiet(), asking():
            return api().sweep(str(remote))
    except TrackerError as error:
        raise UserError(f"W&B has no sweep {remote}: {error}") from None


def runs(remote: Remote) -> list[RemoteRun]:
    """Every run of the sweep that the server knows."""
    return [RemoteRun(run.id, _cell(run.config), run.state) for run in _sweep(remote).runs]


def trained_elsewhere(remote: Remote) -> list[tuple[str, str]]:
    """Path and identity of every run of the sweep that was trained to its end."""
    done = [run for run in runs(remote) if run.state == "finished" and run.cell]
    return [(f"{remote.entity}/{remote.project}/{run.id}", run.cell) for run in done]


def _cell(config: Mapping[str, Any]) -> str:
    """Run id of the cell with this configuration; a run that crashed at once has only the values it was handed."""
    if "identity" in config:
        return str(config["identity"])
    flat = {path: value for path, value in config.items() if not isinstance(value, dict)}
    try:
        check_paths(flat)
        return from_flat(flat).identity()
    except UserError:
        return ""


class View:
    """How the server says the cells stand; asked again when the last answer is a few seconds old."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._asked = -_FRESH
        self._runs: list[RemoteRun] = []

    def runs(self, *, afresh: bool = False) -> list[RemoteRun]:
        """Every run of the sweep."""
        if afresh or time.monotonic() - self._asked > _FRESH:
            self._runs, self._asked = runs(self.remote), time.monotonic()
        return self._runs

    def states(self, jobs: Sequence[Job]) -> dict[str, JobState]:
        """State of every cell: of several runs a finished one counts most, then a running one, then the newest."""
        by_cell: dict[str, list[RemoteRun]] = {}
        for run in self.runs():
            by_cell.setdefault(run.cell, []).append(run)
        return {job.run_id: _state(job, by_cell.get(job.run_id, [])) for job in jobs}


def _state(job: Job, tries: Sequence[RemoteRun]) -> JobState:
    if not tries:
        return JobState("waiting", 0, job=job)
    wanted = ("finished", "running", "pending")
    best = next((run for state in wanted for run in tries if run.state == state), tries[-1])
    state = _STATES.get(best.state, "failed")
    error = f"W&B run {best.id} {best.state}" if state in ("failed", "waiting") else None
    return JobState(state, len(tries), error, here=False, job=job)


def prepare(remote: Remote, job: Job, store: RunStore, known: Sequence[RemoteRun]) -> None:
    """Write down under which id a cell is run again: that of its crashed run, if it has one."""
    run = store.create(from_flat(job.values))
    crashed = [each.id for each in known if each.cell == job.run_id]
    record = Record.of(run)
    name = crashed[-1] if crashed else record.id
    record.model_copy(
        update={"id": name, "sweep": remote.id, "entity": remote.entity, "project": remote.project}
    ).save(run)  # fmt: skip


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
