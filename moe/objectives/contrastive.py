"""The paper's objective: NT-Xent (Section 3, Losses; Chen et al. 2020).

Axes: B images, D embedding.
"""

import torch
from torch import Tensor, nn

from moe.batchnorm import BatchNorm
from moe.losses import nt_xent
from moe.objectives.base import Achieved, Objective
from moe.objectives.options import ContrastiveConfig


class Contrastive(Objective):
    """NT-Xent on a projection of the embedding.

    Proj is a two-layer MLP with batch norm and ReLU whose hidden layer has the embedding's width (Section 3);
    it is not part of the exported model.
    """

    def __init__(self, embedding: int, classes: int, config: ContrastiveConfig) -> None:
        super().__init__(embedding, classes, config)
        self.temperature = config.temperature
        self.projection = nn.Sequential(
            nn.Linear(embedding, embedding, bias=False),
            BatchNorm(embedding),
            nn.ReLU(inplace=True),
            nn.Linear(embedding, config.projection),
        )

    def forward(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Achieved:
        """NT-Xent of the projected views; labels play no part."""
        v_a, v_b = self.projection(torch.cat([z_a_BD, z_b_BD])).chunk(2)
        return Achieved(nt_xent(v_a, v_b, self.temperature), {})
