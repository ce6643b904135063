"""What a validation step shows of its embeddings, and which images all experts are shown.

Axes: B images, W of them watched, C channels, D embedding, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WATCHED = 2000


@dataclass(frozen=True)
class EmbeddingRecord:
    """What a validation step shows to callbacks, under the key ``"embedding"`` of its output dictionary.

    Any Lightning module that returns it can be watched by the callbacks of this project.

    Attributes:
        z_BD: embeddings of the images without augmentation.
        shared_BC: what the shared blocks made of them, averaged over pixels.
        view_a_BD, view_b_BD: embeddings of two views of them.
        labels_B: int64 class of each image, negative where unknown.
        places_B: int64 place of each image in its store.
        watched_B: bool, the images that every expert was shown.
        readouts_WED: readouts of these by every expert, in the order of the images.
    """

    z_BD: Tensor
    shared_BC: Tensor
    view_a_BD: Tensor
    view_b_BD: Tensor
    labels_B: Tensor
    places_B: Tensor
    watched_B: Tensor
    readouts_WED: Tensor


def watched(images: int, count: int = WATCHED) -> Tensor:
    """(images,) bool: at most so many of a store's images, drawn at random, the same in all runs.

    By default those that every expert is shown each epoch: all experts cost E / k times as much as the chosen.
    """
    first = torch.randperm(images, generator=torch.Generator().manual_seed(0))[:count]
    return torch.zeros(images, dtype=torch.bool).index_fill_(0, first, value=True)
