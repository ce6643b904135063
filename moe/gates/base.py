"""What a gate is.

Axes: B images, C channels, H height, W width, E experts, K = top-k slots.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from moe.batchnorm import BatchNorm
from moe.gates.options import GateConfig
from moe.gates.told import Told
from moe.precision import at_least_float32
from moe.routing import Routing


class Gate(nn.Module, ABC):
    """Decides which experts process an image.

    Guarantees
    ----------
    Shapes. K experts an image, all different, the largest weight first; the weights of an image sum to 1. A gate that
    is not `exact` may leave slots empty (`moe.routing.NONE`, weight 0), which come last, and weights sum to at most 1.

    Precision. Logits and weights are float32 (float64 for float64 latents) whatever the autocast.

    Reproducibility. In evaluation the routing of an image is a function of its latent and of what the gate is told of
    it (`told`; nothing, but for controls), whatever else is in the batch. In training nothing is drawn but from the
    noise that is handed over, or from torch's generator without it.

    Gradients. They reach every parameter that decides how much a chosen expert counts.

    Attributes:
        told: what it is told of an image beside its latent, as `noise_BE`.
        exact: whether every image has K experts.
        top_k: slots of an image, K: the experts chosen for each, or the most that one can have.

    Args:
        channels: channels C of the latent.
        hidden: channels of a branch's convolution.
        experts: number of experts E.
        top_k: experts chosen for each image.
        config: the gate's own options.
    """

    told: ClassVar[Told] = Told.NOISE
    exact: ClassVar[bool] = True

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: GateConfig) -> None:
        super().__init__()
        self.top_k = top_k

    @abstractmethod
    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Routing of a batch of latents.

        Args:
            h_BCHW: what the shared blocks made of the images.
            noise_BE: standard normal numbers for a gate that is noisy while training; None: it draws its own. What
                else a gate may be told, `moe.gates.told.Told` says.
        """


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
