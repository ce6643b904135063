"""Runs that were trained elsewhere, fetched from W&B.

Nothing that comes is trusted: every file is compared with the digest that the artifact's manifest has for it, files of
other names are refused, models are safetensors and JSON, and the run's configuration has to hash to the id in the
artifact's name.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moe.errors import UserError
from moe.export import CARD, WEIGHTS, load_model
from moe.files import remove
from sweeps.runs.files import DamagedFileError, write_json
from sweeps.runs.run import Run, read_config
from sweeps.runs.store import RunStore
from sweeps.tracking.artifacts import LAST, MODEL, model_name
from sweeps.tracking.connection import RefusedKeyError, TrackerError, api, asking, connection, project
from sweeps.tracking.record import Record

_BIGGEST, _BIG = 20e9, 1e9  # bytes of the weights, and of any other file


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
        if not connection().online:
            raise
        try:
            return pull(run_id, store, report)
        except UserError:
            raise error from None


def pull_missing(runs: Iterable[tuple[str, str]], store: RunStore, report: Callable[[str], None]) -> None:
    """Fetch the models of runs that were finished on other machines.

    Args:
        runs: path `ENTITY/PROJECT/ID` and identity of each.
        store: where they go.
        report: takes a line for each that is pulled.
    """
    for path, identity in runs:
        if not store.run(identity).finished:
            pull(path, store, report)


def pull(path: str, store: RunStore, report: Callable[[str], None]) -> Run:
    """Fetch a run's model from the tracker and make it a finished run of this machine.

    Args:
        path: `ENTITY/PROJECT/ID`; the first two may be left out.
        store: where it goes.
        report: takes a line about what is done.

    Raises:
        UserError: no such run or model, or what came is not what its digests say.
    """
    here = connection()
    if not here.online:
        raise UserError(f"run {path} is in W&B, which is {here.mode} here: {here.why}")
    try:
        with asking():
            found = api().run(path if "/" in path else f"{project()}/{path}")
            identity = found.config.get("identity")
    except RefusedKeyError as error:
        raise UserError(f"run {path} is in W&B: {error}") from None
    except TrackerError as error:
        raise UserError(f"W&B has no run {path} with a model: {error}") from None
    if not re.fullmatch(r"[0-9a-f]{12}", str(identity)):
        raise UserError(f"W&B run {path} was not made by moe: its config has no identity")
    run = store.run(str(identity))
    if run.finished:
        return run
    try:
        with asking():
            artifact = api().artifact(f"{found.entity}/{found.project}/{model_name(run.id)}:{LAST}", type=MODEL)
    except TrackerError as error:
        raise UserError(f"W&B has no run {path} with a model: {error}") from None
    report(f"pulling {artifact.qualified_name} ({artifact.size / 1e6:.1f} MB)")
    incoming = Run(store.home.incoming())
    try:
        fetch(artifact, incoming)
        _place(incoming, run)
    finally:
        remove(incoming.path)
    Record(
        id=found.id, entity=found.entity, project=found.project, sent=found.lastHistoryStep,
        sweep=found.sweep_name, group=found.group,
    ).save(run)  # fmt: skip
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
        with asking():
            artifact.download(root=str(into.path), skip_cache=True)
    except TrackerError as error:
        raise UserError(f"artifact {named} could not be downloaded: {error}") from None
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
        config = read_config(pulled.config_file)
    except DamagedFileError as error:
        raise UserError(f"the pulled {pulled.config_file.name} is none of moe's: {error}") from None
    pulled.model.mkdir()
    for name in (WEIGHTS, CARD):
        (pulled.path / name).rename(pulled.model / name)
    _, card = load_model(pulled.model)
    same = (card.model, card.gate.hashed()) == (config.model, config.gate.hashed())
    if not (same and config.identity() == card.run_id == run.id):
        raise UserError(f"the pulled model calls itself run {card.run_id}, but run {run.id} was asked for")
    run.path.mkdir(parents=True, exist_ok=True)
    remove(run.model)
    for file in (*pulled.portable, pulled.model):
        if file.exists():
            file.replace(run.path / file.name)
    write_json(run.state_file, {"state": "finished"})
