"""What of a run travels through the tracker: its model with everything needed to probe it elsewhere, and results.

Nothing that comes back is trusted: every file is compared with the digest that the artifact's manifest has for it,
files of other names are refused, models are safetensors and JSON, and the run's configuration has to hash to the id in
the artifact's name.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moe.data.datasets import training_stores, validation_store
from moe.errors import UserError
from moe.export import CARD, WEIGHTS, load_model
from sweeps.launching import LaunchedSweep
from sweeps.queue.server import runs as remote_runs
from sweeps.runs.files import write_json
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore
from sweeps.tracking.tracker import Record, first_line, mode

MODEL, PROBE, ACTIVATIONS = "model", "probe", "activations"
KEPT = 3  # versions of an artifact beside those with an alias of their own
_BIGGEST, _BIG = 20e9, 1e9  # bytes of the weights, and of any other file


def log_model(session: Any, run: Run) -> list[Any]:
    """Log the model of the best epoch and that of the last as versions of `model-<id>`, with their data card.

    Returns:
        The artifacts, on their way to the server.
    """
    write_json(run.data_card, _data_card(run))
    if not run.best_model.is_dir():
        return [session.log_artifact(_model(run, run.model), aliases=["best", "last"])]
    best = session.log_artifact(_model(run, run.best_model), aliases=["best"])
    return [best, session.log_artifact(_model(run, run.model), aliases=["last"])]


def _model(run: Run, folder: Path) -> Any:
    import wandb

    about = json.loads((folder / CARD).read_text())
    artifact = wandb.Artifact(
        f"model-{run.id}", type=MODEL, metadata=run.config.scientific() | {"epoch": about["epoch"]}
    )
    for file in (*sorted(folder.iterdir()), *run.portable):
        if file.exists():
            artifact.add_file(str(file), policy="immutable")
    return artifact


def _data_card(run: Run) -> dict[str, Any]:
    """What the run was trained and validated on: origin, size, statistics and checksums, none of the images."""
    config = run.config.data
    stores = {store.name: store for store in (*training_stores(config), validation_store(config))}
    cards = {name: store.manifest.model_dump(mode="json", exclude={"factors"}) for name, store in stores.items()}
    return {"data": config.model_dump(mode="json"), "stores": cards}


def log_results(session: Any, name: str, source: Path, inputs: Sequence[str], kind: str = PROBE) -> None:
    """Log a folder of results as an artifact.

    Args:
        session: the tracker's run.
        name: of the artifact.
        source: the folder.
        inputs: artifacts that the results were made from, as NAME:ALIAS.
        kind: type of the artifact.
    """
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for file in sorted(file for file in source.rglob("*") if file.is_file()):
        artifact.add_file(str(file), name=str(file.relative_to(source)), policy="immutable")
    if not session.offline:
        for used in inputs:
            session.use_artifact(used)
    session.log_artifact(artifact)


def prune(record: Record) -> None:
    """Of each artifact of a run delete all but the three newest versions; those with an alias of their own stay."""
    import wandb

    collections: dict[str, list[Any]] = {}
    for version in wandb.Api().run(record.path).logged_artifacts():
        if version.type in (MODEL, PROBE, ACTIVATIONS):
            collections.setdefault(version.collection.name, []).append(version)
    for versions in collections.values():
        plain = [version for version in versions if not set(version.aliases) - {"latest"}]
        newest_first = sorted(plain, key=lambda one: int(one.version.removeprefix("v")), reverse=True)
        for version in newest_first[KEPT:]:
            version.delete()


# --- back again -----------------------------------------------------------------------------------------------------


def find(run_id: str, store: RunStore, report: Callable[[str], None]) -> Run:
    """A run by its id or the beginning of it; one that is not here is pulled from the tracker.

    Args:
        run_id: of a run here, or `ENTITY/PROJECT/ID` as W&B has it.
        store: where runs live.
        report: takes a line when something is pulled.

    Raises:
        UserError: there is no such run, or its model is damaged.
    """
    if "/" in run_id:
        return pull(run_id, store, report)
    try:
        return store.find(run_id)
    except UserError as error:
        if mode()[0] != "online":
            raise
        try:
            return pull(run_id, store, report)
        except UserError:
            raise error from None


def pull_sweep(sweep: LaunchedSweep, report: Callable[[str], None]) -> None:
    """Fetch the models of a W&B sweep's finished runs that were trained on other machines."""
    if sweep.remote is None or mode()[0] != "online":
        return
    for run in remote_runs(sweep.remote):
        if run.state == "finished" and run.cell and not sweep.store.run(run.cell).finished:
            pull(f"{sweep.remote.entity}/{sweep.remote.project}/{run.id}", sweep.store, report)


