"""What `moe runs` and `moe sweep ls` print."""

from contextlib import closing
from pathlib import Path
from typing import Any

from callbacks.keys import Keys
from sweeps.queue.opening import names, open_queue, open_sweep
from sweeps.queue.status import status
from sweeps.runs.files import read_json
from sweeps.runs.run import Run
from sweeps.runs.state import State
from sweeps.runs.store import RunStore

_STATES: tuple[State, ...] = ("waiting", "running", "finished", "failed")


def listing(store: RunStore | None = None) -> list[dict[str, Any]]:
    """One row for each run, oldest first."""
    return [_row(run) for run in (store or RunStore()).all()]


def _row(run: Run) -> dict[str, Any]:
    config = read_json(run.config_file)
    last = run.summary.get("last", {})
    return {
        "id": run.id,
        "data": config["data"]["name"],
        "experts": config["model"]["experts"],
        "top_k": config["model"]["top_k"],
        "seed": config["seed"],
        "state": run.state.state,
        "epochs": config["train"]["epochs"],
        "val_loss": last.get(Keys.VAL_LOSS),
        "probes": sorted({probe for _, probe, _ in run.probe_results()}),
    }


def sweeps(root: Path | None = None) -> list[dict[str, Any]]:
    """One row for each sweep launched on this machine."""
    rows = []
    for name in names(root):
        sweep = open_sweep(name, root=root)
        with closing(open_queue(sweep)) as queue:
            now, place = status(sweep, queue), queue.place
        counts: dict[str, int] = {state: now.count(state) for state in _STATES}
        rows.append({"sweep": name, "trials": len(now.cells), **counts, "swept": list(sweep.swept), "queue": place})
    return rows


def details(run_id: str, store: RunStore | None = None) -> dict[str, dict[str, Any]]:
    """Everything about one run, by section."""
    run = (store or RunStore()).find(run_id)
    probes = {f"{probe} on {images}": result for images, probe, result in run.probe_results()}
    return {
        "run": {"id": run.id, "folder": str(run.path), **run.state.model_dump()},
        "config": read_json(run.config_file),
        "last epoch": run.summary.get("last", {}),
        "provenance": run.provenance,
        "probes": probes,
    }
