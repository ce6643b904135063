"""Random numbers that are a pure function of a counter.

Draws for an image depend on (seed, epoch, image index) alone, never on batch order, workers, rank or on how
often training was interrupted, so there is no generator state to save. The mixer is SplitMix64's finaliser
(Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), in wrapping 64-bit integers.

Axes: B images, N draws.
"""

from enum import IntEnum, unique

import torch
from torch import Tensor

VALIDATION = 2**31  # in place of an epoch, which is smaller: validation views are the same after every epoch


@unique
class Stream(IntEnum):
    """What random numbers are for, a part of their key: one purpose never repeats the numbers of another.

    The values are part of every result ever computed; a new purpose gets a new one.
    """

    VIEW_A = 0
    VIEW_B = 1
    ORDER = 2
    WEIGHTS = 3
    NOISE = 4
    STEP = 5
    ROUTE = 6


_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as the signed integer that torch holds."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's is arithmetic for signed integers)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: int64 -> int64, a bijection whose output bits look independent."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def key(*parts: int) -> int:
    """One 64-bit key from several integers; their order matters."""
    state = 0
    for part in parts:
        state = _mixed((state * 31 + _GAMMA + part) & _MASK)
    return _signed(state)


def _mixed(x: int) -> int:
    """`mix` of one number, as an unsigned integer of Python's: no tensor, nothing to wait for."""
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
    return x ^ (x >> 31)


def uniform(stream: int, counter_B: Tensor, draws: int) -> Tensor:
    """Uniform numbers in [0, 1), (B, draws) float64: row b depends on (stream, counter_B[b]) alone.

    They are on the counters' device, the same bits on each.
    """
    rows_B1 = mix(mix(counter_B.to(torch.int64) * _GAMMA + stream)).unsqueeze(1)
    columns_N = torch.arange(1, draws + 1, dtype=torch.int64, device=counter_B.device) * _GAMMA
    return _shift_right(mix(rows_B1 + columns_N), 11).to(torch.float64) * 2.0**-53


def normal(stream: int, counter_B: Tensor, draws: int) -> Tensor:
    """Standard normal numbers, (B, draws) float32 on the counters' device.

    Row b depends on (stream, counter_B[b]) alone, on another kind of device up to rounding.
    """
    u = (uniform(stream, counter_B, draws) + 2.0**-54).clamp_max(1 - 2.0**-53)  # quantiles of 0 and 1 are infinite
    result: Tensor = torch.special.ndtri(u)
    return result.float()


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy from the CPU without waiting for the device: to a GPU from pinned memory."""
    if device.type != "cuda" or x.device.type == "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
