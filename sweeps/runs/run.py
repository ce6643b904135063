"""Where runs live: every file name of a run is spelled here and nowhere else."""

import contextlib
import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from moe.config import RunConfig
from moe.errors import UserError, suggest
from moe.files import replacing

State = Literal["waiting", "running", "finished", "failed"]
Row = dict[str, float | None]  # of a history: metrics by name, NaN and infinity as None


def home() -> Path:
    """Root of runs, sweeps and the study database: `MOE_HOME`, else `./runs`."""
    return Path(os.environ.get("MOE_HOME", "runs")).expanduser()


def now() -> str:
    """The present time, ISO 8601 with time zone."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Args:
        path: the file.
        value: its content.
        durable: through a power failure too; what is written twice a second need not be.
    """
    text = json.dumps(value, indent=2) + "\n"
    with replacing(path, durable=durable) as partial:
        partial.write_text(text)


def read_json(path: Path) -> Any:
    """JSON of a file, or None if it does not exist."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock file; the operating system frees it when this process ends, however it ends.

    Args:
        path: the lock file.
        patience: seconds to wait for another process to let go.

    Raises:
        LockedError: another process still holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise LockedError(str(path)) from None
                time.sleep(0.1)
        yield


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file."""
    try:
        with locked(path):
            return False
    except LockedError:
        return True


def by_epoch(rows: Iterable[Row]) -> dict[int, Row]:
    """Everything that was logged for each number of epochs done."""
    found: dict[int, Row] = {}
    for row in rows:
        found.setdefault(int(row["epoch"] or 0), {}).update(row)
    return found


