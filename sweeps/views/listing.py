"""What `moe runs` and `moe sweep ls` print."""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from callbacks.keys import Keys
from moe.config import flat
from moe.errors import UserError
from sweeps.queue.opening import names, open_queue, open_sweep
from sweeps.queue.status import status
from sweeps.runs.files import unless_damaged
from sweeps.runs.numbers import numbers
from sweeps.runs.run import Run
from sweeps.runs.state import State
from sweeps.runs.store import RunStore
from sweeps.views.query import parse

_STATES: tuple[State, ...] = ("waiting", "running", "finished", "failed")


def listing(store: RunStore | None = None, where: str | None = None) -> list[dict[str, Any]]:
    """One row for each run, oldest first; None for what stands in a damaged file, which is named.

    Args:
        store: the runs; None: those of `MOE_HOME`.
        where: conditions on settings by dotted path, on numbers as `sweeps.runs.numbers.numbers` names them, and on
            what the rows show; see `sweeps.views.query`.

    Raises:
        UserError: the conditions mean nothing here.
    """
    runs = list((store or RunStore()).all())
    rows = [_row(run) for run in runs]
    if not where:
        return rows
    whole = [row | _known(run) for run, row in zip(runs, rows, strict=True)]
    return [rows[place] for place in parse(where).select(whole, {key for row in whole for key in row})]


def _known(run: Run) -> dict[str, Any]:
    """Settings and numbers of a run by name."""
    config = unless_damaged(lambda: run.config, None)
    none: dict[str, float] = {}
    return (flat(config) if config else {}) | unless_damaged(partial(numbers, run), none)


def _row(run: Run) -> dict[str, Any]:
    config = unless_damaged(lambda: run.config, None)
    return {
        "id": run.id,
        "data": config and config.data.name,
        "experts": config and config.model.experts,
        "top_k": config and config.model.top_k,
        "seed": config and config.seed,
        "state": run.state.state,
        "epochs": config and config.train.epochs,
        "val_loss": run.summary.get("last", {}).get(Keys.VAL_LOSS),
        "probes": sorted({probe for _, probe, _ in run.probe_results()}),
    }


def sweeps(root: Path | None = None) -> list[dict[str, Any]]:
    """One row for each sweep launched on this machine, with `problem` where it cannot be asked."""
    return [_sweep_row(name, root) for name in names(root)]


def _sweep_row(name: str, root: Path | None) -> dict[str, Any]:
    """How a sweep stands; of one that cannot be asked, its name and why."""
    try:
        sweep = open_sweep(name, root=root)
        with closing(open_queue(sweep)) as queue:
            now, place = status(sweep, queue), queue.place
    except UserError as error:  # its file is damaged, or its queue does not answer: the others do not care
        unknown = dict.fromkeys(("trials", *_STATES))
        return {"sweep": name, **unknown, "swept": [], "queue": None, "problem": str(error)}
    counts: dict[str, int] = {state: now.count(state) for state in _STATES}
    return {"sweep": name, "trials": len(now.cells), **counts, "swept": list(sweep.swept), "queue": place}


def details(run_id: str, store: RunStore | None = None) -> dict[str, dict[str, Any]]:
    """Everything about one run, by section."""
    run = (store or RunStore()).find(run_id)
    probes = {f"{probe} on {images}": result for images, probe, result in run.probe_results()}
    return {
        "run": {"id": run.id, "folder": str(run.path), **run.state.model_dump()},
        "config": unless_damaged(lambda: run.config.model_dump(mode="json"), {}),
        "last epoch": run.summary.get("last", {}),
        "provenance": run.provenance,
        "probes": probes,
    }
