"""What Optuna decides while a sweep runs: the values of a bayes sweep's cells, and which runs end early."""

import dataclasses
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from moe.errors import UserError
from sweeps.plan.search import Search
from sweeps.plan.spec import cell, replicates
from sweeps.queue.base import Claim, SteerableQueue
from sweeps.queue.launched import LaunchedSweep, QueuedCell, blank_number
from sweeps.queue.storage import study_storage
from sweeps.runs.run import Run

MADE_BY = "made by"


class Steering:
    """Steers the cells that one agent runs.

    Args:
        sweep: the launched sweep.
        queue: its queue, as the agent has opened it.
    """

    def __init__(self, sweep: LaunchedSweep, queue: SteerableQueue) -> None:
        self.sweep, self.queue = sweep.file, queue
        storage = study_storage(queue.study)
        queue.with_it.callback(storage.engine.dispose)
        self.search = Search(self.sweep, storage, f"moe:{sweep.name}")
        self._heard = 0
        self._runs: dict[str, str | None] = {}  # ids by values

    def begin(self, claim: Claim) -> Claim:
        """The claim with its values and its trial.

        Raises:
            NothingNewError: the search has nothing left to try.
        """
        trial = claim.trial
        number = blank_number(claim.cell)
        if number is not None:
            values, trial = self._suggestion(number // len(replicates(self.sweep)), claim.cell.values)
            found = cell(self.sweep, values | claim.cell.values)
            claim = self.queue.fill(claim, QueuedCell(found.run_id, found.values))
        if trial is None:
            trial = self.search.adopt(claim.cell.values)
        if trial != claim.trial:
            self.queue.record_trial(claim, trial)
        self._heard = 0
        return dataclasses.replace(claim, trial=trial)

    def _suggestion(self, number: int, seed: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
        """The suggestion's values, and its trial if it was made here and now; runs are compared under one seed."""
        made: list[tuple[int, dict[str, Any]]] = []
        run_of = partial(self._run_of, seed)

        def propose() -> dict[str, Any]:
            filled = [state.cell for state in self.queue.states().values() if blank_number(state.cell) is None]
            known = {run for one in filled if (run := run_of(one.values)) is not None}
            suggestion = self.search.ask_for_new(run_of, known)
            made.append((suggestion.number, suggestion.values | {MADE_BY: uuid.uuid4().hex}))
            return made[-1][1]

        values = self.queue.suggestion(number, propose)
        maker = values.pop(MADE_BY)
        mine = next((trial for trial, proposed in made if proposed[MADE_BY] == maker), None)
        for trial, _ in made:
            if trial != mine:  # another agent was first
                self.search.fail(trial)
        return values, mine

    def _run_of(self, seed: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
        """Id of the run with these values and this seed; None if there can be none."""
        asked = {**values, **seed}
        key = repr(sorted(asked.items()))
        if key not in self._runs:
            try:
                self._runs[key] = cell(self.sweep, asked).run_id
            except UserError:
                self._runs[key] = None
        return self._runs[key]

    def follow(self, claim: Claim, run: Run) -> str | None:
        """Report the epochs since the last call; says so if the run is to end early."""
        history, metric = run.history(), self.search.metric.name
        for row in history[self._heard :]:
            if row is history[-1] and metric not in row:
                break  # of its last epoch the training half is written, or the validation half
            epoch, value = int(row["epoch"] or 0), row.get(metric)
            self._heard += 1
            if claim.trial is not None and self.search.report(claim.trial, epoch, value):
                return f"stopped early after epoch {epoch}: {metric} was not among the best"
        return None

    def finish(self, claim: Claim, run: Run, *, stopped: bool = False) -> float | None:
        """The run is done, or was stopped early; returns its metric."""
        rows = [row for row in run.history() if self.search.metric.name in row]
        value = rows[-1][self.search.metric.name] if rows else None
        if claim.trial is not None:
            self.search.finish(claim.trial, value, stopped=stopped)
        if self.search.reached_target():
            self.queue.skip_waiting("not run: another run reached the metric's target")
        return value

    def fail(self, claim: Claim) -> None:
        """The cell was given up."""
        if claim.trial is not None:
            self.search.fail(claim.trial)
