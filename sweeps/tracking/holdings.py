"""What the server holds of a run, asked of it and compared with the run's own files.

W&B's client ends well even where its uploads were refused, so whoever wants to know has to ask.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callbacks.files import PICTURED
from sweeps.runs.folders import FindingsFolder
from sweeps.runs.run import Run
from sweeps.tracking.artifacts import MODEL, parcels
from sweeps.tracking.connection import TrackerError, api, asking, connection
from sweeps.tracking.media import Parcel, Picture, Table, Value
from sweeps.tracking.mirror import publish, summary
from sweeps.tracking.record import Record
from sweeps.tracking.session import TrackedRun, give_up, tracked

_MOMENT = 3.0  # seconds before a server is asked once more


@dataclass(frozen=True)
class Lacking:
    """What the server does not hold of a run or an analysis.

    Attributes:
        epochs: of the history.
        keys: of the summary.
        files: pictures that were logged but never arrived, by W&B's name for them.
        artifacts: names of those it lacks, or has other files of.
        links: names of the artifacts that it does not know the run to be made from.
    """

    epochs: Sequence[int] = ()
    keys: Sequence[str] = ()
    files: Sequence[str] = ()
    artifacts: Sequence[str] = ()
    links: Sequence[str] = ()

    def words(self) -> str:
        """All of it in one phrase; empty if the server holds everything."""
        parts = [f"epochs {', '.join(map(str, self.epochs))}"] if self.epochs else []
        for found, what in (
            (self.keys, "values of the summary"), (self.files, "pictures"), (self.artifacts, "artifacts"),
            (self.links, "links to what it was made from"),
        ):  # fmt: skip
            parts += [f"{len(found)} {what} ({found[0]}{', ...' if found[1:] else ''})"] if found else []
        return ", ".join(parts)


def lacking(place: Run | FindingsFolder) -> Lacking:
    """Ask the server what it holds of a run or an analysis, and compare that with the files here.

    Raises:
        TrackerError: the server does not answer, or does not know it.
    """
    wanted, sent = summary(place), parcels(place)
    if isinstance(place, Run) and place.pulled:  # the rest is the server's own
        wanted = {key: value for key, value in wanted.items() if key.startswith("probe/")}
    with asking():
        there = api().run(Record.of(place).path)
        arrived = {file.name for file in there.files() if file.size}
        held = dict(there.summary_metrics)
        epochs, shown = _history(place, there) if isinstance(place, Run) else ([], [])
        versions = list(there.logged_artifacts())
        used = _names(there.used_artifacts()) if any(parcel.inputs for parcel in sent) else set()
    shown += [held[key] for key, value in wanted.items() if isinstance(value, Picture) and key in held]
    links = dict.fromkeys(_name(used) for parcel in sent for used in parcel.inputs)
    tables, done = _tables(there.id, wanted, versions), place.trained if isinstance(place, Run) else True
    keys = {key for key, value in wanted.items() if key not in tables and _differs(held.get(key), value)}
    return Lacking(
        epochs=epochs,
        keys=sorted(keys | tables) if done else [],
        files=sorted({value["path"] for value in shown} - arrived),
        artifacts=list(dict.fromkeys(one.name for one in sent if not _is_there(one, versions, Record.of(place)))),
        links=[name for name in links if name not in used],
    )


def _history(run: Run, there: Any) -> tuple[list[int], list[Any]]:
    """Epochs that the server lacks, and the pictures that those it has speak of."""
    logged = {row["epoch"] for row in there.scan_history(keys=["epoch"])}
    shown = [row[view.key] for view in PICTURED for row in there.scan_history(keys=["epoch", view.key])]
    return [epoch for row in run.history() if (epoch := int(row["epoch"] or 0)) not in logged], shown


def _tables(run_id: str, wanted: Mapping[str, Value], versions: Sequence[Any]) -> set[str]:
    """Keys of tables that never arrived: W&B's client sends each as an artifact named after its key, a bit changed."""
    names = [_name(one.name) for one in versions]
    keys = [key for key, value in wanted.items() if isinstance(value, Table)]
    plain = {key: re.escape(re.sub(r"[^a-zA-Z0-9_.-]+", "", f"run-{run_id}-{key}")) for key in keys}
    return {key for key in keys if not any(re.fullmatch(rf"{plain[key]}(-.{{6}})?", name) for name in names)}


def _differs(there: Any, here: Any) -> bool:
    """Whether the server lacks a value of the summary, or has another number."""
    if isinstance(here, int | float) and isinstance(there, int | float):
        return abs(here - there) > 1e-9 * max(abs(here), abs(there))
    return there is None


def _is_there(parcel: Parcel, versions: Sequence[Any], record: Record) -> bool:
    """Whether the server has an artifact: a model by its aliases, of results these very files."""
    if _matches(parcel, [one for one in versions if _name(one.name) == parcel.name]):
        return True
    path = f"{record.entity}/{record.project}/{parcel.name}"  # logged by another run of the same identity
    with asking():
        return api().artifact_exists(f"{path}:latest") and _matches(parcel, list(api().artifacts(parcel.kind, path)))


def _matches(parcel: Parcel, versions: Sequence[Any]) -> bool:
    if parcel.kind == MODEL:
        return set(parcel.aliases) <= {alias for one in versions for alias in one.aliases}
    return bool(versions) and parcel.version().digest in {one.digest for one in versions}


def _names(versions: Any) -> set[str]:
    return {_name(one.name) for one in versions}


def _name(version: str) -> str:
    """`model-ab12` of `me/moe/model-ab12:last`."""
    return version.rpartition("/")[2].partition(":")[0]


def ask_what_arrived(place: Run | FindingsFolder, session: TrackedRun) -> None:
    """After a session, ask the server what it holds, and say and note what it lacks.

    Args:
        place: the run or analysis.
        session: closed by now.
    """
    if session.mode_begun != "online" or session.failed:
        return
    try:
        found = lacking(place)
        if found.words():  # a server may need a moment for what it was sent last
            time.sleep(_MOMENT)
            found = lacking(place)
    except TrackerError as error:
        give_up(place, f"the server did not confirm the run ({error})")
        return
    if found.words():
        give_up(place, f"the server lacks {found.words()}")


def send_pictures(place: Run | FindingsFolder, names: Sequence[str]) -> None:
    """Send again pictures that the server refused, from the copies that W&B's client keeps in the folder.

    Raises:
        TrackerError: the server does not answer.
    """
    with asking():
        there = api().run(Record.of(place).path)
        for name in names:
            for copy in sorted(place.path.glob(f"wandb/*/files/{name}"))[:1]:
                there.upload_file(str(copy), root=str(copy).removesuffix(name))


def adopt(run: Run, group: str | None) -> None:
    """Show a finished run under the name that a W&B sweep has just given it: the sweep then counts it as done."""
    given = os.environ.get("WANDB_RUN_ID")
    if os.environ.get("WANDB_SWEEP_ID") and connection().online and given not in (None, Record.of(run).id):
        show(run, group)


def show(run: Run, group: str | None) -> None:
    """Bring all of a finished run into its W&B run."""
    with tracked(run, group=group) as session:
        publish(run, session)
    ask_what_arrived(run, session)
