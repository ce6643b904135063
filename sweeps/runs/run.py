"""A run: what its folder holds, read."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from moe.config import RunConfig
from moe.files import content
from sweeps.runs.files import DamagedFileError, from_json, read_typed, reading, unless_damaged, write_json
from sweeps.runs.folders import PASSES, TRAIN_AGAIN, WAITS_AGAIN, RunFolder
from sweeps.runs.lock import is_locked
from sweeps.runs.state import RunState

Row = dict[str, float | None]  # of a history: metrics by name, NaN and infinity as None
Where = dict[str, int | float]  # training is: epochs and steps done, and what was last measured


def _whole(where: Where) -> Where:
    """A position that lacks nothing its readers take for granted."""
    needed = {"epoch", "epochs"} | ({"chance", "cv2"} if "agreement" in where else set())
    if missing := sorted(needed - where.keys()):
        raise ValueError(f"it has no {missing[0]}")
    return where


def _with_epoch(row: Row) -> Row:
    """A row that says after how many epochs its values were measured."""
    if row.get("epoch") is None:
        raise ValueError("it has no epoch")
    return row


_FACTS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_SUMMARY: TypeAdapter[dict[str, Row]] = TypeAdapter(dict[str, Row])
_ROW: TypeAdapter[Row] = TypeAdapter(Annotated[Row, AfterValidator(_with_epoch)])
_STATE: TypeAdapter[RunState] = TypeAdapter(RunState)
_WHERE: TypeAdapter[Where] = TypeAdapter(Annotated[Where, AfterValidator(_whole)])


def stored_state(file: Path) -> RunState:
    """What a state file says; a damaged one is named, and its run waits: its checkpoints have what is done."""
    damaged = RunState(error=f"its {file.name} is damaged")
    return unless_damaged(partial(read_typed, file, _STATE, RunState(), WAITS_AGAIN), damaged)


def read_config(file: Path) -> RunConfig:
    """The configuration in a file.

    Raises:
        DamagedFileError: it holds none.
    """
    with reading(file, TRAIN_AGAIN):
        return RunConfig.model_validate_json(content(file))


class Run(RunFolder):
    """One run, by what its folder holds. Its id is its configuration's identity."""

    @property
    def title(self) -> str:
        """What it is called in figures and messages."""
        return f"run {self.id}"

    @property
    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            DamagedFileError: its file does not hold it; the run's id tells.
        """
        config = read_config(self.config_file)
        if config.identity() != self.id:
            raise DamagedFileError(self.config_file, f"it describes another run, {config.identity()}", TRAIN_AGAIN)
        return config

    @property
    def state(self) -> RunState:
        """The run's state; one that was running when its process was killed is waiting."""
        state = stored_state(self.state_file)
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
    def trained(self) -> bool:
        """Whether all of training's results are written, which is so a moment before the run counts as finished."""
        return self.finished or (self.summary_file.exists() and self.model.is_dir())

    @property
    def pulled(self) -> bool:
        """Whether it was trained on another machine, and what lies here came from the tracker."""
        return self.finished and self.state.attempts == 0

    @property
    def summary(self) -> dict[str, Row]:
        """Last and best values; empty before the run is finished, or (which is said) if the file is damaged."""
        return unless_damaged(partial(read_typed, self.summary_file, _SUMMARY, {}, TRAIN_AGAIN), {})

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the run; empty before it starts, or (which is said) if the file is damaged."""
        return unless_damaged(partial(read_typed, self.provenance_file, _FACTS, {}, TRAIN_AGAIN), {})

    @property
    def progress(self) -> Where:
        """Where training is; empty before it starts, or (which is said) if the file is damaged."""
        return unless_damaged(partial(read_typed, self.progress_file, _WHERE, {}, PASSES), {})

    def history_rows(self) -> list[Row]:
        """The lines of the history as they were logged: validation and training of an epoch apart.

        Damaged lines are named and left out; not so the end of a run that is not finished, whose process may have been
        killed while it wrote.
        """
        content = unless_damaged(self._history, b"")
        *whole, last = content.split(b"\n")
        rows = [unless_damaged(partial(self._row, number, line), None) for number, line in enumerate(whole, 1)]
        if last and self.finished:
            rows.append(unless_damaged(partial(self._row, len(rows) + 1, last), None))
        return [row for row in rows if row is not None]

    def _history(self) -> bytes:
        with reading(self.history_file, TRAIN_AGAIN):
            return content(self.history_file) if self.history_file.exists() else b""

    def _row(self, number: int, line: bytes) -> Row:
        try:
            return _ROW.validate_python(from_json(line))
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(self.history_file, f"line {number} is no row of a history", TRAIN_AGAIN) from error

    def history(self) -> list[Row]:
        """One dict of metrics for each number of epochs done, 0 (untrained) first."""
        found = by_epoch(self.history_rows())
        return [found[epoch] for epoch in sorted(found)]


def by_epoch(rows: Iterable[Row]) -> dict[int, Row]:
    """Everything that was logged for each number of epochs done."""
    found: dict[int, Row] = {}
    for row in rows:
        found.setdefault(int(row["epoch"] or 0), {}).update(row)
    return found
