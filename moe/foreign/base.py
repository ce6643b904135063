"""What a mixture of experts that was trained elsewhere has to offer for probes to ask it.

Axes: B images, C features, S image side, E experts, K slots of an image, D size of a readout.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from moe.errors import UserError
from moe.registry import Registry


class ForeignModel(nn.Module, ABC):
    """A mixture of experts of somebody else's. Any module that has what is named here will do; this base is not needed.

    Of a network with several such layers it shows one: the routing of that layer, and what its experts make of it.
    Where tokens are routed, it says what the routing and the readout of an image are, a mean over tokens for example.

    Guarantees
    ----------
    Images. They come as `image_size`, `mean` and `sd` say, float32 (B, 3, S, S).

    Shapes. `route` gives logits (B, E), chosen experts (B, K) and their weights (B, K); `all_readouts` gives (E, B, D).

    Routing. The experts of an image are different; -1 stands for an empty slot. Weights are finite, and not negative.

    Evaluation. In eval mode what is said of an image depends on that image alone, and is the same each time.

    Attributes:
        image_size: side S of its images in pixels.
        mean, sd: of each channel, at a scale of 0..1: what is subtracted, and divided by.
    """

    image_size: int
    mean: Sequence[float]
    sd: Sequence[float]

    @abstractmethod
    def route(self, x_BCSS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gate's logits (B, E), the chosen experts (B, K) and how much each counts (B, K)."""

    @abstractmethod
    def all_readouts(self, x_BCSS: Tensor) -> Tensor:
        """(E, B, D): every image forced through every expert, the router bypassed (Section 4)."""

    # A model may have `shared_features(x_BCSS)` too: (B, C), what its experts are given of an image.


Factory = Callable[[], nn.Module]


def _is_factory(found: Any, name: str) -> Factory:
    if not callable(found):
        raise UserError(f'"{name}" is no function or class that makes a model')
    factory: Factory = found
    return factory


MODELS: Registry[Factory] = Registry("model", "moe.models", {}, _is_factory)
