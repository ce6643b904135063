"""A run: what its folder holds, read."""

import json
from collections.abc import Iterable
from typing import Any

from moe.config import RunConfig
from sweeps.runs.files import read_json, write_json
from sweeps.runs.folders import RunFolder
from sweeps.runs.lock import is_locked
from sweeps.runs.state import RunState

Row = dict[str, float | None]  # of a history: metrics by name, NaN and infinity as None


class Run(RunFolder):
    """One run, by what its folder holds. Its id is its configuration's identity."""

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


def by_epoch(rows: Iterable[Row]) -> dict[int, Row]:
    """Everything that was logged for each number of epochs done."""
    found: dict[int, Row] = {}
    for row in rows:
        found.setdefault(int(row["epoch"] or 0), {}).update(row)
    return found
