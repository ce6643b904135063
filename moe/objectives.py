"""What a model is trained to do with its embedding.

Axes: B images, D embedding.
"""

from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe.batchnorm import BatchNorm
from moe.config import LossConfig
from moe.losses import nt_xent
from moe.precision import at_least_float32


class Achieved(NamedTuple):
    """Loss to be minimised, a scalar, and further scalars worth logging by name."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(Protocol):
    """A loss on the embeddings of two views; may own parameters (a head). Names live in OBJECTIVES.

    Attributes:
        needs_labels: whether it can only be trained on images that all have a class.
    """

    needs_labels: ClassVar[bool]

    def __init__(self, embedding: int, classes: int, config: LossConfig) -> None: ...

    def __call__(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Achieved:
        """Loss of B images seen in two views; labels are negative where unknown."""
        ...


class Contrastive(nn.Module):
    """NT-Xent on a projection of the embedding.

    Proj is a two-layer MLP with batch norm and ReLU whose hidden layer has the embedding's width (Section 3);
    it is not part of the exported model.
    """

    needs_labels: ClassVar[bool] = False

    def __init__(self, embedding: int, classes: int, config: LossConfig) -> None:  # noqa: ARG002
        super().__init__()
        self.temperature = config.temperature
        self.projection = nn.Sequential(
            nn.Linear(embedding, embedding, bias=False),
            BatchNorm(embedding),
            nn.ReLU(inplace=True),
            nn.Linear(embedding, config.projection),
        )

    def forward(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Achieved:  # noqa: ARG002
        """NT-Xent of the projected views; labels play no part."""
        v_a, v_b = self.projection(torch.cat([z_a_BD, z_b_BD])).chunk(2)
        return Achieved(nt_xent(v_a, v_b, self.temperature), {})


class Supervised(nn.Module):
    """A linear classifier on the embedding (the paper's future work): cross-entropy in nats, mean over both views.

    Its metric ``accuracy`` is the fraction of views whose likeliest class is theirs.
    """

    needs_labels: ClassVar[bool] = True

    def __init__(self, embedding: int, classes: int, config: LossConfig) -> None:  # noqa: ARG002
        super().__init__()
        self.classifier = nn.Linear(embedding, classes)

    def forward(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Achieved:
        """Cross-entropy of both views."""
        labels = labels_B.repeat(2)
        scores = at_least_float32(self.classifier(torch.cat([z_a_BD, z_b_BD])))
        accuracy = (scores.argmax(dim=1) == labels).float().mean()
        return Achieved(F.cross_entropy(scores, labels), {"accuracy": accuracy})


OBJECTIVES: dict[str, type[Objective]] = {"contrastive": Contrastive, "supervised": Supervised}
