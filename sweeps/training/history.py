"""The run's own record of its metrics (a Lightning logger that appends JSON lines), and callbacks that tell of it."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from callbacks.keys import Keys
from moe.files import replacing
from moe.lightning_module import epochs_done
from sweeps.runs.files import write_json
from sweeps.runs.run import Row, Run
from sweeps.tracking.mirror import send
from sweeps.tracking.session import TrackedRun


class HistoryLogger(Logger):
    """Appends every logged dictionary with its epoch and step to `history.jsonl`.

    Attributes:
        path: the file.
        rows: everything in it: what a run had when it went on, and what was logged since.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[Row] = []

    def restore(self, rows: Sequence[Row]) -> None:
        """Begin with these rows, whatever the file holds: a run that goes on has them from its checkpoint."""
        self.rows = list(rows)
        self.save_whole()

    def save_whole(self) -> None:
        """Write all rows at once and wait for the disk; appended ones are with the operating system only."""
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    @property
    def name(self) -> str:
        """The logger's name, which Lightning asks for."""
        return "history"

    @property
    def version(self) -> str:
        """No version: a run has one history. Lightning asks for it."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has its own file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line. NaN and infinity are written as null, which is JSON."""
        row: Row = {"epoch": float(metrics["epoch"]), "step": float(step or 0)}
        row |= {key: float(value) if math.isfinite(value) else None for key, value in metrics.items()}
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class Progress(L.Callback):
    """Keeps `progress.json` fresh (twice a second at most) and reports each finished epoch in one line."""

    _SECONDS = 0.5

    def __init__(self, run: Run, report: Callable[[str], None]) -> None:
        self.run = run
        self.report = report
        self._written = 0.0
        self._epoch_started = 0.0
        self._seconds_before = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of an epoch that another process began."""
        self._epoch_started = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock. Not called when a run resumes within an epoch."""
        self._epoch_started, self._seconds_before = time.monotonic(), 0.0

    def _seconds(self) -> float:
        """How long the epoch has been trained, by all processes that did."""
        return self._seconds_before + time.monotonic() - self._epoch_started

    def state_dict(self) -> dict[str, Any]:
        """With the running epoch's seconds."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """With the running epoch's seconds."""
        self._seconds_before = float(state_dict.get("seconds", 0.0))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write where training is."""
        if time.monotonic() - self._written < self._SECONDS or not trainer.is_global_zero:
            return
        self._written = time.monotonic()
        # short of a whole number until the epoch's validation is through
        self._write(trainer, trainer.current_epoch + batch_idx / trainer.num_training_batches, outputs)

    def _write(self, trainer: L.Trainer, epoch: float, outputs: Any = None) -> None:
        position = {"epoch": epoch, "epochs": trainer.max_epochs, "at": time.time()}
        if outputs is not None:
            position["loss"] = float(outputs["loss"])
        metrics = trainer.callback_metrics
        for short, key in _SHOWN.items():
            if key in metrics:
                position[short] = float(metrics[key])
        write_json(self.run.progress_file, position, durable=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One line for the epoch."""
        metrics = trainer.callback_metrics  # on several devices all have to ask: the first look computes the means
        if not trainer.is_global_zero:
            return
        done = epochs_done(trainer)
        self._write(trainer, done)
        self.report(f"epoch {done}/{trainer.max_epochs}  {describe(metrics)}  {self._seconds():.1f} s")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The untrained model is worth a line too."""
        metrics = trainer.callback_metrics
        if trainer.is_global_zero and trainer.state.fn == "validate":
            self.report(f"untrained  {describe(metrics)}")


_SHOWN = {
    "train_loss": Keys.TRAIN_LOSS,
    "val_loss": Keys.VAL_LOSS,
    "agreement": Keys.AGREEMENT,
    "chance": Keys.CHANCE_OBSERVED,
    "cv2": Keys.CV2,
    "dead": Keys.DEAD,
}


def describe(metrics: Mapping[str, Any]) -> str:
    """The numbers to watch, in one line."""
    parts = []
    for label, key in (("loss", Keys.TRAIN_LOSS), ("val", Keys.VAL_LOSS)):
        if key in metrics:
            parts.append(f"{label} {float(metrics[key]):.3f}")
    if Keys.AGREEMENT in metrics:
        chance = float(metrics[Keys.CHANCE_OBSERVED])
        parts.append(f"agreement {float(metrics[Keys.AGREEMENT]):.2f} (chance {chance:.2f})")
    if Keys.CV2 in metrics:
        parts.append(f"CV2 {float(metrics[Keys.CV2]):.2f}")
        dead = int(metrics[Keys.DEAD])
        if dead:
            parts.append(f"{dead} dead")
    return "  ".join(parts)


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
