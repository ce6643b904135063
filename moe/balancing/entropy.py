"""Decisive and even at once: the mutual information of image and expert.

Krause, Perona and Gomes 2010, "Discriminative clustering by regularized information maximization", with experts for
their classes and without their regulariser.

    mean over images of H(p(e | x))  -  H(mean over images of p(e | x)),  over log E

Axes: B images, E experts.
"""

import math

import torch
from torch import Tensor

from moe.balancing.base import BalancingLoss
from moe.distributed import all_sum
from moe.precision import at_least_float32
from moe.routing import Routing


class EntropyLoss(BalancingLoss):
    """Minus the mutual information of image and expert, in units of log E; p is the softmax over all logits.

    -1 where each image has one likely expert and all experts have equally many images; 0 where all images have the
    same probabilities, be they even or not.
    """

    def forward(self, routing: Routing) -> Tensor:
        """The loss without its weight; 0 for a single expert."""
        images, experts = routing.logits.shape
        with torch.autocast(routing.logits.device.type, enabled=False):
            log_p_BE = at_least_float32(routing.logits).log_softmax(dim=1)
            count = all_sum(log_p_BE.new_tensor(float(images)))
            mean_p_E = all_sum(log_p_BE.exp().sum(dim=0)) / count
            of_an_image = all_sum(-(log_p_BE.exp() * log_p_BE).sum()) / count
            over_images = torch.special.entr(mean_p_E).sum()
            loss: Tensor = (of_an_image - over_images) / (math.log(experts) or 1.0)
            return loss
