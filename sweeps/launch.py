"""A sweep from its file to its agents: registered in a folder, its cells published, its agents started.

MOE_HOME/sweeps/<name>/sweep.json    the sweep as launched: its file's text, its cells, its swept parameters
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe.config import from_flat
from moe.errors import UserError, suggest, unknown
from sweeps.backend import Job, JobState, SweepBackend
from sweeps.local import LocalBackend
from sweeps.runs import Run, RunStore, State, home, read_json, write_json
from sweeps.spec import Cell, Sweep, expand, load_sweep, with_overrides

BACKENDS: dict[str, type[SweepBackend]] = {"local": LocalBackend}


@dataclass(frozen=True)
class Trial:
    """One cell of a sweep and how it stands."""

    job: Job
    state: State
    attempts: int
    error: str | None
    run: Run


class LaunchedSweep:
    """A sweep that was launched on this machine.

    Attributes:
        name: its name.
        swept: parameters that vary, in file order.
        jobs: its cells, in order.
    """

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.root = root or home()
        self.name = name
        stored = read_json(self._file(self.root, name))
        if stored is None:
            raise UserError(f'no sweep "{name}" in {self.root}: {suggest(name, names(self.root))}')
        self.swept: list[str] = stored["swept"]
        self.jobs = [Job(cell["run_id"], cell["values"]) for cell in stored["cells"]]
        self.store = RunStore(self.root)

    @property
    def folder(self) -> Path:
        """Where the sweep itself and what concerns all its runs lies."""
        return self.root / "sweeps" / self.name

    @staticmethod
    def _file(root: Path, name: str) -> Path:
        return root / "sweeps" / name / "sweep.json"

    @classmethod
    def register(cls, sweep: Sweep, cells: list[Cell], root: Path | None = None) -> "LaunchedSweep":
        """Write the sweep down, and each cell's configuration into its run's directory."""
        root = root or home()
        store = RunStore(root)
        for cell in cells:
            store.create(cell.config)
        write_json(
            cls._file(root, sweep.name),
            {
                "name": sweep.name,
                "swept": list(sweep.swept),
                "raw": sweep.raw,
                "cells": [{"run_id": cell.run_id, "values": cell.values} for cell in cells],
            },
        )
        return cls(sweep.name, root)

    def backend(self) -> LocalBackend:
        """The backend that hands out this sweep's cells."""
        return LocalBackend(self.name, self.root, [job.run_id for job in self.jobs])

    def restore_configs(self) -> None:
        """Write again the configuration of runs whose directory was deleted."""
        for job in self.jobs:
            if not self.store.run(job.run_id).config_file.exists():
                self.store.create(from_flat(job.values))

    def trials(self, backend: SweepBackend) -> list[Trial]:
        """Every cell and how it stands. A finished run counts, whichever sweep finished it."""
        states = backend.states()
        result = []
        for job in self.jobs:
            run = self.store.run(job.run_id)
            known = states.get(job.run_id, JobState("waiting", 0))
            state = "finished" if run.finished else known.state
            if state == "finished" and not run.finished:
                state = "waiting"  # the queue says done, but its results were deleted
            result.append(Trial(job, state, known.attempts, known.error if state != "finished" else None, run))
        return result

    def requeue_missing(self, backend: SweepBackend) -> None:
        """Queue again the cells that the queue calls finished but whose results are gone."""
        known = backend.states()
        gone = [j for j in self.jobs if j.run_id in known and known[j.run_id].state == "finished"]
        backend.publish_again([job for job in gone if not self.store.run(job.run_id).finished])


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
    """Read and expand a sweep file; everything in it is checked."""
    sweep = with_overrides(load_sweep(spec), overrides)
    return sweep, expand(sweep)


def preview(sweep: Sweep, cells: list[Cell], root: Path | None = None) -> list[dict[str, Any]]:
    """What a launch would do: every cell with its run id, configuration and state. Writes nothing."""
    store = RunStore(root)
    known: dict[str, JobState] = {}
    if (store.root / "sweeps" / sweep.name).is_dir():
        known = LocalBackend(sweep.name, store.root).states()
    rows = []
    for cell in cells:
        state = "finished" if store.run(cell.run_id).finished else "waiting"
        if state == "waiting" and cell.run_id in known and known[cell.run_id].state != "finished":
            state = known[cell.run_id].state
        config = cell.config.model_dump(mode="json")
        rows.append({"run_id": cell.run_id, "config": config, "values": cell.values, "state": state})
    return rows


@dataclass
class Agents:
    """Agent processes of this launch. They end when this process ends, however it ends."""

    processes: list[subprocess.Popen[bytes]]

    @classmethod
    def start(cls, sweep: LaunchedSweep, count: int) -> "Agents":
        """Start `count` agents, which share out the processor's cores."""
        threads = str(max(1, (os.cpu_count() or 1) // count))
        environment = os.environ | {"MOE_HOME": str(sweep.root.absolute()), "MOE_FOLLOW_STDIN": "1"}
        if count > 1:
            environment.setdefault("OMP_NUM_THREADS", threads)
        command = [sys.executable, "-P", "-m", "cli", "sweep", "agent", sweep.name, "--quiet"]
        return cls([_follower(command, environment) for _ in range(count)])

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

    def close(self) -> None:
        """Release the pipes."""
        for process in self.processes:
            if process.stdin:
                process.stdin.close()


def _follower(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process in its own group that ends when our end of its standard input closes."""
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
