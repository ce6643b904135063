"""Training a model: views on the device, loss, optimiser, and the routing record that callbacks read.

Axes: B images, C = 3 channels, S image side, D embedding, E experts.
"""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from moe.config import RunConfig
from moe.data.augment import as_float, normalise, two_views
from moe.data.loading import Batch
from moe.losses import importance_cv2
from moe.model import build_model
from moe.objectives import OBJECTIVES
from moe.rng import key
from moe.routing import RoutingRecord

_VALIDATION_EPOCH = 2**31  # a stream of its own: validation views are the same in every epoch


def epochs_done(trainer: L.Trainer) -> int:
    """Epochs of training behind the metrics being logged now: 0 for a validation before training."""
    return trainer.current_epoch + 1 if trainer.state.fn == "fit" else 0


class MoEModule(L.LightningModule):
    """One run.

    Every step returns ``{"loss": ..., "routing": RoutingRecord}``.

    Logged, once an epoch: ``train/loss`` and ``val/loss`` (objective + weighted importance loss, nats),
    ``train/objective`` and ``val/objective`` (NT-Xent, nats), ``train/importance_cv2`` and ``val/importance_cv2``
    (Equation 4 without its weight, mean over batches), ``lr`` (the epoch's learning rate), and ``epoch``, the number
    of epochs done.

    Args:
        config: the run.
        mean, sd: channel statistics that normalise the images, scale 0..1.
    """

    def __init__(self, config: RunConfig, mean: tuple[float, ...], sd: tuple[float, ...]) -> None:
        super().__init__()
        self.config = config
        self.mean, self.sd = mean, sd
        # initial weights are a function of the seed alone, whatever ran in this process before
        with torch.random.fork_rng():
            torch.manual_seed(key(config.seed, 3) % 2**63)
            # channels last: the layout that convolutions are fastest in, on CPUs and tensor cores alike
            self.model = build_model(config.model, config.gate).to(memory_format=torch.channels_last)
            self.objective = OBJECTIVES[config.loss.objective](self.model.embedding, config.loss)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Seed the gate's noise from the step, so that there is no generator state to save for a resume."""
        torch.manual_seed(key(self.config.seed, self.global_step, 4) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """Loss of one batch."""
        loss, record = self._two_view_step(batch, self.current_epoch, "train")
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.log("lr", rate, on_step=False, on_epoch=True, batch_size=len(batch.images))
        return {"loss": loss, "routing": record}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """Loss on two views, and the routing of the images as they are."""
        loss, record = self._two_view_step(batch, _VALIDATION_EPOCH, "val")
        clean = self.model.route(self._normalised(as_float(batch.images)))
        record = RoutingRecord(record.view_a, record.view_b, clean, batch.labels)
        return {"loss": loss, "routing": record}

    def _two_view_step(self, batch: Batch, epoch: int, stage: str) -> tuple[Tensor, RoutingRecord]:
        views = two_views(self.config.augment, batch.images, batch.places, seed=self.config.seed, epoch=epoch)
        z, routing = self.model.embed(self._normalised(torch.cat(views)))
        z_a, z_b = z.chunk(2)
        objective = self.objective(z_a, z_b, batch.labels)
        importance = importance_cv2(routing.gates())
        loss = objective + self.config.loss.importance_weight * importance
        self.log_dict(
            {f"{stage}/loss": loss, f"{stage}/objective": objective, f"{stage}/importance_cv2": importance},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch.images),
        )
        count = len(batch.images)
        return loss, RoutingRecord(routing.rows(0, count), routing.rows(count, 2 * count))

    def _normalised(self, x_BCSS: Tensor) -> Tensor:
        return normalise(x_BCSS, self.mean, self.sd).contiguous(memory_format=torch.channels_last)

    def on_validation_epoch_end(self) -> None:
        """Give the epoch's metrics their place: epochs done, 0 for the untrained model."""
        self.log("epoch", float(epochs_done(self.trainer)))

    def on_train_epoch_end(self) -> None:
        """The same place for the training metrics."""
        self.log("epoch", float(epochs_done(self.trainer)))

    def configure_optimizers(self) -> Any:
        """Adam with cosine annealing, one step an epoch (Appendix A.1)."""
        train = self.config.train
        fused = self.device.type == "cuda"
        optimizer = Adam(self.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=fused)
        return [optimizer], [CosineAnnealingLR(optimizer, T_max=train.epochs, eta_min=train.min_lr)]
