"""What a gate decided, and the record of it that callbacks read.

Axes: B images, E experts, K = top-k slots, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NONE = -1  # in place of an expert, in a slot that an image leaves empty


class Routing(NamedTuple):
    """The gate's decisions for a batch.

    Attributes:
        logits: (B, E) float32, the deterministic logits l_g of Equation 3, without noise.
        indices: (B, K) int64, the chosen experts, largest gate first; NONE in slots that are empty, behind the others.
        weights: (B, K) float32, how much the chosen ones count, 0 in empty slots; each row sums to 1, or to less
            where the gate leaves slots empty (`Gate.exact`).
        noisy: (B, E) float32, the scores H of Equation 3, with noise, whose k largest were chosen; None without noise.
        scale: (B, E) float32, standard deviation of that noise; None without noise.
    """

    logits: Tensor
    indices: Tensor
    weights: Tensor
    noisy: Tensor | None = None
    scale: Tensor | None = None

    def gates(self) -> Tensor:
        """G(h) of Equation 3: (B, E) float32, zero for experts that were not chosen."""
        # an empty slot adds 0 to the first expert
        return torch.zeros_like(self.logits).scatter_add(1, self.indices.clamp_min(0), self.weights)

    def importance(self) -> Tensor:
        """Sum of each expert's gates over the images, (E,) (Section 3, Losses)."""
        return self.gates().sum(dim=0)

    def load(self) -> Tensor:
        """Number of images given to each expert, (E,) int64."""
        flat = self.indices.flatten()
        return flat.new_zeros(self.logits.shape[1]).scatter_add_(0, flat.clamp_min(0), (flat != NONE).to(flat.dtype))

    def detached(self) -> "Routing":
        """The decisions without gradients, to be kept beyond the step; without what is known of the noise."""
        return Routing(self.logits.detach(), self.indices, self.weights.detach())

    def rows(self, start: int, stop: int) -> "Routing":
        """The decisions for images start..stop-1, without what is known of the noise."""
        return Routing(self.logits[start:stop], self.indices[start:stop], self.weights[start:stop])


@dataclass(frozen=True)
class RoutingRecord:
    """What a step shows to callbacks, under the key ``"routing"`` of its output dictionary.

    Any Lightning module that returns it can be watched by the callbacks of this project.

    Attributes:
        view_a, view_b: routing of the two views of the same B images.
        clean: routing of the B images without augmentation; None in training steps.
        labels_B: int64 class of each image, negative where unknown; None in training steps.
        views_E: how many of the step's views each expert had, over all processes, E numbers on the host; None where
            they were not counted.
        places_B: int64 place of each image in its store; None in training steps.
    """

    view_a: Routing
    view_b: Routing
    clean: Routing | None = None
    labels_B: Tensor | None = None
    views_E: Sequence[int] | None = None
    places_B: Tensor | None = None
