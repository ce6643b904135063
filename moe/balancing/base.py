"""What a balancing loss is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from moe.balancing.options import BalancingConfig
from moe.routing import Routing


class BalancingLoss(nn.Module, ABC):
    """A penalty on the routing of a batch.

    Guarantees
    ----------
    Scalar. One finite number, float32 at least, whatever the autocast; with a gradient to the gate.

    Symmetry. Numbering experts or images otherwise changes nothing.

    Several processes. The mean over processes, and the mean of their gradients, are those of the whole batch.

    Args:
        config: the loss's own options.
    """

    def __init__(self, config: BalancingConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, routing: Routing) -> Tensor:
        """The penalty for the routing of B views, without its weight."""
