"""The router z-loss (Zoph et al. 2022, "ST-MoE", arXiv:2202.08906).

    mean over images of (log sum_e exp l_e)^2

Axes: B images, E experts.
"""

import torch
from torch import Tensor

from moe.balancing.base import BalancingLoss
from moe.precision import at_least_float32
from moe.routing import Routing


class ZLoss(BalancingLoss):
    """Keeps logits small, where half precision is fine and a softmax not yet saturated; it balances nothing by itself.

    In squared nats, (log E)^2 for logits of 0.
    """

    def forward(self, routing: Routing) -> Tensor:
        """The loss without its weight."""
        with torch.autocast(routing.logits.device.type, enabled=False):
            return at_least_float32(routing.logits).logsumexp(dim=1).square().mean()
