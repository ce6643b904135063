"""What a model is trained to do with its embedding.

Axes: B images, D embedding.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from moe.config import LossConfig
from moe.losses import nt_xent


class Objective(Protocol):
    """A loss on the embeddings of two views; may own parameters (a head). Names live in OBJECTIVES."""

    def __init__(self, embedding: int, config: LossConfig) -> None: ...

    def __call__(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Scalar loss of B images seen in two views; labels are negative where unknown."""
        ...


class Contrastive(nn.Module):
    """NT-Xent on a projection of the embedding.

    Proj is a two-layer MLP with batch norm and ReLU whose hidden layer has the embedding's width (Section 3);
    it is not part of the exported model.
    """

    def __init__(self, embedding: int, config: LossConfig) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.projection = nn.Sequential(
            nn.Linear(embedding, embedding, bias=False),
            nn.BatchNorm1d(embedding),
            nn.ReLU(inplace=True),
            nn.Linear(embedding, config.projection),
        )

    def forward(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Tensor:  # noqa: ARG002
        """NT-Xent of the projected views; labels play no part."""
        v_a, v_b = self.projection(torch.cat([z_a_BD, z_b_BD])).chunk(2)
        return nt_xent(v_a, v_b, self.temperature)


OBJECTIVES: dict[str, type[Objective]] = {"contrastive": Contrastive}
