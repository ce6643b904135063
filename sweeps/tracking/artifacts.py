"""What of a run travels as artifacts: its model with all that is needed to probe it elsewhere, and results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe.data.datasets import training_stores, validation_store
from sweeps.runs.files import write_json
from sweeps.runs.folders import AnalysisFolder, FindingsFolder
from sweeps.runs.run import Run
from sweeps.tracking.connection import api, asking
from sweeps.tracking.media import Parcel
from sweeps.tracking.record import Record
from sweeps.tracking.session import TrackedRun

MODEL, PROBE, ACTIVATIONS = "model", "probe", "activations"
BEST, LAST = "best", "last"
KEPT = 3  # versions of an artifact beside those with an alias of their own


def model_name(run_id: str) -> str:
    """Name of the artifact with a run's model."""
    return f"model-{run_id}"


def has_model(entity: str, project: str, run_id: str) -> bool:
    """Whether the server holds a run's final model, which says that it was trained to its end.

    Raises:
        TrackerError: the server does not answer.
    """
    with asking():
        return bool(api().artifact_exists(f"{entity}/{project}/{model_name(run_id)}:{LAST}"))


def parcels(place: Run | FindingsFolder) -> list[Parcel]:
    """All that travels of a run or an analysis, what others are made from first."""
    return _of_findings(place) if isinstance(place, FindingsFolder) else [*models(place), *_of_probes(place)]


def models(run: Run) -> list[Parcel]:
    """The model of the best epoch and that of the last, versions of `model-<id>`; none before the run is trained.

    None of a pulled run either: the server has them, and that of the best epoch does not come along.
    """
    if not run.trained or run.pulled:
        return []
    if not run.data_card.exists():  # that of a pulled run came along; its images may not be here
        write_json(run.data_card, _data_card(run))
    if run.best_model.is_dir():
        return [_model(run, run.best_model, [BEST]), _model(run, run.model, [LAST])]
    return [_model(run, run.model, [BEST, LAST])]


def _model(run: Run, folder: Path, aliases: Sequence[str]) -> Parcel:
    from moe.export import CARD  # with torch, which an agent does not need

    epoch = json.loads((folder / CARD).read_text())["epoch"]
    files = {file.name: file for file in (*sorted(folder.iterdir()), *run.portable) if file.exists()}
    return Parcel(model_name(run.id), MODEL, files, aliases, run.config.scientific() | {"epoch": epoch})


def _data_card(run: Run) -> dict[str, Any]:
    """What the run was trained and validated on: origin, size, statistics and checksums, none of the images."""
    config = run.config.data
    stores = {store.name: store for store in (*training_stores(config), validation_store(config))}
    cards = {name: store.manifest.model_dump(mode="json", exclude={"factors"}) for name, store in stores.items()}
    return {"data": config.model_dump(mode="json"), "stores": cards}


def _of_probes(run: Run) -> list[Parcel]:
    """What probes read and found, made from the run's model."""
    probed, made_from = run.probe_results(), [f"{model_name(run.id)}:{LAST}"]
    read = dict.fromkeys(images for images, _, _ in probed if run.activations(images).is_dir())
    found = [Parcel(activations_name(run, images), ACTIVATIONS, _files(run.activations(images)), inputs=made_from)
             for images in read]  # fmt: skip
    return found + [
        Parcel(probe_name(run, images, probe), PROBE, _files(run.probe(images, probe)), inputs=made_from)
        for images, probe, _ in probed
    ]


def activations_name(run: Run, images: str) -> str:
    """Name of the artifact with the activations that probes read."""
    return f"activations-{run.id}-{images}"


def probe_name(run: Run, images: str, probe: str) -> str:
    """Name of the artifact with a probe's results."""
    return f"probe-{run.id}-{images}-{probe}"


def _of_findings(place: FindingsFolder) -> list[Parcel]:
    """Results of probes, made from the models of all runs that they compare, wherever each is in W&B."""
    records = [Record.of(Run(place.root / run_id)) for run_id in place.run_ids()]
    inputs = [
        "/".join(filter(None, [record.entity, record.project, f"{model_name(run_id)}:{LAST}"]))
        for run_id, record in zip(place.run_ids(), records, strict=True)
    ]
    return [
        Parcel(_artifact(place, images, probe), PROBE, _files(holder.probe(images, probe)), inputs=inputs)
        for holder, images, probe in place.found()
    ]


def _artifact(place: FindingsFolder, images: str, probe: str) -> str:
    """Name of the artifact with a result; an analysis is of one set of images."""
    return f"{Record.of(place).id}-{probe}" if isinstance(place, AnalysisFolder) else f"{place.id}-{images}-{probe}"


def _files(folder: Path) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}


def upload(session: TrackedRun, found: Sequence[Parcel], *, wait: bool = False) -> None:
    """Send artifacts, and say what each was made from.

    Args:
        session: the tracker's run.
        found: what to send.
        wait: until the server has the models, because something that is made from them follows.
    """
    wait = wait or any(parcel.inputs for parcel in found)
    for parcel in found:
        session.upload(parcel, wait=wait and parcel.kind == MODEL)


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
