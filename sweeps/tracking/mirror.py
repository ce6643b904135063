"""A run's own files, sent on to the tracker: one step an epoch, with the epoch's metrics, pictures and tables.

The files are the truth. Whatever the tracker lacks when a run begins or goes on (the process was killed, the server was
away, a W&B sweep gave the run another name) is sent first, so that the tracker holds every epoch once and in order.
"""

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.files import View
from sweeps.runs.files import read_json
from sweeps.runs.folders import RESULT, SweepFolder
from sweeps.runs.run import Run
from sweeps.tracking import tracker
from sweeps.tracking.artifacts import ACTIVATIONS, log_model, log_results, prune
from sweeps.tracking.tracker import Record


class Mirror(L.Callback):
    """Sends each epoch once its files are complete.

    Args:
        run: whose files.
        session: the tracker's run.
    """

    def __init__(self, run: Run, session: Any) -> None:
        self.run, self.session = run, session

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Here the files of the epochs before are complete."""
        if trainer.is_global_zero:
            send(self.run, self.session, until=trainer.current_epoch)


def send(run: Run, session: Any, until: int | None = None) -> None:
    """Send the epochs that the tracker lacks.

    Args:
        run: whose files.
        session: the tracker's run.
        until: last epoch to send; None: all there are.
    """
    record = Record.of(run)
    for row in run.history():
        epoch = int(row["epoch"] or 0)
        if epoch <= record.sent or (until is not None and epoch > until):
            continue
        numbers = {key: value for key, value in row.items() if value is not None}
        session.log(numbers | _media(run, epoch), step=epoch, commit=True)
        record.passed(run, epoch)


def adopt(run: Run, group: str | None) -> None:
    """Show a finished run under the name that a W&B sweep has just given it: the sweep then counts it as done."""
    given = os.environ.get("WANDB_RUN_ID")
    if not os.environ.get("WANDB_SWEEP_ID") or tracker.mode()[0] != "online" or given in (None, Record.of(run).id):
        return
    show(run, group)


def show(run: Run, group: str | None) -> None:
    """Bring all of a finished run into its W&B run."""
    with tracker.tracked(run, group=group) as session:
        publish(run, session)


def _media(run: Run, epoch: int) -> dict[str, Any]:
    """What the callbacks drew for an epoch. No tables: each asks the server at once, and training waits for no one."""
    import wandb

    pictures = run.routing_files.pictures(epoch)
    return {view.key: wandb.Image(str(file), caption=f"epoch {epoch}") for view, file in pictures.items()}


def publish(run: Run, session: Any, *, wait: bool = False) -> None:
    """Send all that a trained run has and the tracker lacks: its epochs, its summary, its models.

    Args:
        run: the run.
        session: the tracker's run.
        wait: until the server has the models, because results that are made from them follow.
    """
    send(run, session)
    with _or_later(run):
        session.summary.update(_summary(run))
        for model in log_model(session, run):
            if not session.offline and (wait or run.probe_results()):
                model.wait(timeout=tracker.UPLOAD)
        for images, probe, _ in run.probe_results():
            _log_results(run, session, images, probe)


@contextlib.contextmanager
def reopened(run: Run) -> Iterator[Any]:
    """The tracker's run of a finished run, to add results; its history and system metrics stay as they are.

    An offline piece begins with an empty summary and replaces, once uploaded, what the server had, so all that belongs
    there is written into it again.
    """
    with tracker.reopened(run) as session:
        if not session.disabled and not session.resumed:
            if session.offline:
                with _or_later(run):
                    session.summary.update(_summary(run))
            else:  # the server has never seen this run
                publish(run, session, wait=True)
        yield session
        online = not session.disabled and not session.offline
    if online:
        with _or_later(run):
            prune(Record.of(run))


def _summary(run: Run) -> dict[str, Any]:
    """The whole summary of a run: last, best and untrained values, what the last epoch showed, results of probes."""
    values: dict[str, Any] = {}
    if rows := run.history():
        epoch = int(rows[-1]["epoch"] or 0)
        values = {key: value for key, value in rows[-1].items() if value is not None} | _media(run, epoch)
        if (classes := run.routing_files.table(View.CLASSES, epoch)).exists():
            values[View.CLASSES.key] = table(classes)
    for which in ("best", "untrained"):
        found = run.summary.get(which, {})
        values |= {f"{which}/{key}": value for key, value in found.items() if value is not None}
    for images, probe, numbers in run.probe_results():
        values |= _results(f"probe/{images}/{probe}", run.probe(images, probe), numbers)
    return values


def publish_results(run: Run, session: Any, images: str, probe: str) -> None:
    """Put a probe's results into the run's summary, in place of older ones; its files travel as an artifact too.

    The summary, not the history: a probe run twice leaves one set of results and every epoch as it was.
    """
    if session.disabled:
        return
    numbers = read_json(run.probe_result(images, probe))
    with _or_later(run):
        session.summary.update(_results(f"probe/{images}/{probe}", run.probe(images, probe), numbers))
        _log_results(run, session, images, probe)


def publish_activations(run: Run, session: Any, images: str) -> None:
    """Log the activations that probes read, as the artifact `activations-<id>-<images>`; the same ones once."""
    if not session.disabled:
        with _or_later(run):
            name = f"activations-{run.id}-{images}"
            log_results(session, name, run.activations(images), [f"model-{run.id}:last"], kind=ACTIVATIONS)


def _log_results(run: Run, session: Any, images: str, probe: str) -> None:
    log_results(session, f"probe-{run.id}-{images}-{probe}", run.probe(images, probe), [f"model-{run.id}:last"])


@contextlib.contextmanager
def _or_later(run: Run) -> Iterator[None]:
    """What W&B asks its server at once may fail with it; that is no reason to fail what was computed."""
    import wandb

    try:
        yield
    except (wandb.errors.Error, ValueError) as error:
        tracker.give_up(run, f"artifacts not uploaded ({tracker.first_line(error)})")


def _results(prefix: str, folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's numbers, pictures (.png) and tables (.csv)."""
    import wandb

    values: dict[str, Any] = {f"{prefix}/{key}": v for key, v in result.items() if isinstance(v, int | float)}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            values[f"{prefix}/{path.stem}"] = wandb.Image(str(path))
        elif path.suffix == ".csv":
            values[f"{prefix}/{path.stem}_table"] = table(path)
    return values


