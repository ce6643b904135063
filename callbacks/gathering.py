"""The base of the callbacks that watch routing: it gathers an epoch's records and hands them over in one piece."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from callbacks import records
from moe.distributed import world
from moe.lightning_module import epochs_done
from moe.routing import RoutingRecord

Stage = Literal["train", "val"]


class RoutingMonitor(L.Callback):
    """Gathers the routing of an epoch and hands it over in one piece. Subclasses implement `observe`.

    A step's record is kept as it is, without copy or synchronisation, on its device until the epoch ends: a step must
    not write into the tensors of an earlier one. Training routes in training mode, with the gate's noise if it has
    any; validation does without.

    Several processes: each gathers its own images, and all observe the images of all of them. (A sampler that repeats
    images to give every process as many makes them count twice.)

    Checkpoints written within an epoch carry the training records so far, so that a resumed run observes what an
    undisturbed one does. A callback that writes such checkpoints must stand after this one, as Lightning's do.

    Attributes:
        stages: what to watch, "train", "val" or both.
    """

    stages: ClassVar[tuple[Stage, ...]] = ("val",)

    def __init__(self) -> None:
        self._records: dict[Stage, list[RoutingRecord]] = {"train": [], "val": []}
        self._device = torch.device("cpu")

    def observe(self, record: RoutingRecord, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compute and log; `record` covers all images of the epoch, in every process."""
        raise NotImplementedError

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the device on which records of all steps are joined."""
        self._device = trainer.strategy.root_device

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh. Not called when a run resumes within an epoch."""
        self._records["train"] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the step's record."""
        self._keep("train", outputs)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Observe the training epoch."""
        self._hand_over("train", trainer, pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh."""
        self._records["val"] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the step's record."""
        self._keep("val", outputs)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Observe the validation epoch."""
        if not trainer.sanity_checking:
            self._hand_over("val", trainer, pl_module)

    def _keep(self, stage: Stage, outputs: Tensor | Mapping[str, Any] | None) -> None:
        if stage in self.stages and isinstance(outputs, Mapping) and isinstance(outputs.get("routing"), RoutingRecord):
            self._records[stage].append(records.detached(outputs["routing"]))

    def _hand_over(self, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        if stage not in self.stages:
            return
        gathered, self._records[stage] = self._records[stage], []
        record = records.share(records.join(gathered, self._device), self._device)
        if record is not None:
            self.observe(record, stage, trainer, module)

    def state_dict(self) -> dict[str, Any]:
        """The training records of the running epoch, of all processes; each process has to call it, as Lightning does.

        ``{"train": {name: tensor, ...} or None}``, tensors on the CPU.
        """
        if "train" not in self.stages:
            return {}
        record = records.share(records.join(self._records["train"], self._device), self._device)
        if record is None:
            return {"train": None}
        return {"train": {name: tensor.cpu() for name, tensor in records.to_tensors(record).items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the training records; the first process holds them for all."""
        tensors = state_dict.get("train") if world()[0] == 0 else None
        self._records["train"] = [records.from_tensors(tensors)] if tensors else []


def log(values: Mapping[str, float], trainer: L.Trainer, module: L.LightningModule) -> None:
    """Log scalars that are the same in every process."""
    # Lightning warns of epoch values that are not reduced, though the mean of equal numbers changes nothing
    module.log_dict(dict(values), sync_dist=trainer.world_size > 1)


def show_picture(key: str, picture: Path, trainer: L.Trainer) -> None:
    """Give a picture to the loggers that take pictures."""
    for logger in trainer.loggers:
        log_image = getattr(logger, "log_image", None)
        if log_image is not None:
            log_image(key=key, images=[str(picture)], caption=[f"epoch {epochs_done(trainer)}"])


def show_table(key: str, columns: Sequence[str], rows: Iterable[Iterable[Any]], trainer: L.Trainer) -> None:
    """Give a table to the loggers that take tables."""
    for logger in trainer.loggers:
        log_table = getattr(logger, "log_table", None)
        if log_table is not None:
            log_table(key=key, columns=list(columns), data=[list(row) for row in rows])
