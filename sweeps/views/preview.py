"""What a launch would do: every cell with its run id, configuration, state and missing epochs. Writes nothing."""

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from moe.config import from_flat
from moe.errors import UserError
from sweeps.plan.spec import Cell, Sweep, example
from sweeps.queue.base import CellState
from sweeps.queue.launched import QueuedCell, blank_cells, blank_number
from sweeps.queue.opening import names, open_queue, open_sweep
from sweeps.runs.store import RunStore
from sweeps.views.forecast import epochs_behind


def preview(
    sweep: Sweep, cells: Sequence[Cell], storage: str | None = None, blanks: Sequence[QueuedCell] | None = None
) -> list[dict[str, Any]]:
    """One row for each cell, as plain JSON types.

    ``kind`` is finished, running, failed, or for a waiting cell resumable (a checkpoint exists) or new.

    Args:
        sweep: the checked file.
        cells: what it expands to; none for a bayes sweep.
        storage: database URL of its queue, if it was launched before.
        blanks: its cells instead, where a service finds their values.
    """
    store, known = RunStore(), _known(sweep.name, storage)
    done, begun = store.finished_ids(), store.begun_ids()
    if blanks or sweep.method == "bayes":
        values = cells[0].values if cells else example(sweep)
        return [_blank_row(values, cell, known.get(cell.run_id), done) for cell in blanks or blank_cells(sweep)]
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


def _known(name: str, storage: str | None) -> Mapping[str, CellState]:
    """What the queue says of the cells, if the sweep was launched and its queue answers."""
    if name in names():
        with contextlib.suppress(UserError), closing(open_queue(open_sweep(name, storage))) as queue:
            return queue.states()
    return {}


def _blank_row(values: Mapping[str, Any], blank: QueuedCell, known: CellState | None, done: set[str]) -> dict[str, Any]:
    """A cell whose values are found while the sweep runs; until then its configuration has `values`."""
    cell = known.cell if known else blank
    state = "waiting" if known is None or known.lacks_results(done) else known.state
    config = from_flat({**values, **cell.values}).model_dump(mode="json")
    kind = state if state != "waiting" else "new" if blank_number(cell) is not None else "resumable"
    row = {"run_id": cell.run_id, "config": config, "values": cell.values, "state": state, "kind": kind}
    return row | {"epochs_left": 0 if state == "finished" else config["train"]["epochs"]}
