"""Where reduced precision ends."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


# every switch by which torch may compute float32 products and convolutions in TF32 or bfloat16
_SWITCHES: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
)


@contextlib.contextmanager
def full_float32(device: str) -> Iterator[None]:
    """Compute float32 as float32: no TF32, no bfloat16 within, no autocast, whatever this process has chosen.

    By default torch lets a GPU's convolutions use TF32, which has 11 significant bits. All settings are as before
    afterwards.

    Args:
        device: type of the device that computes.
    """
    before = [switch.fp32_precision for switch in _SWITCHES]
    # torch keeps the older switches apart from the newer ones and refuses to work with a pair that disagrees
    matmul, convolution = _older(torch.get_float32_matmul_precision), _older(lambda: torch.backends.cudnn.allow_tf32)
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        for switch in _SWITCHES:
            switch.fp32_precision = "ieee"
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolution is not None:
            torch.backends.cudnn.allow_tf32 = convolution
        for switch, precision in zip(_SWITCHES, before, strict=True):
            switch.fp32_precision = precision


def _older(read: Callable[[], Any]) -> Any:
    """An older switch; None where only the newer ones have been used, which torch does not translate."""
    try:
        return read()
    except RuntimeError:
        return None
