"""A sweep from its file to its agents: registered in a folder, its cells published, its agents started."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe.config import DataConfig, from_flat
from moe.errors import UserError, suggest, unknown
from sweeps.plan.spec import Cell, Sweep, expand, load_sweep, restore, with_overrides
from sweeps.queue.database import LocalBackend
from sweeps.queue.places import place_of, places, steered
from sweeps.queue.protocol import Job, JobState, SweepBackend
from sweeps.queue.server import Remote, View, create, definition, prepare, refusal
from sweeps.queue.storage import ENVIRONMENT, url_of, without_password
from sweeps.runs.files import read_json, write_json
from sweeps.runs.folders import HomeFolder, SweepFolder, home
from sweeps.runs.run import Run
from sweeps.runs.state import State
from sweeps.runs.store import RunStore
from sweeps.tracking.connection import connection
from sweeps.views.forecast import epochs_behind

if TYPE_CHECKING:
    from sweeps.queue.steering import Steering

BACKENDS: dict[str, type[SweepBackend]] = {"local": LocalBackend}


@dataclass(frozen=True)
class Trial:
    """One cell of a sweep and how it stands.

    Attributes:
        job: the cell.
        state: waiting, running, finished or failed.
        attempts: how many there were.
        error: why the last one ended.
        run: its run, which may lie on another machine.
        note: see JobState.
        where: host that runs it.
    """

    job: Job
    state: State
    attempts: int
    error: str | None
    run: Run
    note: str | None = None
    where: str | None = None


class LaunchedSweep:
    """A sweep that was launched, here or on another machine that shares its storage.

    Args:
        name: its name.
        root: `MOE_HOME`.
        storage: database URL of its queue; None: where it was launched, or `MOE_STORAGE`.

    Attributes:
        folder: where the sweep itself and what concerns all its runs lies.
        swept: parameters that vary, in file order.
        jobs: its cells, in order.
        remote: the W&B sweep that hands its cells out; None: the queue does.

    Raises:
        UserError: there is no such sweep.
    """

    def __init__(self, name: str, root: Path | None = None, storage: str | None = None) -> None:
        self.root = root or home()
        self.name = name
        self.folder = SweepFolder(self.root, name)
        self.store = RunStore(self.root)
        stored = read_json(self.folder.definition)
        self.storage = storage or os.environ.get(ENVIRONMENT) or (stored or {}).get("storage")
        if stored is None:
            stored = self._fetch()
        self.swept: list[str] = stored["swept"]
        self._raw, self._digest, self._steered = stored["raw"], stored["digest"], stored["steered"]
        self.jobs = [Job(cell["run_id"], cell["values"]) for cell in stored["cells"]]
        self.remote = Remote.of(stored["remote"]) if stored.get("remote") else None
        self._view = View(self.remote) if self.remote else None

    def _fetch(self) -> dict[str, Any]:
        """The definition from the storage, for a machine that did not launch the sweep."""
        definition = None
        if self.storage:
            backend = self.backend()
            definition = backend.definition()
            backend.close()
        if definition is None:
            where = without_password(self.storage) if self.storage else self.root
            raise UserError(f'no sweep "{self.name}" in {where}: {suggest(self.name, HomeFolder(self.root).sweeps())}')
        write_json(self.folder.definition, definition)
        return definition

    @classmethod
    def register(
        cls,
        sweep: Sweep,
        cells: Sequence[Cell],
        root: Path | None = None,
        storage: str | None = None,
        remote: Remote | None = None,
    ) -> "LaunchedSweep":
        """Write the sweep down, here and in its storage."""
        root = root or home()
        url = storage or os.environ.get(ENVIRONMENT)
        definition = {
            "name": sweep.name,
            "swept": list(sweep.swept),
            "raw": sweep.raw,
            "digest": sweep.digest,
            "steered": steered(sweep),
            "cells": [{"run_id": cell.run_id, "values": cell.values} for cell in cells or places(sweep)],
            "storage": without_password(url) if url else None,
            "remote": str(remote) if remote else None,
        }
        write_json(SweepFolder(root, sweep.name).definition, definition)
        launched = cls(sweep.name, root, storage)
        backend = launched.backend()
        backend.define(definition)
        backend.close()
        return launched

    def backend(self) -> SweepBackend:
        """The backend that hands out this sweep's cells."""
        return LocalBackend(self.name, self.root, self.storage)

    def steering(self, backend: SweepBackend) -> "Steering | None":
        """What steers a bayes sweep or one with early termination; None for others."""
        if not self._steered:
            return None
        from sweeps.queue.steering import Steering  # Optuna takes a while to import

        return Steering(
            restore(self.name, self._raw, self._digest), self.name, backend, url_of(self.root, self.storage)
        )

    def cells(self) -> list[Job]:
        """Its cells with their values; those of a bayes sweep that have some by now."""
        if not any(place_of(job) is not None for job in self.jobs):
            return self.jobs
        backend = self.backend()
        found = [state.job for state in backend.states().values()]
        backend.close()
        return [job for job in found if job is not None and place_of(job) is None]

    def prepare(self, job: Job) -> Run:
        """The cell's run, with its directory and configuration."""
        run = self.store.run(job.run_id)
        if not run.config_file.exists():
            self.store.create(from_flat(job.values))
        return run

    def trials(self, backend: SweepBackend) -> list[Trial]:
        """Every cell and how it stands. A finished run counts, whichever sweep finished it."""
        states = self._known(backend)
        done = self.store.finished_ids()
        result = []
        for job in self.jobs:
            known = states.get(job.run_id, JobState("waiting", 0))
            now = known.job or job
            state = "finished" if now.run_id in done else known.state
            if state == "finished" and _gone(known, now.run_id, done):
                state = "waiting"  # the queue says done, but its results were deleted
            error = known.error if state != "finished" else None
            run = self.store.run(now.run_id)
            result.append(Trial(now, state, known.attempts, error, run, known.note, known.where))
        return result

    def _known(self, backend: SweepBackend) -> dict[str, JobState]:
        """How the queue and, where it hands out cells, the W&B server say they stand."""
        queued = backend.states()
        if self._view is None:
            return queued
        there = self._view.states(self.jobs)
        return there | {cell: state for cell, state in queued.items() if there[cell].state != "finished"}

    def left_over(self, backend: SweepBackend) -> list[Job]:
        """Cells that the W&B server calls done, or never handed out, without a finished or running run.

        Each is written down with the W&B run that it goes on with, and queued for our own agents.
        """
        if self.remote is None or self._view is None:
            return []
        from sweeps.tracking.mirror import show

        found = self._view.runs(afresh=True)
        states, done = self._view.states(self.jobs), self.store.finished_ids()
        lacking = [job for job in self.jobs if states[job.run_id].state in ("waiting", "failed")]
        for job in lacking:
            prepare(self.remote, job, self.store, found)
            if job.run_id in done:  # trained here, but its end did not reach the server
                show(self.store.run(job.run_id), self.name)
        left = [job for job in lacking if job.run_id not in done]
        backend.publish(left)
        backend.recover(failed=True)
        return left

    def link_finished(self, backend: SweepBackend) -> None:
        """Close cells that another sweep finished: they are linked by their run id, not repeated."""
        done, known = self.store.finished_ids(), backend.states()
        backend.mark_finished([job for job in self.jobs if job.run_id in done and known[job.run_id].state == "waiting"])

    def requeue_missing(self, backend: SweepBackend) -> None:
        """Queue again the cells that the queue calls finished here but whose results are gone."""
        known, done = backend.states(), self.store.finished_ids()
        cells = [(job, known[job.run_id]) for job in self.jobs if job.run_id in known]
        backend.publish_again(
            [job for job, state in cells if state.state == "finished" and _gone(state, (state.job or job).run_id, done)]
        )