class RunState(BaseModel):
    """What `state.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State = "waiting"
    attempts: int = 0
    error: str | None = None
    started: str | None = None
    ended: str | None = None
    seconds: float = 0.0


class Run:
    """One run's directory.

    Attributes:
        path: the directory, named by the run's id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The run's id, its config's identity."""
        return self.path.name

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def provenance_file(self) -> Path:
        """Versions, device, data checksums, git state."""
        return self.path / "provenance.json"

    @property
    def state_file(self) -> Path:
        """RunState."""
        return self.path / "state.json"

    @property
    def history_file(self) -> Path:
        """Metrics of every epoch, one JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def summary_file(self) -> Path:
        """Last and best values."""
        return self.path / "summary.json"

    @property
    def progress_file(self) -> Path:
        """Where training is now."""
        return self.path / "progress.json"

    @property
    def log_file(self) -> Path:
        """What the worker process printed."""
        return self.path / "log.txt"

    @property
    def lock_file(self) -> Path:
        """Held while a process trains this run."""
        return self.path / "train.lock"

    @property
    def checkpoints(self) -> Path:
        """Lightning's checkpoints."""
        return self.path / "checkpoints"

    def epoch_checkpoint(self, epochs: int) -> Path:
        """The checkpoint after so many epochs."""
        return self.checkpoints / f"epoch{epochs:04d}.ckpt"

    def step_checkpoint(self, steps: int) -> Path:
        """The checkpoint after so many steps, in mid-epoch."""
        return self.checkpoints / f"step{steps:08d}.ckpt"

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.path / "model"

    @property
    def best_model(self) -> Path:
        """The exported model of the epoch with the lowest validation loss; absent where that is the last."""
        return self.path / "model_best"

    @property
    def data_card(self) -> Path:
        """What the images were: origin, size, statistics, checksums."""
        return self.path / "data.json"

    @property
    def portable(self) -> list[Path]:
        """The small files that travel with the model."""
        return [self.config_file, self.provenance_file, self.summary_file, self.history_file, self.data_card]

    @property
    def tracker_file(self) -> Path:
        """What the run has in the tracker."""
        return self.path / "tracker.json"

    @property
    def routing(self) -> Path:
        """Heatmaps of every epoch."""
        return self.path / "routing"

    def activations(self, images: str) -> Path:
        """Folder with cached activations for an image store."""
        return self.path / "activations" / images

    def probe(self, images: str, name: str) -> Path:
        """Folder with one probe's results on an image store."""
        return self.path / "probes" / images / name

    def probe_result(self, images: str, name: str) -> Path:
        """One probe's headline numbers."""
        return self.probe(images, name) / "result.json"

    def probe_results(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(images, probe, headline numbers) of every probe that was run."""
        files = sorted((self.path / "probes").glob("*/*/result.json"))
        return [(file.parts[-3], file.parts[-2], json.loads(file.read_text())) for file in files]

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return RunConfig.model_validate_json(self.config_file.read_text())

    @property
    def state(self) -> RunState:
        """The run's state; one that was running when its process was killed is waiting."""
        stored = read_json(self.state_file)
        state = RunState() if stored is None else RunState.model_validate(stored)
        if state.state == "running" and not is_locked(self.lock_file):
            return state.model_copy(update={"state": "waiting", "error": "its process was killed"})
        return state

    def set_state(self, **changes: Any) -> RunState:
        """Change some fields of the state."""
        state = self.state.model_copy(update=changes)
        write_json(self.state_file, state.model_dump())
        return state

    @property
    def finished(self) -> bool:
        """Whether training ended and the model is exported."""
        return self.state.state == "finished"

    @property
    def summary(self) -> dict[str, Any]:
        """Last and best values; empty before the run is finished."""
        return read_json(self.summary_file) or {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the run; empty before it starts."""
        return read_json(self.provenance_file) or {}

    @property
    def progress(self) -> dict[str, Any]:
        """Where training is; empty before it starts."""
        return read_json(self.progress_file) or {}

    def history_rows(self) -> list[Row]:
        """The lines of the history as they were logged: validation and training of an epoch apart."""
        rows = []
        if self.history_file.exists():
            for line in self.history_file.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the last line of a process that was killed while writing it
                rows.append(row)
        return rows

    def history(self) -> list[Row]:
        """One dict of metrics for each number of epochs done, 0 (untrained) first."""
        found = by_epoch(self.history_rows())
        return [found[epoch] for epoch in sorted(found)]

    def checkpoint_files(self) -> list[Path]:
        """Checkpoints by name; `sweeps.training.checkpoints` says which of them are whole, and which is the newest."""
        return sorted(f for f in self.checkpoints.glob("*.ckpt") if f.is_file() and not f.name.startswith("."))


class RunStore:
    """All runs under one home."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home()

    def run(self, run_id: str) -> Run:
        """The run of this id, whether it exists or not."""
        return Run(self.root / run_id)

    def create(self, config: RunConfig) -> Run:
        """The run of a configuration; its directory and config file are made if absent."""
        run = self.run(config.identity())
        content = config.model_dump(mode="json")
        # machine settings are no part of the identity, so an unfinished run may go on with other ones
        if not run.finished and read_json(run.config_file) != content:
            write_json(run.config_file, content)
        return run

    def all(self) -> list[Run]:
        """Every run, oldest first."""
        files = sorted(self.root.glob("*/config.json"), key=lambda file: file.stat().st_mtime)
        return [Run(file.parent) for file in files]

    def finished_ids(self) -> set[str]:
        """Ids of all finished runs; reads one small file a run."""
        files = self.root.glob("*/state.json")
        return {file.parent.name for file in files if (read_json(file) or {}).get("state") == "finished"}

    def begun_ids(self) -> set[str]:
        """Ids of all runs that have a checkpoint."""
        return {folder.parent.name for folder in self.root.glob("*/checkpoints")}

    def find(self, run_id: str) -> Run:
        """A run by its id or an unambiguous beginning of it.

        Raises:
            UserError: there is none, or several.
        """
        ids = [run.id for run in self.all()]
        matches = [known for known in ids if known == run_id] or [k for k in ids if run_id and k.startswith(run_id)]
        if not matches:
            raise UserError(f'no run "{run_id}" in {self.root}: {suggest(run_id, ids)}')
        if len(matches) > 1:
            raise UserError(f'"{run_id}" begins several run ids: {", ".join(matches)}')
        return self.run(matches[0])
