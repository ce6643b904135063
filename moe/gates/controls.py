"""Controls: gates that do not look at the image, so that what experts become without a router can be told.

None has parameters. The k experts that are chosen count alike, 1 / k. A balancing loss is measured, but has nothing to
act on.

Axes: B images, C channels, H height, W width, E experts, K = top-k slots.
"""

from typing import ClassVar

import torch
from torch import Tensor

from moe.gates.base import Gate
from moe.gates.options import GateConfig
from moe.gates.told import Told
from moe.routing import Routing


class ControlGate(Gate):
    """What controls have in common: the number of experts, and that they cannot do without being told."""

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: GateConfig) -> None:
        super().__init__(channels, hidden, experts, top_k, config)
        self.experts, self.kind = experts, config.kind

    def _needed(self, told: Tensor | None) -> Tensor:
        if told is None:
            raise ValueError(
                f"the gate {self.kind} does not see images and must be told of them: hand over what "
                "moe.gates.told.of_images gives for their places and classes"
            )
        return told

    def _alike(self, logits_BE: Tensor, indices_BK: Tensor) -> Routing:
        """These experts, with equal weights."""
        return Routing(logits_BE, indices_BK, torch.full_like(indices_BK, 1 / self.top_k, dtype=logits_BE.dtype))


class RandomGate(ControlGate):
    """k experts drawn for each image, the same for all of its views, in every epoch, in evaluation and at probing.

    The draw is a function of the run's seed and the image's place in its store. Its logits are the standard normal
    numbers whose k largest are chosen: each set of k experts is as likely as another. Two views agree by construction,
    so agreement of views is 1; classes play no part.
    """

    told: ClassVar[Told] = Told.IMAGE

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; latents play no part."""
        logits_BE = self._needed(noise_BE)
        return self._alike(logits_BE, logits_BE.topk(self.top_k, dim=1).indices)


class RandomViewGate(RandomGate):
    """k experts drawn anew for each view in each epoch, so that two views agree by chance, 1 / C(E, k).

    In evaluation a validation image's two views keep the draws that all validations give them. A clean image, as
    probes have it, has one draw, by its place in the store as with `RandomGate`.
    """

    told: ClassVar[Told] = Told.VIEW


class FixedGate(ControlGate):
    """Experts by class: class c has the experts c, c + 1, ..., c + k - 1, modulo E, whatever the seed.

    It is what a gate that knew the labels could do, and needs a class for every image: in training, in validation and
    at probing. With fewer than E - k + 1 classes the last experts have no image. Logits are 1 for the chosen and 0 for
    the others. The number of a class is that in the image's own store, so images of a store with other classes are
    routed by numbers that mean other things.
    """

    told: ClassVar[Told] = Told.CLASS

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; latents play no part. `noise_BE` holds the classes, (B, 1)."""
        labels_B1 = self._needed(noise_BE)
        slots_K = torch.arange(self.top_k, device=labels_B1.device)
        chosen_BK = (labels_B1 + slots_K) % self.experts
        logits_BE = torch.zeros(len(labels_B1), self.experts, device=labels_B1.device).scatter(1, chosen_BK, 1.0)
        return self._alike(logits_BE, chosen_BK)
