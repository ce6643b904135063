"""A queue's database made anew from the folders of sweeps and runs, after the old one was damaged."""

import uuid
from functools import partial
from typing import Any

from moe.config import flat
from moe.errors import UserError
from sweeps.plan.spec import Sweep, cell, replicates
from sweeps.queue.base import Queue, SteerableQueue
from sweeps.queue.launched import LaunchedSweep, blank_number
from sweeps.queue.steering import MADE_BY, Steering
from sweeps.runs.files import unless_damaged
from sweeps.runs.run import Run

Suggestion = tuple[dict[str, Any], dict[Any, Run]]  # values without a seed; the runs of them, by seed


def rebuild(sweep: LaunchedSweep, queue: Queue) -> None:
    """Fill an empty queue with a sweep, its cells, which of these are finished, and what a search has learned.

    What is lost: how often cells were tried and why they failed, and the decisions of early termination.

    Args:
        sweep: as its folder has it.
        queue: its queue, in a new database.
    """
    queue.define(sweep.definition())
    queue.update(sweep.store.finished_ids(), failed=False)
    if isinstance(queue, SteerableQueue) and any(blank_number(one) is not None for one in sweep.cells):
        _give_back_suggestions(sweep, queue)


def _give_back_suggestions(sweep: LaunchedSweep, queue: SteerableQueue) -> None:
    """Give the blank cells of a search the runs that it had made, and tell Optuna how these ended."""
    steering, file = Steering(sweep, queue), sweep.file
    seeds, suggestions = len(replicates(file)), _suggestions(sweep, steering)
    for place, (values, _) in enumerate(suggestions):
        queue.suggestion(place, lambda values=values: values | {MADE_BY: uuid.uuid4().hex})  # type: ignore[misc]
    claims = list(iter(queue.claim, None))  # all of them, so that none is taken twice
    for claim in claims:
        number = blank_number(claim.cell)
        place = len(suggestions) if number is None else number // seeds
        if place >= len(suggestions):
            queue.release(claim)
            continue
        filled = steering.begin(claim)
        run = suggestions[place][1].get(claim.cell.values[file.replicate])
        if run is not None and run.finished:
            steering.finish(filled, run)
            queue.finish(filled)
        else:  # it goes on from its checkpoint, or is begun
            queue.release(filled)


def _suggestions(sweep: LaunchedSweep, steering: Steering) -> list[Suggestion]:
    """The suggestions that runs in `MOE_HOME` were made of, in the order of their first runs."""
    found: dict[str, Suggestion] = {}
    for run in sweep.store.all():
        values = unless_damaged(partial(_values, sweep.file, steering, run), None)
        if values is not None:
            seed = values.pop(sweep.file.replicate)
            found.setdefault(repr(values), (values, {}))[1][seed] = run
    return list(found.values())[: len(sweep.cells) // len(replicates(sweep.file))]


def _values(file: Sweep, steering: Steering, run: Run) -> dict[str, Any] | None:
    """The values of a sweep's parameters that make a run; None if it is none of the sweep's."""
    has = flat(run.config)
    values = {path: has[path] for path in (*file.parameters, file.replicate) if path in has}
    try:
        same = cell(file, values).run_id == run.id
        for path, axis in steering.search.axes.items():
            same &= axis.value(axis.position(values[path])) == values[path]
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return values if same and values[file.replicate] in replicates(file) else None
