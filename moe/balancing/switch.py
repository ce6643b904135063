"""The load-balancing loss of Switch Transformers (Fedus, Zoph and Shazeer 2022, arXiv:2101.03961, Equations 4 to 6).

    E * sum over experts of f_e P_e

Axes: B images, E experts.
"""

import torch
from torch import Tensor

from moe.balancing.base import BalancingLoss
from moe.distributed import all_sum
from moe.precision import at_least_float32
from moe.routing import Routing


class SwitchLoss(BalancingLoss):
    """f_e is the share of all choices that fell on expert e, P_e its mean probability, a softmax over all logits.

    1 when both are even; larger where likely experts are also chosen often; up to E. The gradient comes through P
    alone. The paper's top-1 choice is the case k = 1; with k choices an image, f counts all of them.
    """

    def forward(self, routing: Routing) -> Tensor:
        """The loss without its weight."""
        with torch.autocast(routing.logits.device.type, enabled=False):
            logits_BE = at_least_float32(routing.logits)
            chosen_E = all_sum(routing.load().to(logits_BE.dtype))
            probability_E = all_sum(logits_BE.softmax(dim=1).sum(dim=0))
            shares = (chosen_E / chosen_E.sum()) * (probability_E / probability_E.sum().detach())
            return len(chosen_E) * shares.sum()
