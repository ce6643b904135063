"""From stored images to what a network is given, the same for every reader of a model.

Axes: B images, H height, W width, S image side.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moe.data.augment import as_float, normalise
from moe.data.loading import at_size


class Preparation(NamedTuple):
    """How images are prepared for a model.

    Attributes:
        image_size: side S in pixels, to which they are scaled with antialiasing.
        mean, sd: of each channel, at a scale of 0..1, to subtract and divide by.
    """

    image_size: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def __call__(self, images_BHWC: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Float32 (B, 3, S, S), channels last in memory, of uint8 images."""
        x_BCSS = as_float(at_size(images_BHWC, self.image_size).to(device))
        return normalise(x_BCSS, self.mean, self.sd).contiguous(memory_format=torch.channels_last)
