"""What a gate is told of an image beside its latent: noise, and for controls the image's own draw or its class.

Axes: B images, V = 2 B views of them, E experts.
"""

from enum import Enum, auto
from typing import NamedTuple

import torch
from torch import Tensor

from moe.errors import UserError
from moe.rng import Stream, key, normal, to_device


class Told(Enum):
    """What a gate wants to be told. Views are those of a step; clean images those of `MoE.route` and of probes."""

    NOISE = auto()
    """Standard normal numbers for each view, anew each epoch, while training; in evaluation nothing."""
    VIEW = auto()
    """Standard normal numbers for each view, anew each epoch; of a validation image always the same two views', and
    of a clean image its own, see IMAGE."""
    IMAGE = auto()
    """Standard normal numbers for each image, the same for all of its views, in every epoch and as a clean image: a
    function of the run's seed and the image's place in its store (of joined stores, `a+b`: in the whole)."""
    CLASS = auto()
    """The number of its class, (B, 1) int64."""


class Known(NamedTuple):
    """Images as a store knows them: places (B,) int64 in it, on the CPU, and classes (B,) int64, -1 where unknown."""

    places_B: Tensor
    labels_B: Tensor


def of_images(told: Told, known: Known, *, seed: int, experts: int, device: torch.device) -> Tensor | None:
    """What a gate is told of clean images: (B, E), (B, 1) for CLASS, None for NOISE.

    Args:
        told: what the gate wants.
        known: the images.
        seed: the run's.
        experts: number of experts E.
        device: where it is needed.
    """
    if told is Told.NOISE:
        return None
    if told is Told.CLASS:
        return known.labels_B.unsqueeze(1).to(device)
    on_device = device.type == "cuda"  # other accelerators lack float64
    places_B = to_device(known.places_B, device) if on_device else known.places_B
    return normal(key(seed, Stream.ROUTE), places_B, experts).to(device)


def of_views(told: Told, known: Known, noise_VE: Tensor, *, seed: int, training: bool) -> Tensor | None:
    """What a gate is told of both views of images, first views first.

    Args:
        told: what the gate wants.
        known: the images.
        noise_VE: standard normal numbers of the views, on the device where they are needed.
        seed: the run's.
        training: whether it is told while training.
    """
    if told is Told.NOISE:
        return noise_VE if training else None
    if told is Told.VIEW:
        return noise_VE
    whole = of_images(told, known, seed=seed, experts=noise_VE.shape[1], device=noise_VE.device)
    return None if whole is None else whole.repeat(2, 1)


def check_known(told: Told, labels_B: Tensor, store: str, kind: str) -> None:
    """Refuse images whose class is needed and unknown.

    Raises:
        UserError: names the gate and the store.
    """
    if told is Told.CLASS and (labels_B < 0).any():
        raise UserError(f"gate.kind={kind} routes by class, which images of {store} lack; choose images with labels")
