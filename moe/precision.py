"""Where reduced precision ends."""

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def outside_autocast(module: nn.Module, x: Tensor) -> Tensor:
    """The module's output for `x`, computed in float32 (float64 for float64) whatever the autocast."""
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = module(at_least_float32(x))
    return result
