"""Experts: their blocks and readout, and the sparse sum over those that were chosen.

Axes: B images of a batch, R images routed to one expert, C channels, H height, W width, D embedding.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from moe.backbone import BASE_CHANNELS, UNITS, block, block_channels, scaled
from moe.config import ModelConfig
from moe.routing import Routing

READOUT_HIDDEN = (2 * BASE_CHANNELS[-1], BASE_CHANNELS[-1] // 2)


def _hidden(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A hidden layer of the readout."""
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)


class Expert(nn.Module):
    """The blocks after the gate, global average pooling, and a three-layer readout (Section 3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = block_channels(config)[config.gate_after - 1 :]
        units = UNITS[config.gate_after :]
        self.blocks = nn.Sequential(
            *(block(i, o, n) for i, o, n in zip(channels[:-1], channels[1:], units, strict=True))
        )
        wide, narrow = (scaled(base, config, expert=True) for base in READOUT_HIDDEN)
        self.readout = nn.Sequential(
            *_hidden(channels[-1], wide),
            *_hidden(wide, narrow),
            nn.Linear(narrow, scaled(config.embedding, config, expert=True)),
        )

    def forward(self, h_RCHW: Tensor) -> Tensor:
        """Readouts (R, D) of the images given. Batch norm sees these images alone.

        One image has no batch statistics worth the name (at 1x1 pixels batch norm refuses it), so it is
        normalised by the running statistics, which it leaves untouched.
        """
        if self.training and len(h_RCHW) == 1:
            self.eval()
            try:
                return self._compute(h_RCHW)
            finally:
                self.train()
        return self._compute(h_RCHW)

    def _compute(self, h_RCHW: Tensor) -> Tensor:
        return self.readout(self.blocks(h_RCHW).mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def idle(self) -> Tensor:
        """A zero that depends on every parameter: an expert without images gets zero gradients, not none.

        Optimiser and gradient exchange between devices then treat it like the others.
        """
        return torch.stack([parameter.sum() * 0 for parameter in self.parameters()]).sum()


def weighted_sum(experts: nn.ModuleList, h_BCHW: Tensor, routing: Routing, embedding: int) -> Tensor:
    """Z = sum of g_i z_i over the chosen experts (Equation 1), (B, D) float32.

    Each expert computes the images routed to it and no others.
    """
    z_BD = h_BCHW.new_zeros((len(h_BCHW), embedding), dtype=torch.float32)
    for number, expert in enumerate(cast("Iterable[Expert]", experts)):
        rows_R, slots_R = (routing.indices == number).nonzero(as_tuple=True)
        if len(rows_R):
            weights_R = routing.weights[rows_R, slots_R]
            z_BD = z_BD.index_add(0, rows_R, expert(h_BCHW[rows_R]).float() * weights_R.unsqueeze(1))
        elif expert.training and torch.is_grad_enabled():
            z_BD = z_BD + expert.idle()
    return z_BD
