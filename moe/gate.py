"""The noisy top-k gate (Section 3, Equations 2 and 3; Shazeer et al. 2017).

Axes: B images, C channels, H height, W width, E experts, K = top-k slots.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe.batchnorm import BatchNorm
from moe.config import GateConfig
from moe.precision import at_least_float32
from moe.routing import Routing


class Gate(Protocol):
    """Decides which experts process an image. Names of gates live in GATES."""

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: GateConfig) -> None: ...

    def __call__(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Routing of a batch of latents.

        Args:
            h_BCHW: what the shared blocks made of the images.
            noise_BE: standard normal numbers for a gate that is noisy while training; None: it draws its own.
        """
        ...


class Branch(nn.Sequential):
    """Phi of Equation 2: convolution 3x3, batch norm, ReLU, global average pooling, linear layer.

    Convolution, norm and ReLU compute in the precision of the blocks before them. From the pooling on all is float32,
    outside autocast: a mean over pixels or a logit that is rounded to half precision (8 or 11 significant bits) moves
    images to other experts, and makes ties at the boundary of the top k, which are decided by an expert's number. The
    rounding of single pixels, which remains, is averaged over them.
    """

    def __init__(self, channels: int, hidden: int, experts: int) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, kernel_size=3, padding=1, bias=False),
            BatchNorm(hidden),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, experts),
        )

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Logits (B, E), float32 at least."""
        convolution, norm, relu, pool, flatten, head = self
        x_BCHW = relu(norm(convolution(h_BCHW)))
        with torch.autocast(h_BCHW.device.type, enabled=False):
            logits_BE: Tensor = head(flatten(pool(at_least_float32(x_BCHW))))
        return logits_BE


def keep_top_k(scores_BE: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Softmax(KeepTopK(H, k)) of Equation 3, sparse.

    The softmax runs over the kept scores themselves, which equals a softmax over all with the others at
    minus infinity.

    Returns:
        indices (B, K) int64, largest score first, and weights (B, K), each row summing to 1.
    """
    kept_BK, indices_BK = scores_BE.topk(top_k, dim=1)
    return indices_BK, kept_BK.softmax(dim=1)


class NoisyTopKGate(nn.Module):
    """H = l_g + N(0, 1) * softplus(l_n) while training, H = l_g otherwise; then the top k of H.

    Args:
        channels: channels C of the latent.
        hidden: channels of each branch's convolution.
        experts: number of experts E.
        top_k: experts chosen for each image.
        config: `noisy: false` leaves the noise branch out altogether.
    """

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: GateConfig) -> None:
        super().__init__()
        self.top_k = top_k
        self.logits = Branch(channels, hidden, experts)
        self.noise = Branch(channels, hidden, experts) if config.noisy else None

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`. Decisions are made in float32 whatever the autocast, see `Branch`."""
        logits_BE = self.logits(h_BCHW)
        scores_BE = logits_BE
        if self.noise is not None and self.training:
            scale_BE = F.softplus(self.noise(h_BCHW))
            noise_BE = torch.randn_like(logits_BE) if noise_BE is None else noise_BE
            scores_BE = logits_BE + noise_BE * scale_BE
        return Routing(logits_BE, *keep_top_k(scores_BE, self.top_k))


GATES: dict[str, type[Gate]] = {"noisy_top_k": NoisyTopKGate}
