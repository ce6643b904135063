"""From stores to batches: images resized once, kept in memory as uint8, visited in a reproducible order.

The order is a pure function of (seed, epoch).

Axes: N images, B images of a batch, S image side.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from moe.config import RunConfig
from moe.data.datasets import training_stores, validation_store
from moe.data.pixels import chunks
from moe.data.store import ImageStore
from moe.data.suitable import check_images
from moe.rng import Stream, key, to_device


class Batch(NamedTuple):
    """uint8 images (B, 3, S, S), their classes (B,) (-1 unknown) and places in the dataset (B,)."""

    images: Tensor
    labels: Tensor
    places: Tensor


@dataclass(frozen=True)
class Pixels:
    """All images of one or several stores at one size.

    Attributes:
        images_NCSS: uint8.
        labels_N: int64, -1 unknown.
        mean, sd: channel statistics of the original images, scale 0..1.
        digest: checksum of the stores.
        classes: class names.
    """

    images_NCSS: Tensor
    labels_N: Tensor
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    digest: str
    classes: tuple[str, ...]


def at_size(images_NHWC: NDArray[np.uint8], size: int) -> Tensor:
    """Images as uint8 (N, 3, size, size), scaled with antialiasing where sizes differ."""
    x = torch.from_numpy(np.array(images_NHWC)).permute(0, 3, 1, 2)
    if x.shape[-1] == size:
        return x
    x = F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return x.round_().clamp_(0, 255).to(torch.uint8)


def resized(stores: Sequence[ImageStore], size: int) -> Tensor:
    """All images of some stores `at_size`, in one tensor from the start: there may be no room for two."""
    result = torch.empty((sum(len(store) for store in stores), 3, size, size), dtype=torch.uint8)
    start = 0
    for chunk in itertools.chain.from_iterable(chunks(store.images_NHWC) for store in stores):
        result[start : start + len(chunk)] = at_size(chunk, size)
        start += len(chunk)
    return result


def load_pixels(stores: list[ImageStore], size: int) -> Pixels:
    """Join stores. Class indices are kept only if all stores have the same classes."""
    same = len({tuple(store.manifest.classes) for store in stores}) == 1
    labels = [torch.from_numpy(store.labels_N.copy()) for store in stores]
    counts = np.array([len(store) for store in stores], float)
    means = np.array([store.manifest.mean for store in stores])
    squares = np.array([store.manifest.sd for store in stores]) ** 2 + means**2
    mean = np.average(means, axis=0, weights=counts)
    sd = np.sqrt(np.maximum(np.average(squares, axis=0, weights=counts) - mean**2, 0.0))
    return Pixels(
        images_NCSS=resized(stores, size),
        labels_N=torch.cat(labels if same else [torch.full_like(part, -1) for part in labels]),
        mean=tuple(mean.tolist()),
        sd=tuple(sd.tolist()),
        digest="+".join(store.digest() for store in stores),
        classes=tuple(stores[0].manifest.classes) if same else (),
    )


class Share(NamedTuple):
    """Which part of every batch this process has: number `rank` of `of`."""

    rank: int = 0
    of: int = 1

    def cut(self, places: Tensor) -> Tensor:
        """This process's part of a batch's places; parts differ by one place at most."""
        return places.tensor_split(self.of)[self.rank]


WHOLE = Share()


class _Rows(Dataset[Batch]):
    """Hands out whole batches: an item is a tensor of places."""

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self.images_NCSS = pixels.images_NCSS.to(device)
        self.labels_N = pixels.labels_N

    def __getitem__(self, places_B: Tensor) -> Batch:
        images_BCSS = self.images_NCSS[to_device(places_B, self.images_NCSS.device)]
        return Batch(images_BCSS, self.labels_N[places_B], places_B)

    def __len__(self) -> int:
        return len(self.images_NCSS)


class EpochBatches(Sampler[Tensor]):
    """Batches of an epoch in an order that depends on (seed, epoch) alone; a last, smaller batch is left out.

    Lightning calls `set_epoch` before each epoch, also when it resumes.

    Args:
        count: images.
        batch_size: images of a batch, over all processes.
        seed: the run's.
        share: this process's part of each batch.
        skip: batches of the first epoch to be visited that were done before a checkpoint.
    """

    def __init__(self, count: int, batch_size: int, seed: int, share: Share = WHOLE, skip: int = 0) -> None:
        self.count, self.batch_size, self.seed, self.share, self.skip = count, batch_size, seed, share, skip
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(key(self.seed, self.epoch, Stream.ORDER) % 2**63)
        order = torch.randperm(self.count, generator=generator)
        first, self.skip = self.skip, 0
        for number in range(first, len(self)):
            yield self.share.cut(order[number * self.batch_size : (number + 1) * self.batch_size])


class InOrder(Sampler[Tensor]):
    """All images in their order, in batches of nearly equal size.

    A tiny last batch would have few negatives and so another loss level than the rest.
    """

    def __init__(self, count: int, batch_size: int, share: Share = WHOLE) -> None:
        parts = max(1, round(count / batch_size))
        self.bounds = np.linspace(0, count, parts + 1).round().astype(int).tolist()
        self.share = share

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Tensor]:
        for start, stop in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            yield self.share.cut(torch.arange(start, stop))


@dataclass(frozen=True)
class RunData:
    """Training and validation images of a run."""

    train: Pixels
    validation: Pixels

    def loaders(
        self,
        config: RunConfig,
        device: torch.device,
        share: Share = WHOLE,
        skip: int = 0,
    ) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        """Loaders of training and validation batches.

        The images are in memory already, so there is nothing for worker processes to do.

        Args:
            config: the run.
            device: where it trains.
            share: this process's part of each batch.
            skip: training batches of the running epoch that a checkpoint has behind it.
        """
        size, seed = config.train.batch_size, config.seed
        home = _home(config.machine.images, [self.train, self.validation], device)
        batches = EpochBatches(len(self.train.images_NCSS), size, seed, share, skip)
        in_order = InOrder(len(self.validation.images_NCSS), size, share)
        return (
            DataLoader(_Rows(self.train, home), batch_size=None, sampler=batches),
            DataLoader(_Rows(self.validation, home), batch_size=None, sampler=in_order),
        )


def _home(choice: str, parts: list[Pixels], device: torch.device) -> torch.device:
    """Where the images stay: on the GPU if they take up less than half of its free memory."""
    if choice != "auto":
        return device if choice == "device" else torch.device("cpu")
    if device.type != "cuda":
        return torch.device("cpu")
    needed = sum(part.images_NCSS.numel() for part in parts)
    return device if needed < torch.cuda.mem_get_info(device)[0] / 2 else torch.device("cpu")


def load_run_data(config: RunConfig) -> RunData:
    """Read a run's images at its size.

    Raises:
        UserError: there are fewer images than a batch holds, or labels are needed and missing.
    """
    stores, watched = training_stores(config.data), validation_store(config.data)
    check_images(config)
    size = config.data.image_size
    return RunData(load_pixels(stores, size), load_pixels([watched], size))
