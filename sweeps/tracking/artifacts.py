"""What of a run travels as artifacts: its model with all that is needed to probe it elsewhere, and results."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from moe.data.datasets import training_stores, validation_store
from moe.export import CARD
from sweeps.runs.files import unless_damaged, write_json
from sweeps.runs.run import Run
from sweeps.tracking.connection import api, asking
from sweeps.tracking.record import Record
from sweeps.tracking.session import TrackedRun

MODEL, PROBE, ACTIVATIONS = "model", "probe", "activations"
BEST, LAST = "best", "last"
KEPT = 3  # versions of an artifact beside those with an alias of their own


def model_name(run_id: str) -> str:
    """Name of the artifact with a run's model."""
    return f"model-{run_id}"


def last_models(runs: Sequence[Run]) -> list[str]:
    """The final models of some runs, as ENTITY/PROJECT/NAME:ALIAS where the run's record says where it is."""
    names = []
    for run in runs:
        record = unless_damaged(partial(Record.of, run), None)
        where = f"{record.entity}/{record.project}/" if record and record.entity else ""
        names.append(f"{where}{model_name(run.id)}:{LAST}")
    return names


def has_model(entity: str, project: str, run_id: str) -> bool:
    """Whether the server holds a run's final model, which says that it was trained to its end.

    Raises:
        TrackerError: the server does not answer.
    """
    with asking():
        return bool(api().artifact_exists(f"{entity}/{project}/{model_name(run_id)}:{LAST}"))


def upload_model(session: TrackedRun, run: Run, *, wait: bool) -> None:
    """Send the model of the best epoch and that of the last as versions of `model-<id>`, with their data card.

    Args:
        session: the tracker's run.
        run: whose models.
        wait: until the server has them, because results that are made from them follow.
    """
    write_json(run.data_card, _data_card(run))
    if run.best_model.is_dir():
        _upload_model(session, run, run.best_model, [BEST], wait=wait)
        _upload_model(session, run, run.model, [LAST], wait=wait)
    else:
        _upload_model(session, run, run.model, [BEST, LAST], wait=wait)


def _upload_model(session: TrackedRun, run: Run, folder: Path, aliases: Sequence[str], *, wait: bool) -> None:
    epoch = json.loads((folder / CARD).read_text())["epoch"]
    files = {file.name: file for file in (*sorted(folder.iterdir()), *run.portable) if file.exists()}
    about = run.config.scientific() | {"epoch": epoch}
    session.upload(model_name(run.id), MODEL, files, aliases=aliases, metadata=about, wait=wait)


def _data_card(run: Run) -> dict[str, Any]:
    """What the run was trained and validated on: origin, size, statistics and checksums, none of the images."""
    config = run.config.data
    stores = {store.name: store for store in (*training_stores(config), validation_store(config))}
    cards = {name: store.manifest.model_dump(mode="json", exclude={"factors"}) for name, store in stores.items()}
    return {"data": config.model_dump(mode="json"), "stores": cards}


def upload_folder(session: TrackedRun, name: str, folder: Path, inputs: Sequence[str], kind: str = PROBE) -> None:
    """Send a folder of results as an artifact.

    Args:
        session: the tracker's run.
        name: of the artifact.
        folder: the folder.
        inputs: artifacts that the results were made from, as NAME:ALIAS.
        kind: type of the artifact.
    """
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    session.upload(name, kind, files, inputs=inputs)


def prune(record: Record) -> None:
    """Of each artifact of a run delete all but the three newest versions; those with an alias of their own stay."""
    collections: dict[str, list[Any]] = {}
    for version in api().run(record.path).logged_artifacts():
        if version.type in (MODEL, PROBE, ACTIVATIONS):
            collections.setdefault(version.collection.name, []).append(version)
    for versions in collections.values():
        plain = [version for version in versions if not set(version.aliases) - {"latest"}]
        newest_first = sorted(plain, key=lambda one: int(one.version.removeprefix("v")), reverse=True)
        for version in newest_first[KEPT:]:
            version.delete()
