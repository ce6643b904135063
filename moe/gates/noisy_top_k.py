"""The noisy top-k gate (Section 3, Equations 2 and 3; Shazeer et al. 2017).

Axes: B images, C channels, H height, W width, E experts, K = top-k slots.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from moe.gates.base import Branch, Gate, keep_top_k
from moe.gates.options import NoisyTopKConfig
from moe.routing import Routing


class NoisyTopKGate(Gate):
    """H = l_g + N(0, 1) * softplus(l_n) while training, H = l_g otherwise; then the top k of H.

    Args:
        channels: channels C of the latent.
        hidden: channels of each branch's convolution.
        experts: number of experts E.
        top_k: experts chosen for each image.
        config: `noisy: false` leaves the noise branch out altogether.
    """

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: NoisyTopKConfig) -> None:
        super().__init__(channels, hidden, experts, top_k, config)
        self.logits = Branch(channels, hidden, experts)
        self.noise = Branch(channels, hidden, experts) if config.noisy else None

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`. Decisions are made in float32 whatever the autocast, see `Branch`."""
        logits_BE = self.logits(h_BCHW)
        if self.noise is None or not self.training:
            return Routing(logits_BE, *keep_top_k(logits_BE, self.top_k))
        scale_BE = F.softplus(self.noise(h_BCHW))
        noise_BE = torch.randn_like(logits_BE) if noise_BE is None else noise_BE
        scores_BE = logits_BE + noise_BE * scale_BE
        return Routing(logits_BE, *keep_top_k(scores_BE, self.top_k), scores_BE, scale_BE)
