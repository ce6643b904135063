"""The load loss.

Shazeer et al. 2017, "Outrageously large neural networks", arXiv:1701.06538, Appendix A, from Equation 8 on:

    P(x, e) = Phi((l_e - kth_excluding(H, k, e)) / s_e);  load_e = sum over images of P(x, e);  CV(load)^2

l are the logits without noise, s the standard deviation of the noise, H = l + s N(0, 1) the scores that were drawn,
kth_excluding the k-th largest of all scores but e's, Phi the standard normal distribution function. All are on the
scale of the logits, before any softmax.

Axes: B images, E experts, K = top-k slots.
"""

import torch
from torch import Tensor

from moe.balancing.base import BalancingLoss
from moe.distributed import all_sum
from moe.precision import at_least_float32
from moe.routing import Routing


class LoadLoss(BalancingLoss):
    """Squared coefficient of variation (population sd) of the smooth loads: 0 (even) to E - 1.

    How many images an expert has is no smooth function of the logits; how many it would have on average, were its own
    noise drawn again, is. Where no noise was drawn, in evaluation, it is the limit of vanishing noise: the loads
    themselves, without a gradient.
    """

    def forward(self, routing: Routing) -> Tensor:
        """The loss without its weight."""
        with torch.autocast(routing.logits.device.type, enabled=False):
            load_E = all_sum(smooth_load(routing))
            return load_E.var(correction=0) / load_E.mean().square()


def smooth_load(routing: Routing) -> Tensor:
    """(E,) float32: images that each expert would have on average over draws of its own noise."""
    logits_BE, top_k = at_least_float32(routing.logits), routing.indices.shape[1]
    if routing.noisy is None or routing.scale is None:
        return routing.load().to(logits_BE.dtype)
    if top_k == logits_BE.shape[1]:
        return torch.ones_like(logits_BE).sum(dim=0) + 0 * logits_BE.sum()  # chosen whatever the noise
    noisy_BE, scale_BE = at_least_float32(routing.noisy), at_least_float32(routing.scale)
    *_, last_B, next_B = noisy_BE.topk(top_k + 1, dim=1).values.unbind(dim=1)
    # among the others, the k-th largest is the (k + 1)-th of all where the expert is itself among the k largest
    chosen_BE = torch.zeros_like(noisy_BE, dtype=torch.bool).scatter(1, routing.indices, value=True)
    threshold_BE = torch.where(chosen_BE, next_B.unsqueeze(1), last_B.unsqueeze(1))
    load_E: Tensor = torch.special.ndtr((logits_BE - threshold_BE) / scale_BE).sum(dim=0)
    return load_E
