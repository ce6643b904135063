"""Classification of the embedding, which the paper names as future work.

Axes: B images, D embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe.objectives.base import Achieved, Objective
from moe.objectives.options import SupervisedConfig
from moe.precision import at_least_float32


class Supervised(Objective):
    """A linear classifier on the embedding: cross-entropy in nats, mean over both views.

    Its metric ``accuracy`` is the fraction of views whose likeliest class is theirs.
    """

    def __init__(self, embedding: int, classes: int, config: SupervisedConfig) -> None:
        super().__init__(embedding, classes, config)
        self.classifier = nn.Linear(embedding, classes)

    def forward(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Achieved:
        """Cross-entropy of both views."""
        labels = labels_B.repeat(2)
        scores = at_least_float32(self.classifier(torch.cat([z_a_BD, z_b_BD])))
        accuracy = (scores.argmax(dim=1) == labels).float().mean()
        return Achieved(F.cross_entropy(scores, labels), {"accuracy": accuracy})