def pull(path: str, store: RunStore, report: Callable[[str], None]) -> Run:
    """Fetch a run's model from the tracker and make it a finished run of this machine.

    Args:
        path: `ENTITY/PROJECT/ID`; the first two may be left out.
        store: where it goes.
        report: takes a line about what is done.

    Raises:
        UserError: no such run or model, or what came is not what its digests say.
    """
    import wandb

    if mode()[0] != "online":
        raise UserError(f"run {path} is in W&B, which is {mode()[0]} here ({mode()[1]}); `wandb login` first")
    api = wandb.Api()
    try:
        known = api.run(path if "/" in path else f"{Record(id=path).project}/{path}")
        identity = str(known.config["identity"])
        run = store.run(identity)
        if run.finished:
            return run
        artifact = api.artifact(f"{known.entity}/{known.project}/model-{identity}:last", type=MODEL)
    except KeyError:
        raise UserError(f"W&B run {path} was not made by moe: its config has no identity") from None
    except (wandb.errors.CommError, ValueError) as error:
        raise UserError(f"W&B has no run {path} with a model: {first_line(error)}") from None
    report(f"pulling {artifact.qualified_name} ({artifact.size / 1e6:.1f} MB)")
    incoming = Run(store.home.incoming())
    try:
        fetch(artifact, incoming)
        _place(incoming, run)
    finally:
        shutil.rmtree(incoming.path, ignore_errors=True)
    record = Record(id=known.id, entity=known.entity, project=known.project, sent=known.lastHistoryStep)
    record.save(run)
    return run


def fetch(artifact: Any, into: Run) -> None:
    """Download a model artifact and compare every file with its digest.

    Raises:
        UserError: a file that no model has, one that is too large, or one that differs from its digest.
    """
    named = artifact.qualified_name
    allowed = {WEIGHTS, CARD, *(file.name for file in into.portable)}
    entries = artifact.manifest.entries
    for name, entry in entries.items():
        if name not in allowed or entry.ref is not None:
            raise UserError(f'artifact {named} holds "{name}", which no model of moe does; nothing was downloaded')
        if (entry.size or 0) > (_BIGGEST if name == WEIGHTS else _BIG):
            raise UserError(f"artifact {named}: {name} has {entry.size:,} bytes, too many to be genuine")
    if missing := {WEIGHTS, CARD, into.config_file.name} - set(entries):
        raise UserError(f"artifact {named} is no complete model: {', '.join(sorted(missing))} is missing")
    try:
        artifact.download(root=str(into.path), skip_cache=True)
    except (ValueError, OSError) as error:
        raise UserError(f"artifact {named} could not be downloaded: {first_line(error)}") from None
    for name, entry in entries.items():
        if _digest(into.path / name) != entry.digest:
            raise UserError(f"artifact {named}: {name} differs from its digest, so it is damaged or was changed")


def _digest(file: Path) -> str:
    """The base64 MD5 by which W&B knows a file."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return base64.b64encode(hashlib.file_digest(content, "md5").digest()).decode()


def _place(pulled: Run, run: Run) -> None:
    """Make a run of downloaded files, once they prove to be of one piece."""
    try:
        config = pulled.config
    except ValidationError as error:
        raise UserError(f"the pulled {pulled.config_file.name} is none of moe's: {first_line(error)}") from None
    pulled.model.mkdir()
    for name in (WEIGHTS, CARD):
        (pulled.path / name).rename(pulled.model / name)
    _, card = load_model(pulled.model)
    if not config.identity() == card.run_id == run.id or (card.model, card.gate) != (config.model, config.gate):
        raise UserError(f"the pulled model calls itself run {card.run_id}, but run {run.id} was asked for")
    run.path.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(run.model, ignore_errors=True)
    for file in (*pulled.portable, pulled.model):
        if file.exists():
            file.replace(run.path / file.name)
    write_json(run.state_file, {"state": "finished"})
