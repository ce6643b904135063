"""A run's own files, sent on to the tracker: one step an epoch, with the epoch's metrics and pictures.

The files are the truth. Whatever the tracker lacks when a run begins or goes on (the process was killed, the server was
away, a W&B sweep gave the run another name) is sent first, so that the tracker holds every epoch once and in order.
"""

from pathlib import Path

import lightning as L

from callbacks.files import View
from sweeps.runs.files import read_json
from sweeps.runs.folders import RESULT, AnalysisFolder, ProbedFolder
from sweeps.runs.numbers import numbers, probe_key
from sweeps.runs.run import Run
from sweeps.tracking.artifacts import parcels, upload
from sweeps.tracking.media import Picture, Table, Value
from sweeps.tracking.record import Record
from sweeps.tracking.session import TrackedRun


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


def publish(place: Run | AnalysisFolder, session: TrackedRun, *, wait: bool = False) -> None:
    """Send all that a run or an analysis has and the tracker lacks: epochs, summary, models, results of probes.

    Args:
        place: whose files.
        session: the tracker's run.
        wait: until the server has the models, because results that are made from them follow.
    """
    if session.mode == "disabled":
        return
    if isinstance(place, Run):
        send(place, session)
    session.summarise(summary(place))
    upload(session, parcels(place), wait=wait)


def summary(place: Run | AnalysisFolder) -> dict[str, Value]:
    """The whole summary of a run: last, best and untrained values, what the last epoch showed, results of probes.

    That of an analysis: the results of its probes.
    """
    return _of_run(place) if isinstance(place, Run) else _of_analysis(place)


def _of_analysis(place: AnalysisFolder) -> dict[str, Value]:
    found = [results_of(place.sweep, place.images, probe) for probe, _ in place.results()]
    return {key: value for values in found for key, value in values.items()}


def _of_run(run: Run) -> dict[str, Value]:
    values: dict[str, Value] = {**numbers(run)}
    if rows := run.history():
        epoch = int(rows[-1]["epoch"] or 0)
        values |= _pictures(run, epoch)
        if (classes := run.routing_files.table(View.CLASSES, epoch)).exists():
            values[View.CLASSES.key] = Table(classes)
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
    return _values_of(probe_key(images, probe), folder.probe(images, probe))


def _values_of(prefix: str, folder: Path) -> dict[str, Value]:
    """The numbers, pictures (.png) and tables (.csv) in a folder of results, under keys with a prefix."""
    result = read_json(folder / RESULT)
    values: dict[str, Value] = {f"{prefix}/{key}": v for key, v in result.items() if isinstance(v, int | float)}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            values[f"{prefix}/{path.stem}"] = Picture(path)
        elif path.suffix == ".csv":
            values[f"{prefix}/{path.stem}_table"] = Table(path)
    return values
