"""The training recipes that train_step.py compares: one network, four ways to feed and run it.

Axes: B images, S image side, E experts, D embedding.
"""

from typing import Any

import lightning as L
import torch
from augment import torchvision_pipeline
from torch import Tensor
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from moe.config import RunConfig
from moe.data.loading import Pixels, RunData
from moe.experts import Loads
from moe.lightning_module import MoEModule
from moe.losses import importance_cv2
from moe.model import Embedded
from moe.routing import Routing


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Two views of one image, made by a per-image transform in a worker process."""

    def __init__(self, images_NCSS: Tensor, transform: Any, *, as_image: bool) -> None:
        self.images_NCSS, self.transform, self.as_image = images_NCSS, transform, as_image

    def __len__(self) -> int:
        return len(self.images_NCSS)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image: Any = self.images_NCSS[index]
        if self.as_image:
            views = self.transform(to_pil_image(image))
            return views[0], views[1]
        image = image.float() / 255
        return self.transform(image), self.transform(image)


def looped(model: Any, x: Tensor) -> tuple[Tensor, Routing]:
    """The experts one after another, each picking its images by a mask."""
    h = model.shared(x)
    routing = model.gate(h)
    gates = routing.gates()
    z = torch.zeros(len(h), model.embedding, device=h.device)
    for number, expert in enumerate(model.experts):
        mask = gates[:, number] > 0
        if mask.any():
            z[mask] = z[mask] + gates[mask, number].unsqueeze(1) * expert(h[mask]).float()
    return z, routing


def dense(model: Any, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Routing]:
    """Every expert on every image, weighted by gates that are mostly zero."""
    h = model.shared(x)
    routing = model.gate(h, noise)
    readouts = torch.stack([expert(h).float() for expert in model.experts])
    return torch.einsum("be,ebd->bd", routing.gates(), readouts), routing


def sparse(model: Any, x: Tensor) -> tuple[Tensor, Routing]:
    """Ours."""
    z, routing, _ = model.embed(x)
    return z, routing


class Ours(MoEModule):
    """The project's own step."""

    experts = staticmethod(sparse)
    last_loss: Tensor

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the loss, for those who train without a logger."""
        self.last_loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        super().on_train_batch_end(outputs, batch, batch_idx)

    def loss_of_views(self, x_a: Tensor, x_b: Tensor) -> Tensor:
        """Objective of two batches of normalised views."""
        z, routing = self.experts(self.model, torch.cat([x_a, x_b]))
        z_a, z_b = z.chunk(2)
        return self.contrast(z_a, z_b) + self.config.loss.importance_weight * importance_cv2(routing.gates())

    def contrast(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """NT-Xent of the projected embeddings."""
        loss: Tensor = self.objective(z_a, z_b, torch.zeros(len(z_a))).loss
        return loss


class Dense(Ours):
    """Ours, but every expert computes every image."""

    experts = staticmethod(dense)

    def on_fit_start(self) -> None:
        """Swap the sparse sum for the dense one."""
        everyone = Loads(*[[1] * len(self.model.experts)] * 2)
        self.model.embed = lambda x, _noise=None: Embedded(*dense(self.model, x), everyone)  # type: ignore[method-assign, assignment]


class Literal(Ours):
    """Views from DataLoader workers, experts in a Python loop, Lightning's defaults."""

    experts = staticmethod(looped)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.to(memory_format=torch.contiguous_format)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # type: ignore[override]
        """Loss of two views."""
        loss = self.loss_of_views(*batch)
        self.log("train/loss", loss)
        return loss

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Lightning's own."""
        return L.LightningModule.transfer_batch_to_device(self, batch, device, dataloader_idx)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Nothing to seed."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Nothing to gather."""

    def configure_optimizers(self) -> Any:
        """Plain Adam."""
        train = self.config.train
        return Adam(self.parameters(), lr=train.lr, weight_decay=train.weight_decay)


class Lightly(Literal):
    """lightly's transform and NT-Xent around the same network."""

    def contrast(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Lightly's loss."""
        from lightly.loss import NTXentLoss

        v_a, v_b = self.objective.projection(torch.cat([z_a, z_b])).chunk(2)
        loss: Tensor = NTXentLoss(temperature=self.config.loss.temperature)(v_a.float(), v_b.float())
        return loss


def our_loader(config: RunConfig, pixels: Pixels, device: torch.device, workers: int) -> Any:  # noqa: ARG001
    """Whole batches of uint8 images from memory."""
    return RunData(pixels, pixels).loaders(config, device)[0]


def literal_loader(config: RunConfig, pixels: Pixels, device: torch.device, workers: int) -> Any:
    """Torchvision's transforms image by image."""
    transform = v2.Compose([
        torchvision_pipeline(config.augment, config.data.image_size), v2.Normalize(pixels.mean, pixels.sd)
    ])  # fmt: skip
    return _workers(Views(pixels.images_NCSS, transform, as_image=False), config, device, workers)


def lightly_loader(config: RunConfig, pixels: Pixels, device: torch.device, workers: int) -> Any:
    """Lightly's transform at the same strengths."""
    from lightly.transforms import SimCLRTransform

    a = config.augment
    transform = SimCLRTransform(
        input_size=config.data.image_size, cj_prob=a.jitter, cj_strength=1.0, cj_bright=a.brightness,
        cj_contrast=a.contrast, cj_sat=a.saturation, cj_hue=a.hue, min_scale=a.crop_scale[0],
        random_gray_scale=a.grayscale, gaussian_blur=a.blur, sigmas=a.blur_sigma,
        normalize={"mean": list(pixels.mean), "std": list(pixels.sd)},
    )  # fmt: skip
    return _workers(Views(pixels.images_NCSS, transform, as_image=True), config, device, workers)


def _workers(views: Views, config: RunConfig, device: torch.device, workers: int) -> Any:
    return DataLoader(
        views, config.train.batch_size, shuffle=True, drop_last=True, num_workers=workers,
        pin_memory=device.type == "cuda", persistent_workers=workers > 0,
    )  # fmt: skip


RECIPES: dict[str, tuple[type[Ours], Any]] = {
    "ours": (Ours, our_loader),
    "literal": (Literal, literal_loader),
    "lightly": (Lightly, lightly_loader),
    "dense": (Dense, our_loader),
}