def _gone(known: JobState, run_id: str, done: set[str]) -> bool:
    """Whether a finished cell's results should lie here and do not; a note says that there are none."""
    return known.here and known.note is None and run_id not in done


def names(root: Path | None = None) -> list[str]:
    """Sweeps launched on this machine."""
    return HomeFolder(root).sweeps()


def choose_backend(name: str, sweep: Sweep) -> tuple[str, str]:
    """The backend meant by `auto` or by its name, and why.

    Raises:
        UserError: no such backend, or it cannot run this sweep.
    """
    if name not in ("auto", "wandb", *BACKENDS):
        raise unknown("backend", name, ["auto", "wandb", *BACKENDS])
    if name == "local":
        return "local", "as asked"
    problem = refusal(sweep) or connection().problem()
    if problem is None:
        return "wandb", "as asked" if name == "wandb" else "a W&B server answers"
    if name == "wandb":
        raise UserError(f"--backend wandb: {problem}; use --backend local, which logs to W&B all the same")
    return "local", problem


def register(sweep: Sweep, cells: Sequence[Cell], backend: str, storage: str | None) -> LaunchedSweep:
    """Write a sweep down before its agents start; on the W&B server too, unless the same one is there already."""
    remote = None
    if backend == "wandb":
        known = LaunchedSweep(sweep.name, storage=storage) if sweep.name in names() else None
        if known and known.jobs == [Job(cell.run_id, cell.values) for cell in cells]:
            remote = known.remote
        remote = remote or create(sweep)
    return LaunchedSweep.register(sweep, cells, storage=storage, remote=remote)


