"""The cosine gate: logits are cosines in a space of few dimensions.

Chi et al. 2022, "On the representation collapse of sparse mixture of experts", arXiv:2204.09179.

    l_e = cos(Phi(h), w_e) / tau

Axes: B images, C channels, H height, W width, E experts, K = top-k slots, D directions.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe.gates.base import Branch, Gate, keep_top_k
from moe.gates.options import CosineConfig
from moe.precision import at_least_float32
from moe.routing import Routing


class CosineGate(Gate):
    """The angle between an image's direction and each expert's, over a temperature tau that is learnt; then the top k.

    Lengths play no part, so no expert wins by a large weight, and logits lie between -1 / tau and 1 / tau. The
    temperature is learnt as its logarithm, so that it stays positive.
    """

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: CosineConfig) -> None:
        super().__init__(channels, hidden, experts, top_k, config)
        self.direction = Branch(channels, hidden, config.directions)
        self.expert_ED = nn.Parameter(torch.randn(experts, config.directions))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.start_temperature)))

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; noise plays no part."""
        image_BD = self.direction(h_BCHW)
        with torch.autocast(h_BCHW.device.type, enabled=False):
            expert_ED = at_least_float32(self.expert_ED)
            cosine_BE = F.normalize(image_BD, dim=1) @ F.normalize(expert_ED, dim=1).T
            logits_BE = cosine_BE / at_least_float32(self.log_temperature).exp()
        return Routing(logits_BE, *keep_top_k(logits_BE, self.top_k))
