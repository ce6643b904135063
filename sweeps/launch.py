"""A sweep from its file to its agents: registered in a folder, its cells published, its agents started.

MOE_HOME/sweeps/<name>/sweep.json    the sweep as launched: its file's text, its cells, its swept parameters
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe.config import DataConfig, from_flat
from moe.errors import UserError, suggest, unknown
from sweeps.backend import Job, JobState, SweepBackend
from sweeps.devices import CPU, Device, groups, visible
from sweeps.forecast import epochs_behind
from sweeps.local import LocalBackend
from sweeps.places import place_of, places, steered
from sweeps.runs import Run, RunStore, State, home, read_json, write_json
from sweeps.spec import Cell, Sweep, expand, load_sweep, restore, with_overrides
from sweeps.storage import ENVIRONMENT, url_of, without_password

if TYPE_CHECKING:
    from sweeps.steering import Steering

BACKENDS: dict[str, type[SweepBackend]] = {"local": LocalBackend}
_DEATHS = 10  # of agents, before a launch stops replacing them


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
        swept: parameters that vary, in file order.
        jobs: its cells, in order.

    Raises:
        UserError: there is no such sweep.
    """

    def __init__(self, name: str, root: Path | None = None, storage: str | None = None) -> None:
        self.root = root or home()
        self.name = name
        self.store = RunStore(self.root)
        stored = read_json(self._file(self.root, name))
        self.storage = storage or os.environ.get(ENVIRONMENT) or (stored or {}).get("storage")
        if stored is None:
            stored = self._fetch()
        self.swept: list[str] = stored["swept"]
        self._raw, self._digest, self._steered = stored["raw"], stored["digest"], stored["steered"]
        self.jobs = [Job(cell["run_id"], cell["values"]) for cell in stored["cells"]]

    def _fetch(self) -> dict[str, Any]:
        """The definition from the storage, for a machine that did not launch the sweep."""
        definition = None
        if self.storage:
            backend = self.backend()
            definition = backend.definition()
            backend.close()
        if definition is None:
            where = without_password(self.storage) if self.storage else self.root
            raise UserError(f'no sweep "{self.name}" in {where}: {suggest(self.name, names(self.root))}')
        write_json(self._file(self.root, self.name), definition)
        return definition

    @property
    def folder(self) -> Path:
        """Where the sweep itself and what concerns all its runs lies."""
        return self.root / "sweeps" / self.name

    @staticmethod
    def _file(root: Path, name: str) -> Path:
        return root / "sweeps" / name / "sweep.json"

    @classmethod
    def register(
        cls, sweep: Sweep, cells: Sequence[Cell], root: Path | None = None, storage: str | None = None
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
        }
        write_json(cls._file(root, sweep.name), definition)
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
        from sweeps.steering import Steering  # Optuna takes a while to import

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
        states = backend.states()
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
    return sorted(file.parent.name for file in ((root or home()) / "sweeps").glob("*/sweep.json"))


def check_backend(name: str) -> str:
    """The backend meant by `auto` or by its name.

    Raises:
        UserError: no such backend.
    """
    if name == "auto":
        return "local"
    if name not in BACKENDS:
        raise unknown("backend", name, ["auto", *BACKENDS])
    return name


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
    if (store.root / "sweeps" / sweep.name).is_dir():
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


@dataclass(frozen=True)
class Crew:
    """How many agents a launch starts, and on what.

    Attributes:
        agents: how many; None: as many as the devices have places.
        per_device: runs that share a GPU.
        minutes: limit for one attempt; None: none.
        size: GPUs of each agent.
    """

    agents: int | None = None
    per_device: int = 1
    minutes: float | None = None
    size: int = 1

    def devices(self) -> list[Device]:
        """The device of each agent."""
        found = groups(visible(), self.size)
        count = self.agents or len(found) * self.per_device
        if found == [CPU]:
            return [Device()] * count
        places = max(self.per_device, -(-count // len(found)))
        return [Device(found[number % len(found)], places) for number in range(count)]


class Agents:
    """Agent processes of this launch. They end when this process ends, however it ends.

    Args:
        sweep: what they work on.
        crew: how many, and where.
        most: not more than these: there are no more cells.
    """

    def __init__(self, sweep: LaunchedSweep, crew: Crew, most: int) -> None:
        self.sweep, self.crew = sweep, crew
        self.devices = crew.devices()[:most]
        self.processes = [self._start(device) for device in self.devices]
        self._deaths = 0

    def _start(self, device: Device) -> subprocess.Popen[bytes]:
        threads = str(max(1, (os.cpu_count() or 1) // len(self.devices)))
        environment = os.environ | {"MOE_HOME": str(self.sweep.root.absolute()), "MOE_FOLLOW_STDIN": "1"}
        if len(self.devices) > 1:
            environment.setdefault("OMP_NUM_THREADS", threads)
        if self.sweep.storage:
            environment[ENVIRONMENT] = self.sweep.storage
        command = [sys.executable, "-P", "-m", "cli", "sweep", "agent", self.sweep.name, "--quiet"]
        command += ["--device", device.name, "--places", str(device.places)]
        if self.crew.minutes is not None:
            command += ["--timeout", str(self.crew.minutes)]
        # its own group, and gone when our end of its standard input closes
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)

    def tend(self, backend: SweepBackend) -> None:
        """Replace agents that died while cells wait, a few times; take back what they held."""
        for place, process in enumerate(self.processes):
            if process.poll() in (None, 0) or self._deaths >= _DEATHS:
                continue
            backend.recover()
            if backend.waiting() and not backend.stop_requested():
                self._deaths += 1
                self.processes[place] = self._start(self.devices[place])

    def running(self) -> bool:
        """Whether any agent is still at work."""
        return any(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        """Ask all to hand back their cells, and wait for them."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()
            if process.stdin:
                process.stdin.close()
