"""ResNet-style blocks (He et al. 2015) and the channel arithmetic that keeps models of all E equally large.

Axes: B images, C channels, H height, W width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe.batchnorm import BatchNorm
from moe.config import ModelConfig

BASE_CHANNELS = (64, 128, 256, 512, 1024)
UNITS = (1, 1, 1, 2, 2)  # residual units a block: with the readout below, 45.8M to 46.1M parameters


def scaled(base: int, config: ModelConfig, *, expert: bool) -> int:
    """floor(base * width / sqrt(E)) for what the experts share out, floor(base * width) for the rest."""
    divisor = math.sqrt(config.experts) if expert and config.constant_params else 1.0
    return max(1, math.floor(base * config.width / divisor + 1e-9))


def block_channels(config: ModelConfig) -> list[int]:
    """Output channels of the five blocks; from the gate's input on they shrink with sqrt(E) (Appendix A.1)."""
    return [scaled(base, config, expert=number >= config.gate_after) for number, base in enumerate(BASE_CHANNELS, 1)]


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = BatchNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.norm1(self._first(x_BCHW)), inplace=True)
        y = self.norm2(self.conv2(y))
        # Taking every second pixel first equals a strided 1x1 convolution, whose backward pass corrupts memory in
        # torch 2.15 on CPUs for channels-last tensors of fewer than 8 channels.
        return F.relu(y + self.shortcut(x_BCHW[:, :, :: self.stride, :: self.stride]), inplace=True)

    def _first(self, x_BCHW: Tensor) -> Tensor:
        # A 1x1 map has no second pixel to skip; with stride 2 torch 2.15 on CPUs leaves most of the weight's bfloat16
        # gradient unwritten, whatever was in that memory before.
        if x_BCHW.shape[2:] == (1, 1) and torch.is_autocast_enabled(x_BCHW.device.type):
            return F.conv2d(x_BCHW, self.conv1.weight, padding=1)
        y: Tensor = self.conv1(x_BCHW)
        return y


def block(inputs: int, outputs: int, units: int) -> nn.Sequential:
    """One of the five blocks: its first unit halves the resolution."""
    rest = [ResidualUnit(outputs, outputs, stride=1) for _ in range(units - 1)]
    return nn.Sequential(ResidualUnit(inputs, outputs, stride=2), *rest)


def shared_blocks(config: ModelConfig) -> nn.Sequential:
    """A 3x3 stem at full resolution, then the blocks before the gate."""
    stem = scaled(BASE_CHANNELS[0], config, expert=False)
    layers: list[nn.Module] = [
        nn.Conv2d(3, stem, 3, padding=1, bias=False),
        BatchNorm(stem),
        nn.ReLU(inplace=True),
    ]
    inputs = stem
    for outputs, units in zip(block_channels(config)[: config.gate_after], UNITS, strict=False):
        layers.append(block(inputs, outputs, units))
        inputs = outputs
    return nn.Sequential(*layers)