def publish_analysis(
    folder: SweepFolder, sweep: str, images: str, runs: Sequence[Run], results: Mapping[str, Path]
) -> None:
    """Put what compares all runs of a sweep into a run of its own, linked to the models that it compares.

    Args:
        folder: of the sweep.
        sweep: its name.
        images: name of the images.
        runs: those compared.
        results: folder of each probe's results.
    """
    place = Run(folder.analysis(images).path)
    with tracker.analysis(place, sweep, images) as session, _or_later(place):
        if session.disabled:
            return
        for probe, found in results.items():
            session.summary.update(_results(f"probe/{images}/{probe}", found, read_json(found / RESULT)))
            inputs = [f"model-{run.id}:last" for run in runs]
            log_results(session, f"{session.id}-{probe}", found, inputs)


def table(path: Path) -> Any:
    """A CSV file as a W&B table."""
    import wandb

    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return wandb.Table(columns=list[str | int](header), data=_typed(rows))


def _typed(rows: list[list[str]]) -> list[Iterable[Any]]:
    """CSV cells with a column's numbers as numbers, if it holds nothing else: W&B refuses a mixture."""
    columns = [[_number(cell) for cell in column] for column in zip(*rows, strict=True)]
    texts = [any(isinstance(cell, str) for cell in column) for column in columns]
    return [
        [cell if text else number for cell, text, number in zip(row, texts, numbers, strict=True)]
        for row, numbers in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def _number(cell: str) -> float | str | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return cell
