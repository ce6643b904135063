"""A run's own files, sent on to the tracker: one step an epoch, with the epoch's metrics and pictures.

The files are the truth. Whatever the tracker lacks when a run begins or goes on (the process was killed, the server was
away, a W&B sweep gave the run another name) is sent first, so that the tracker holds every epoch once and in order.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import lightning as L

from callbacks.files import PICTURED, View
from callbacks.keys import SATURATION_TABLE
from sweeps.runs.files import read_json
from sweeps.runs.folders import RESULT, ProbedFolder
from sweeps.runs.numbers import numbers, probe_key
from sweeps.runs.run import Run
from sweeps.tracking.artifacts import has_model, last_models, upload_folder, upload_model
from sweeps.tracking.connection import TrackerError, api, asking, connection
from sweeps.tracking.media import Picture, Table, Value
from sweeps.tracking.record import Record
from sweeps.tracking.session import TrackedRun, give_up, tracked

_MOMENT = 3.0  # seconds before a server is asked once more


class Mirror(L.Callback):
    """Sends each epoch once its files are complete.

    Args:
        run: whose files.
        session: the tracker's run.
    """

    def __init__(self, run: Run, session: TrackedRun) -> None:
        self.run, self.session = run, session

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Here the files of the epochs before are complete."""
        if trainer.is_global_zero:
            send(self.run, self.session, until=trainer.current_epoch)


def send(run: Run, session: TrackedRun, until: int | None = None) -> None:
    """Send the epochs that the tracker lacks.

    Args:
        run: whose files.
        session: the tracker's run.
        until: last epoch to send; None: all there are.
    """
    if session.mode == "disabled":
        return
    record = Record.of(run)
    for row in run.history():
        epoch = int(row["epoch"] or 0)
        if epoch > record.sent and (until is None or epoch <= until):
            session.log(epoch, _numbers(row) | _pictures(run, epoch))
            record = Record.of(run)
            record.passed(run, epoch)


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


def publish(run: Run, session: TrackedRun, *, wait: bool = False) -> None:
    """Send all that a trained run has and the tracker lacks: its epochs, its summary, its models, its probes' results.

    Args:
        run: the run.
        session: the tracker's run.
        wait: until the server has the models, because results that are made from them follow.
    """
    if session.mode == "disabled":
        return
    send(run, session)
    session.summarise(summary(run))
    probed = run.probe_results()
    upload_model(session, run, wait=wait or bool(probed))
    for images, probe, _ in probed:
        upload_results(session, run, images, probe)


@dataclass(frozen=True)
class Lacking:
    """What the server does not hold of a run.

    Attributes:
        epochs: of the history.
        keys: of the summary.
        files: pictures that were logged but never arrived, by W&B's name for them.
        model: whether it lacks the final model.
    """

    epochs: list[int]
    keys: list[str]
    files: list[str]
    model: bool

    def words(self) -> str:
        """All of it in one phrase; empty if the server holds everything."""
        parts = [f"epochs {', '.join(map(str, self.epochs))}"] if self.epochs else []
        parts += [f"{len(self.keys)} values of the summary ({self.keys[0]}, ...)"] if self.keys else []
        parts += [f"{len(self.files)} pictures"] if self.files else []
        return ", ".join(parts + (["the model"] if self.model else []))


def lacking(run: Run) -> Lacking:
    """Ask the server what it holds of a run, and compare that with the run's own files.

    Raises:
        TrackerError: the server does not answer.
    """
    record, wanted = Record.of(run), summary(run)
    with asking():
        there = api().run(record.path)
        arrived = {file.name for file in there.files() if file.size}
        held = dict(there.summary_metrics)
        logged = [row["epoch"] for row in there.scan_history(keys=["epoch"])]
        shown = [row[view.key] for view in PICTURED for row in there.scan_history(keys=["epoch", view.key])]
    shown += [held[key] for key, value in wanted.items() if isinstance(value, Picture) and key in held]
    epochs = [int(row["epoch"] or 0) for row in run.history()]
    return Lacking(
        epochs=[epoch for epoch in epochs if epoch not in logged],
        keys=sorted(wanted.keys() - held.keys()) if run.finished else [],
        files=sorted({value["path"] for value in shown} - arrived),
        model=run.finished and not has_model(str(record.entity), record.project, run.id),
    )


def ask_what_arrived(run: Run, session: TrackedRun) -> None:
    """After a session, ask the server what it holds: W&B's client ends well even where its uploads were refused.

    Args:
        run: the run.
        session: closed by now.
    """
    if session.mode_begun != "online" or session.failed:
        return
    try:
        found = lacking(run)
        if found.words():  # a server may need a moment for what it was sent last
            time.sleep(_MOMENT)
            found = lacking(run)
    except TrackerError as error:
        give_up(run, f"the server did not confirm the run ({error})")
        return
    if found.words():
        give_up(run, f"the server lacks {found.words()}")


def send_pictures(run: Run, names: list[str]) -> None:
    """Send again pictures that the server refused, from the copies that W&B's client keeps in the run's folder.

    Raises:
        TrackerError: the server does not answer.
    """
    with asking():
        there = api().run(Record.of(run).path)
        for name in names:
            for copy in sorted(run.path.glob(f"wandb/*/files/{name}"))[:1]:
                there.upload_file(str(copy), root=str(copy).removesuffix(name))


def summary(run: Run) -> dict[str, Value]:
    """The whole summary of a run: last, best and untrained values, what the last epoch showed, results of probes."""
    values: dict[str, Value] = {**numbers(run)}
    if rows := run.history():
        epoch = int(rows[-1]["epoch"] or 0)
        values |= _pictures(run, epoch)
        if (classes := run.routing_files.table(View.CLASSES, epoch)).exists():
            values[View.CLASSES.key] = Table(classes)
        if (settled := run.routing_files.saturation).exists():
            values[SATURATION_TABLE] = Table(settled)
    for images, probe, _ in run.probe_results():
        values |= results_of(run, images, probe)
    return values


def _numbers(row: dict[str, float | None]) -> dict[str, Value]:
    return {key: value for key, value in row.items() if value is not None}


def _pictures(run: Run, epoch: int) -> dict[str, Value]:
    """What the callbacks drew for an epoch. No tables: each asks the server at once, and training waits for no one."""
    pictures = run.routing_files.pictures(epoch)
    return {view.key: Picture(file, f"epoch {epoch}") for view, file in pictures.items()}


def results_of(folder: ProbedFolder, images: str, probe: str) -> dict[str, Value]:
    """What a summary holds of a probe: numbers, pictures (.png) and tables (.csv), under `probe/<images>/<probe>/`."""
    return values_of(probe_key(images, probe), folder.probe(images, probe))


def values_of(prefix: str, folder: Path) -> dict[str, Value]:
    """The numbers, pictures (.png) and tables (.csv) in a folder of results, under keys with a prefix."""
    result = read_json(folder / RESULT)
    values: dict[str, Value] = {f"{prefix}/{key}": v for key, v in result.items() if isinstance(v, int | float)}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            values[f"{prefix}/{path.stem}"] = Picture(path)
        elif path.suffix == ".csv":
            values[f"{prefix}/{path.stem}_table"] = Table(path)
    return values


def upload_results(session: TrackedRun, run: Run, images: str, probe: str) -> None:
    """Send a probe's files as an artifact that is made from the run's model."""
    upload_folder(session, f"probe-{run.id}-{images}-{probe}", run.probe(images, probe), last_models([run]))
