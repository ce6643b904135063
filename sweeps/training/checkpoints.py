"""Checkpoints that a run can go on from, wherever it was stopped, and the wish to stop."""

import contextlib
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.keys import Keys
from moe.distributed import all_sum, world
from sweeps.runs.exit_codes import InterruptedRunError
from sweeps.runs.folders import EPOCH_CHECKPOINT
from sweeps.runs.run import Run

_EVERY = 10  # steps between looks at the other processes' wishes
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether this process was told to stop, by SIGTERM or Ctrl-C. A second Ctrl-C stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Note signals instead of dying of them."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals (back): Lightning's own handlers would raise between a step and its checkpoint."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._note)

    def obey(self) -> None:
        """Raise InterruptedRunError if told to stop."""
        if self.requested:
            raise InterruptedRunError("told to stop")

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


class StepCheckpoint(L.Callback):
    """Saves in the middle of an epoch: every so many minutes, and when the run is told to stop, which then ends it.

    The state is that after a whole step. After an epoch's last step it waits for the checkpoint of the epoch's end.

    Args:
        run: owner of the file.
        stop: the wish to stop.
        minutes: between checkpoints; 0 for none but the one at a stop.
    """

    def __init__(self, run: Run, stop: StopRequest, minutes: float) -> None:
        self.run, self.stop, self.seconds = run, stop, 60 * minutes
        self._saved = time.monotonic()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Listen to signals."""
        self.stop.install()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Listen to signals."""
        self.stop.install()
        self._saved = time.monotonic()

    def on_validation_batch_end(self, trainer: L.Trainer, *_args: Any, **_kwargs: Any) -> None:
        """Nothing is lost while the untrained model is validated: end at once."""
        if trainer.state.fn == "validate" and world()[1] == 1:
            self.stop.obey()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Here the checkpoint of the epoch before is written."""
        stop, _ = self._agreed(pl_module.device)
        if trainer.is_global_zero and trainer.current_epoch > 0:
            self.run.step_checkpoint.unlink(missing_ok=True)
        if stop:
            raise InterruptedRunError("told to stop")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Save if it is time, end if asked."""
        last = batch_idx + 1 == trainer.num_training_batches
        if last or (world()[1] > 1 and batch_idx % _EVERY):
            return
        stop, due = self._agreed(pl_module.device)
        if stop or due:
            self._save(trainer)
        if stop:
            raise InterruptedRunError("told to stop")

    def _agreed(self, device: torch.device) -> tuple[bool, bool]:
        """Whether any process is to stop, and whether a checkpoint is due."""
        stop, due = self.stop.requested, bool(self.seconds) and time.monotonic() - self._saved > self.seconds
        if world()[1] == 1:
            return stop, due
        wishes = all_sum(torch.tensor([stop, due], dtype=torch.int32, device=device)).tolist()
        return bool(wishes[0]), bool(wishes[1])

    def _save(self, trainer: L.Trainer) -> None:
        partial = self.run.step_checkpoint.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.run.step_checkpoint)
        self._saved = time.monotonic()


def best_and_last(run: Run) -> ModelCheckpoint:
    """The three best epochs by validation loss, and the last (Appendix A.1)."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename=EPOCH_CHECKPOINT,
        auto_insert_metric_name=False,
        monitor=Keys.VAL_LOSS,
        save_top_k=3,
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


class Position(NamedTuple):
    """Where a run goes on: the checkpoint's file and the steps behind it."""

    file: Path
    steps: int


def newest(run: Run, report: Callable[[str], None]) -> Position | None:
    """The newest checkpoint that can be read; a process killed while writing one leaves it cut off."""
    for file in run.checkpoint_files():
        try:
            steps = torch.load(file, map_location="cpu", weights_only=False)["global_step"]
        except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
            report(f"{file.name} cannot be read ({type(error).__name__}); trying the one before")
            continue
        return Position(file, steps)
    return None
