"""A run's own files, sent on to the tracker: one step an epoch, with the epoch's metrics, pictures and tables.

The files are the truth. Whatever the tracker lacks when a run begins or goes on (the process was killed, the server was
away, a W&B sweep gave the run another name) is sent first, so that the tracker holds every epoch once and in order.
"""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L

from sweeps.artifacts import PROBE, log_model, log_results
from sweeps.runs import Run
from sweeps.tracker import Record, mode, tracked

PICTURES = ("heatmap", "coactivation")
TABLES = ("classes",)


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
        record.sent = epoch
    record.save(run)


def adopt(run: Run, group: str | None) -> None:
    """Show a finished run under the name that a W&B sweep has just given it: the sweep then counts it as done."""
    given = os.environ.get("WANDB_RUN_ID")
    if not os.environ.get("WANDB_SWEEP_ID") or mode()[0] != "online" or given in (None, Record.of(run).id):
        return
    with tracked(run, group=group) as session:
        publish(run, session)


def _media(run: Run, epoch: int) -> dict[str, Any]:
    """What the callbacks drew for an epoch."""
    import wandb

    media: dict[str, Any] = {}
    for kind in PICTURES:
        if (file := run.routing / f"{kind}_{epoch:04d}.png").exists():
            media[f"routing/{kind}"] = wandb.Image(str(file), caption=f"epoch {epoch}")
    for kind in TABLES:
        if (file := run.routing / f"{kind}_{epoch:04d}.csv").exists():
            media[f"routing/{kind}"] = table(file)
    return media


def publish(run: Run, session: Any) -> None:
    """Send all that a trained run has and the tracker lacks: its epochs, its best values, its models."""
    send(run, session)
    for which in ("best", "untrained"):  # the last values W&B keeps itself
        values = {f"{which}/{key}": value for key, value in run.summary[which].items() if value is not None}
        session.summary.update(values)
    log_model(session, run)


def publish_results(
    run: Run, session: Any, prefix: str, folder: Path, numbers: Mapping[str, float | int | None]
) -> None:
    """Put a probe's numbers, tables (.csv) and pictures (.png) into the run's summary, in place of older ones.

    The summary, not the history: a probe run twice leaves one set of results and every epoch as it was.

    Args:
        run: the run that was probed.
        session: the tracker's run.
        prefix: `probe/<images>/<probe>`.
        folder: the probe's files; they travel as the artifact `probe-<id>-<images>-<probe>` too.
        numbers: the headline.
    """
    import wandb

    if mode()[0] == "disabled":
        return
    values: dict[str, Any] = {f"{prefix}/{key}": value for key, value in numbers.items() if value is not None}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            values[f"{prefix}/{path.stem}"] = wandb.Image(str(path))
        elif path.suffix == ".csv":
            values[f"{prefix}/{path.stem}_table"] = table(path)
    session.summary.update(values)
    log_results(session, run, PROBE, f"probe-{run.id}-{'-'.join(prefix.split('/')[1:])}", folder)


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
