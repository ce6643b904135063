"""What an objective is.

Axes: B images, D embedding.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from moe.objectives.options import LossConfig


class Achieved(NamedTuple):
    """Loss to be minimised, a scalar, and further scalars worth logging by name."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A loss on the embeddings of two views; may own parameters (a head), which are not part of the exported model.

    Guarantees
    ----------
    Scalars. The loss is one finite number with a gradient to both views; the metrics are numbers without one.

    Precision. The loss is float32 (float64 for float64 embeddings) whatever the autocast.

    Symmetry. Exchanging the two views of all images changes nothing in evaluation.

    Several processes. The mean over processes is the loss of the whole batch.

    Labels. Without a class for every image it can be trained, unless its options say `needs_labels`.

    Args:
        embedding: size D of an embedding.
        classes: number of classes; 0 where the images have none.
        config: the objective's own options.
    """

    def __init__(self, embedding: int, classes: int, config: LossConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, z_a_BD: Tensor, z_b_BD: Tensor, labels_B: Tensor) -> Achieved:
        """Loss of B images seen in two views; labels are negative where unknown."""