def open_sweep(name: str, storage: str | None = None) -> LaunchedSweep:
    """A launched sweep by its name, or a W&B sweep by ENTITY/PROJECT/SWEEP, which may be new to this machine.

    Raises:
        UserError: there is no such sweep, or moe cannot run it.
    """
    if "/" not in name:
        return LaunchedSweep(name, storage=storage)
    remote = Remote.of(name)
    raw = definition(remote)
    known = str(raw.get("name") or remote.id)
    if known in names() and LaunchedSweep(known, storage=storage).remote == remote:
        return LaunchedSweep(known, storage=storage)
    if known in names():
        known = f"{known}-{remote.id}"  # another sweep of that name is here
    sweep = restore(known, raw, "")
    if problem := refusal(sweep):
        raise UserError(f"sweep {name}: {problem}")
    return LaunchedSweep.register(sweep, expand(sweep), storage=storage, remote=remote)


def plan(spec: str, overrides: Mapping[str, Any]) -> tuple[Sweep, list[Cell]]:
    """Read and expand a sweep file; everything in it is checked. A bayes sweep has no cells yet, see `places`."""
    sweep = with_overrides(load_sweep(spec), overrides)
    return sweep, expand(sweep)


def fixed_data(sweep: Sweep) -> DataConfig:
    """The images of a bayes sweep, as far as its file fixes them."""
    chosen = {path: sweep.parameters[path].values[0] for path in sweep.fixed if path.startswith("data.")}
    return from_flat(chosen).data


def preview(
    sweep: Sweep, cells: list[Cell], root: Path | None = None, storage: str | None = None
) -> list[dict[str, Any]]:
    """What a launch would do: every cell with its run id, configuration, state and missing epochs. Writes nothing.

    ``kind`` is finished, running, failed, or for a waiting cell resumable (a checkpoint exists) or new.
    """
    store = RunStore(root)
    known: dict[str, JobState] = {}
    if SweepFolder(store.root, sweep.name).path.is_dir():
        backend = LocalBackend(sweep.name, store.root, storage)
        known = backend.states()
        backend.close()
    done, begun = store.finished_ids(), store.begun_ids()
    if sweep.method == "bayes":
        return [_preview_place(sweep, job, known.get(job.run_id), done) for job in places(sweep)]
    rows = []
    for cell in cells:
        state = "finished" if cell.run_id in done else "waiting"
        if state == "waiting" and cell.run_id in known and known[cell.run_id].state != "finished":
            state = known[cell.run_id].state
        behind = epochs_behind(store.run(cell.run_id)) if cell.run_id in begun else 0
        kind = state if state != "waiting" else "resumable" if cell.run_id in begun else "new"
        left = 0 if state == "finished" else cell.config.train.epochs - behind
        config = cell.config.model_dump(mode="json")
        row = {"run_id": cell.run_id, "config": config, "values": cell.values, "state": state}
        rows.append(row | {"kind": kind, "epochs_left": left})
    return rows


def _preview_place(sweep: Sweep, place: Job, known: JobState | None, done: set[str]) -> dict[str, Any]:
    """A cell of a bayes sweep: its values are found while it runs."""
    job = known.job if known and known.job else place
    state = (
        "waiting" if known is None or (known.state == "finished" and _gone(known, job.run_id, done)) else known.state
    )
    fixed = {path: sweep.parameters[path].values[0] for path in sweep.fixed}
    config = from_flat(fixed | job.values).model_dump(mode="json")
    kind = state if state != "waiting" else "new" if place_of(job) is not None else "resumable"
    row = {"run_id": job.run_id, "config": config, "values": job.values, "state": state, "kind": kind}
    return row | {"epochs_left": 0 if state == "finished" else config["train"]["epochs"]}
