"""Where reduced precision ends."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
