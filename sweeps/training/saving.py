"""When and how a run saves its state, and the wish to stop it."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from moe.distributed import all_sum, world
from moe.files import replacing
from moe.lightning_module import epochs_done
from sweeps.runs.endings import InterruptedRunError
from sweeps.runs.run import Run
from sweeps.runs.signals import handling, take
from sweeps.training.checkpoints import confirm, prune
from sweeps.training.history import HistoryLogger

_EVERY = 10  # steps between looks at the other processes' wishes


class StopRequest:
    """Whether this process was told to stop, by SIGTERM or Ctrl-C. A second Ctrl-C stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Note signals instead of dying of them."""
        with handling(self._note):
            yield self

    def install(self) -> None:
        """Take the signals (back): Lightning's own handlers would raise between a step and its checkpoint."""
        take(self._note)

    def obey(self) -> None:
        """Raise InterruptedRunError if told to stop."""
        if self.requested:
            raise InterruptedRunError("told to stop")

    def _note(self, number: int) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


class DurableCheckpointIO(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints here: complete and on the disk, or not at all; data, never code.

    Lightning's own writes through a copy in memory and one in the system's temporary folder.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint under a hidden name first."""
        with replacing(Path(path)) as partial:
            torch.save(checkpoint, partial)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain values, whatever the caller asks for."""
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return content


class Saving(Checkpoint):
    """Saves after every epoch, in mid-epoch every so many minutes, and when the run is told to stop, which ends it.

    A checkpoint in mid-epoch is the state after a whole step. One after an epoch is written as Lightning's are, before
    the epoch's metrics are logged, and counts once they are: its record is written with them. Lightning's
    `ModelCheckpoint` has no such moment, and which epochs it keeps is part of its state; here it follows from the
    history, so that a run that goes on from any checkpoint keeps the same ones.

    Args:
        run: owner of the files.
        stop: the wish to stop.
        minutes: between checkpoints in mid-epoch; 0 for none but the one at a stop.
        history: what was logged; None in all processes of a run but the first, which write no files.
    """

    def __init__(self, run: Run, stop: StopRequest, minutes: float, history: HistoryLogger | None) -> None:
        self.run, self.stop, self.seconds, self.history = run, stop, 60 * minutes, history
        self._saved = time.monotonic()
        self._unconfirmed: tuple[Path, int] | None = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back: Lightning's own handlers would raise between a step and its checkpoint."""
        self.stop.install()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back: Lightning's own handlers would raise between a step and its checkpoint."""
        self.stop.install()
        self._saved = time.monotonic()

    def on_validation_batch_end(self, trainer: L.Trainer, *_args: Any, **_kwargs: Any) -> None:
        """Nothing is lost while the untrained model is validated: end at once."""
        if trainer.state.fn == "validate" and world()[1] == 1:
            self.stop.obey()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The epoch before is logged by now."""
        self._confirm()
        if self._agreed(pl_module.device)[0]:
            raise InterruptedRunError("told to stop")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time, end if asked; after an epoch's last step both wait for the epoch's end."""
        last = batch_idx + 1 == trainer.num_training_batches
        if last or (world()[1] > 1 and batch_idx % _EVERY):
            return
        stop, due = self._agreed(pl_module.device)
        if stop or due:
            self._save(trainer, self.run.step_checkpoint(trainer.global_step))
            self._confirm()
        if stop:
            raise InterruptedRunError("told to stop")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; Lightning calls this after all other callbacks' and the module's own."""
        self._save(trainer, self.run.epoch_checkpoint(epochs_done(trainer)))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last epoch is logged by now."""
        self._confirm()

    def _agreed(self, device: torch.device) -> tuple[bool, bool]:
        """Whether any process is to stop, and whether a checkpoint is due."""
        stop, due = self.stop.requested, bool(self.seconds) and time.monotonic() - self._saved > self.seconds
        if world()[1] == 1:
            return stop, due
        wishes = all_sum(torch.tensor([stop, due], dtype=torch.int32, device=device)).tolist()
        return bool(wishes[0]), bool(wishes[1])

    def _save(self, trainer: L.Trainer, file: Path) -> None:
        trainer.save_checkpoint(file)
        self._saved, self._unconfirmed = time.monotonic(), (file, trainer.global_step)

    def _confirm(self) -> None:
        """Let what was saved count, and remove what it makes superfluous."""
        if self._unconfirmed is None:
            return
        (file, steps), self._unconfirmed = self._unconfirmed, None
        if self.history is not None:
            confirm(self.run, file, steps, self.history.rows)
            prune(self.run, self.history.rows, besides=file)
