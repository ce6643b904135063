"""Training a model: views on the device, loss, optimiser, and the routing record that callbacks read.

Axes: B images, C = 3 channels, S image side, D embedding, E experts.
"""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from moe.balancing.weighted import weighted_losses
from moe.batchnorm import normalise_across_processes
from moe.config import RunConfig
from moe.data.augment import as_float, normalise, two_views
from moe.data.draw import Draws
from moe.data.loading import Batch
from moe.distributed import all_sum, world
from moe.embedded import EmbeddingRecord
from moe.errors import UserError
from moe.experts import leave_idle_alone
from moe.gates.told import Known, of_images, of_views
from moe.hardware import adam_options, has_scaler
from moe.keys import Keys, train, val
from moe.model import build_model, drawn_from
from moe.rng import VALIDATION, Stream, key, to_device
from moe.routing import RoutingRecord


def epochs_done(trainer: L.Trainer) -> int:
    """Epochs of training behind the metrics being logged now: 0 for a validation before training."""
    return trainer.current_epoch + 1 if trainer.state.fn == "fit" else 0


class MoEModule(L.LightningModule):
    """One run.

    Every step returns ``{"loss": ..., "routing": RoutingRecord}``, one in validation an ``"embedding"`` as well.

    Logged, once an epoch: ``train/loss`` and ``val/loss`` (objective + weighted importance loss, nats),
    ``train/objective`` and ``val/objective`` (the objective alone, nats), ``train/importance_cv2`` and
    ``val/importance_cv2`` (Equation 4 without its weight) and every other balancing loss that has a weight, without
    it, the objective's own metrics (``train/accuracy`` and
    ``val/accuracy``, fractions, of the supervised one), all means over the epoch's batches; ``lr`` (the epoch's
    learning rate), and ``epoch``, the number of epochs done.

    A checkpoint holds the values of the epoch's steps so far, so that means of an epoch that was broken off and
    resumed are those of an undisturbed one.

    Args:
        config: the run.
        mean, sd: channel statistics that normalise the images, scale 0..1.
        classes: number of classes, for objectives that need labels.
        watched: (N,) bool, the validation images that every expert is shown; None: all.
    """

    def __init__(
        self,
        config: RunConfig,
        mean: tuple[float, ...],
        sd: tuple[float, ...],
        classes: int = 0,
        watched: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.mean, self.sd = mean, sd
        with drawn_from(config.seed):
            # channels last: the layout that convolutions are fastest in, on CPUs and tensor cores alike
            self.model = build_model(config.model, config.gate).to(memory_format=torch.channels_last)
            self.objective = config.loss.load()(self.model.embedding, classes, config.loss)
        self.model.experts_at_once = {"auto": None, "plain": False, "batched": True}[config.machine.experts]
        self._balancing = weighted_losses(config.loss)
        normalise_across_processes(self, config.train.sync_batch_norm)
        # tables of training and of validation views
        self._draws, self._validation_draws = (Draws(config.augment, config.model.experts, config.seed) for _ in "ab")
        self._names: list[str] = []
        self._steps: list[Tensor] = []
        self._norms: list[Tensor] = []  # of the gradients, where they are limited here
        self._views_E: Sequence[int] | None = None
        self._watched = watched

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Images and labels go to the device; places stay, since views are drawn from them on the CPU."""
        return Batch(to_device(batch.images, device), to_device(batch.labels, device), batch.places)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed torch from the step: layers that draw their own numbers leave no state to save for a resume."""
        torch.manual_seed(key(self.config.seed, self.global_step, Stream.STEP, world()[0]) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Loss of one batch."""
        values, record, _ = self._two_view_step(batch, self.current_epoch)
        self._views_E = record.views_E
        if self._ends_epoch(batch_idx):
            rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
            self.log(Keys.LR, rate, on_step=False, on_epoch=True, batch_size=1, sync_dist=self._several)
        self._names = list(values)
        self._steps.append(torch.stack([value.detach().float() for value in values.values()]))
        return {"loss": values["loss"], "routing": record}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Loss on two views, and routing and embedding of the images as they are."""
        values, record, z_VD = self._two_view_step(batch, VALIDATION)
        self.log_dict(
            {val(name): value for name, value in values.items()},
            on_step=False, on_epoch=True, batch_size=len(batch.images), sync_dist=self._several,
        )  # fmt: skip
        told = of_images(
            self.model.gate.told, Known(batch.places, batch.labels), seed=self.config.seed,
            experts=self.config.model.experts, device=batch.images.device,
        )  # fmt: skip
        every = torch.ones_like(batch.places, dtype=torch.bool)
        watched_B = every if self._watched is None else self._watched[batch.places]
        rows_W, places_B, shown_B = (
            to_device(of, batch.images.device) for of in (watched_B.nonzero().squeeze(1), batch.places, watched_B)
        )
        clean = self.model.describe(self._normalised(as_float(batch.images)), told, rows_W)
        z_a, z_b = z_VD.chunk(2)
        routing = RoutingRecord(record.view_a, record.view_b, clean.routing, batch.labels, places_B=places_B)
        embedding = EmbeddingRecord(
            clean.z, clean.shared, z_a, z_b, batch.labels, places_B, watched_B=shown_B, readouts_WED=clean.readouts
        )
        return {"loss": values["loss"], "routing": routing, "embedding": embedding}

    def _two_view_step(self, batch: Batch, epoch: int) -> tuple[dict[str, Tensor], RoutingRecord, Tensor]:
        """Everything to be logged, the whole loss first, the routing of both views, and the embeddings of both."""
        draws = self._validation_draws if epoch == VALIDATION else self._draws
        drawn, noise = draws(batch.places, size=batch.images.shape[-1], epoch=epoch, device=batch.images.device)
        config = self.config
        views = two_views(config.augment, batch.images, batch.places, seed=config.seed, epoch=epoch, drawn=drawn)
        known = Known(batch.places, batch.labels)
        told = of_views(self.model.gate.told, known, noise, seed=config.seed, training=self.training)
        z, routing, loads = self.model.embed(self._normalised(torch.cat(views)), told)
        z_a, z_b = z.chunk(2)
        objective, metrics = self.objective(z_a, z_b, batch.labels)
        penalties = {of.config.metric: of.loss(routing) for of in self._balancing}
        loss = objective
        for of, penalty in zip(self._balancing, penalties.values(), strict=True):
            loss = loss + of.weight * penalty
        kept, count = routing.detached(), len(batch.images)
        views_E = loads.everywhere if self.training else None
        record = RoutingRecord(kept.rows(0, count), kept.rows(count, 2 * count), views_E=views_E)
        return {"loss": loss, "objective": objective} | penalties | metrics, record, z

    def _normalised(self, x_BCSS: Tensor) -> Tensor:
        return normalise(x_BCSS, self.mean, self.sd).contiguous(memory_format=torch.channels_last)

    def _ends_epoch(self, batch_idx: int) -> bool:
        return batch_idx + 1 == int(self.trainer.num_training_batches)

    @property
    def _several(self) -> bool:
        return self.trainer.world_size > 1

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's means with its last batch."""
        if not self._ends_epoch(batch_idx):
            return
        steps = torch.stack(self._steps)
        self._check_finite(steps[:, 0])
        means = steps.double().mean(dim=0).float()
        self._steps, self._norms = [], []
        logged = {train(name): mean for name, mean in zip(self._names, means, strict=True)}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=1, sync_dist=self._several)

    def _check_finite(self, losses_S: Tensor) -> None:
        """End a training whose weights are numbers no more, and say what was so first.

        Raises:
            UserError: the loss of the epoch's last step is not finite.
        """
        if losses_S[-1].isfinite():
            return
        losses = losses_S.tolist()
        norms = torch.stack(self._norms).tolist() if self._norms else []
        begun = self.global_step - len(losses)  # steps before this epoch
        bad = next(step for step, loss in enumerate(losses) if not math.isfinite(loss))
        # the norms are of the last steps: none are kept of those before a resume
        late = len(losses) - len(norms)
        gradient = next((late + n for n, norm in enumerate(norms) if not math.isfinite(norm)), bad)
        if gradient < bad:
            step, loss = begun + gradient + 1, losses[gradient]
            what = f"the gradient of step {step} is not finite, while its loss, {loss:.4g}, is"
        else:
            what = f"the loss of step {begun + bad + 1} is not finite"
        precision = self.config.train.precision
        if precision != "32-true":
            fix = f"try train.precision=32-true in place of {precision}, and if that ends so too, a lower train.lr"
        elif begun + min(gradient, bad) == 0:
            fix = "nothing was learned yet, so train.lr is not the cause; look at the images and at loss.temperature"
        else:
            fix = "training diverged; lower train.lr"
        raise UserError(f"{what}: {fix}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the values of the epoch's steps so far, (steps, values), means over processes."""
        if self._steps:
            checkpoint["train_steps"] = (all_sum(torch.stack(self._steps)) / world()[1]).cpu()
            checkpoint["train_names"] = self._names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        if "train_steps" in checkpoint:
            self._steps = list(checkpoint["train_steps"].to(self.device))
            self._names = checkpoint["train_names"]

    def on_validation_epoch_end(self) -> None:
        """Give the epoch's metrics their place: epochs done, 0 for the untrained model."""
        self.log(Keys.EPOCH, float(epochs_done(self.trainer)), sync_dist=self._several)

    def on_train_epoch_end(self) -> None:
        """The same place for the training metrics."""
        self.log(Keys.EPOCH, float(epochs_done(self.trainer)), sync_dist=self._several)

    def on_after_backward(self) -> None:
        """Experts without images in this step keep their weights, as in a loop where they have no gradients."""
        if self._views_E is not None:
            leave_idle_alone(self.model.experts, self._views_E)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Limit the norm of all gradients together; they are unscaled by now.

        Lightning refuses to clip for a fused optimiser under any mixed precision. With a scaler it is right to, and
        has its way; without one (bfloat16) there is no scale that the optimiser could still have to take away.
        """
        if has_scaler(self.trainer.precision_plugin):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            self._norms.append(torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val))

    def configure_optimizers(self) -> Any:
        """Adam with cosine annealing, one step an epoch (Appendix A.1)."""
        train = self.config.train
        options = adam_options(self.device.type, self.trainer.precision_plugin)
        optimizer = Adam(self.parameters(), lr=train.lr, weight_decay=train.weight_decay, **options)
        return [optimizer], [CosineAnnealingLR(optimizer, T_max=train.epochs, eta_min=train.min_lr)]
