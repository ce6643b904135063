"""Experts: their blocks and readout, and the sparse sum over those that were chosen.

Axes: B images of a batch, K = top-k slots, S = B * K slots in all, F of them filled, R images routed to one expert,
C channels, H height, W width, D embedding, E experts.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from moe.backbone import BASE_CHANNELS, UNITS, block, block_channels, scaled
from moe.batched import BatchedExperts, rows_needed
from moe.batchnorm import BatchNorm
from moe.config import ModelConfig
from moe.distributed import all_sum, world
from moe.precision import at_least_float32
from moe.routing import Routing

READOUT_HIDDEN = (2 * BASE_CHANNELS[-1], BASE_CHANNELS[-1] // 2)


def _hidden(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A hidden layer of the readout."""
    return nn.Linear(inputs, outputs, bias=False), BatchNorm(outputs), nn.ReLU(inplace=True)


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

    def forward(self, h_RCHW: Tensor, together: int | None = None) -> Tensor:
        """Readouts (R, D) of the images given. Batch norm sees these images alone.

        One image has no batch statistics worth the name (at 1x1 pixels batch norm refuses it), so it is
        normalised by the running statistics, which it leaves untouched.

        Args:
            h_RCHW: images routed to this expert.
            together: images that are normalised together; more than R when processes normalise jointly.
        """
        together = len(h_RCHW) if together is None else together
        if self.training and together == 1:
            self.eval()
            try:
                return self._compute(h_RCHW)
            finally:
                self.train()
        return self._compute(h_RCHW)

    def _compute(self, h_RCHW: Tensor) -> Tensor:
        return self.readout(self.blocks(h_RCHW).mean(dim=(2, 3)))  # type: ignore[no-any-return]

    @property
    def joint(self) -> bool:
        """Whether batch norm sees the images of all processes."""
        return any(part.joint for part in self.modules() if isinstance(part, BatchNorm))

    def idle(self) -> Tensor:
        """A zero that depends on every parameter: an expert without images gets zero gradients, not none.

        The exchange of gradients between processes waits for every parameter.
        """
        return torch.stack([parameter.sum() * 0 for parameter in self.parameters()]).sum()


class Loads(NamedTuple):
    """How many images each expert has, E numbers on the host.

    Attributes:
        own: of this process.
        everywhere: of all processes that train on the batch together.
    """

    own: list[int]
    everywhere: list[int]


def loads(routing: Routing, *, shared: bool) -> Loads:
    """Count each expert's images; a step's only wait for the device.

    Args:
        routing: this process's part of the batch.
        shared: whether other processes have parts of it too; all of them have to ask then.
    """
    own_E = routing.load()
    if not shared or world()[1] == 1:
        own = own_E.tolist()
        return Loads(own, own)
    return Loads(*torch.stack([own_E, all_sum(own_E)]).tolist())


def leave_idle_alone(experts: nn.ModuleList, everywhere: Sequence[int]) -> None:
    """Take the gradients from experts that had no image anywhere, to be called between backward pass and optimiser.

    They are zeros, left by the exchange between processes or by the computation of all experts at once. An optimiser
    that sees zeros still moves the weights, by its momentum and weight decay; one that sees none leaves weights and
    its own state as they are.

    Args:
        experts: `Expert`s.
        everywhere: images of each in this step, over all processes.
    """
    for expert, images in zip(experts, everywhere, strict=True):
        if not images:
            for parameter in expert.parameters():
                parameter.grad = None


def weighted_sum(
    experts: nn.ModuleList,
    h_BCHW: Tensor,
    routing: Routing,
    batched: BatchedExperts | None = None,
    counted: Loads | None = None,
) -> Tensor:
    """Z = sum of g_i z_i over the chosen experts (Equation 1), (B, D) float32; zeros for an image without any.

    Each expert computes the images routed to it and no others. With joint batch norm every process takes part in an
    expert that has images anywhere, be it without images of its own: the exchange of statistics needs all of them.

    Args:
        experts: `Expert`s.
        h_BCHW: what the shared blocks made of the images.
        routing: the gate's decisions.
        batched: computes all experts at once where it can; None or where it cannot: one after another.
        counted: the experts' images, if they are known already.
    """
    first = cast("Expert", experts[0])
    counted = counted or loads(routing, shared=first.joint)
    sizes, together = counted.own, counted.everywhere if first.joint else counted.own
    rows = rows_needed(sizes)
    bank = batched.bank() if batched and rows else None
    if batched and rows and bank:
        return batched.weighted_sum(h_BCHW, routing, rows, bank, filled=sum(sizes))
    chosen_S, filled = routing.indices.flatten(), sum(sizes)
    order_S = chosen_S.argsort(stable=True).roll(filled - len(chosen_S))  # empty slots come last
    images_FCHW = _rows(h_BCHW, order_S[:filled] // routing.indices.shape[1])
    readouts, nothing = [], h_BCHW.new_zeros((), dtype=torch.float32)
    for expert, part_RCHW, count in zip(
        cast("Iterable[Expert]", experts), torch.split(images_FCHW, sizes), together, strict=True
    ):
        if len(part_RCHW) or (expert.joint and count > 1):
            readouts.append(at_least_float32(expert(part_RCHW, count)))
        elif expert.training and torch.is_grad_enabled() and world()[1] > 1:
            nothing = nothing + expert.idle()
    if filled < len(order_S):
        size = cast("nn.Linear", first.readout[-1]).out_features
        readouts.append(h_BCHW.new_zeros(len(order_S) - filled, size, dtype=torch.float32))
    place_S = torch.empty_like(order_S).scatter_(0, order_S, torch.arange(len(order_S), device=order_S.device))
    z_BKD = torch.cat(readouts).index_select(0, place_S).view(*routing.indices.shape, -1)
    z_BD: Tensor = (z_BKD * routing.weights.unsqueeze(2)).sum(dim=1)
    return z_BD + nothing


def _rows(h_BCHW: Tensor, rows_S: Tensor) -> Tensor:
    """Images picked by row, in the channels-last layout that convolutions want."""
    h_BHWC = h_BCHW.permute(0, 2, 3, 1)
    picked = h_BHWC.flatten(1).index_select(0, rows_S)
    return picked.view(len(rows_S), *h_BHWC.shape[1:]).permute(0, 3, 1, 2)
