"""The sparse Mixture-of-Experts network (Section 3, Figure 1).

Axes: B images, C channels, H height, W width, E experts, D embedding.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from moe.backbone import block_channels, scaled, shared_blocks
from moe.batched import BatchedExperts
from moe.config import ModelConfig
from moe.experts import Expert, Loads, loads, weighted_sum
from moe.gates.base import Gate
from moe.gates.options import GateConfig, NoisyTopKConfig
from moe.gates.told import Told
from moe.rng import Stream, key
from moe.routing import Routing


class Embedded(NamedTuple):
    """Embedding z (B, D) float32, the routing that made it, and how many images each expert had."""

    z: Tensor
    routing: Routing
    loads: Loads


class Described(NamedTuple):
    """What all parts of a network make of images, some of which every expert was shown.

    Attributes:
        z: (B, D) float32.
        routing: that made it.
        shared: (B, C) float32, means over pixels of the shared blocks' output.
        readouts: (W, E, D) float32, of the images that every expert was shown.
    """

    z: Tensor
    routing: Routing
    shared: Tensor
    readouts: Tensor


class MoE(nn.Module):
    """Shared blocks, a gate, E experts of which k process each image.

    Attributes:
        embedding: size D of z, floor(256 * width / sqrt(E)) by default.
        experts_at_once: whether all experts are one computation instead of one each; None: on GPUs.
    """

    has_shared = True  # it tells what its experts are given, as models that were trained elsewhere may not

    def __init__(self, config: ModelConfig, gate: GateConfig) -> None:
        super().__init__()
        self.config = config
        self.gate_config = gate
        self.embedding = scaled(config.embedding, config, expert=True)
        self.shared = shared_blocks(config)
        channels = block_channels(config)[config.gate_after - 1]
        hidden = scaled(config.gate_channels, config, expert=False)
        self.gate: Gate = gate.load()(channels, hidden, config.experts, config.top_k, gate)
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.experts))
        self.experts_at_once: bool | None = None
        self._batched = BatchedExperts(self.experts)

    @property
    def told(self) -> Told:
        """What the gate is told of an image beside its latent."""
        return self.gate.told

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Experts E, slots K of an image, size D of a readout."""
        return self.config.experts, self.gate.top_k, self.embedding

    def embed(self, x_BCHW: Tensor, noise_BE: Tensor | None = None) -> Embedded:
        """Embedding and routing of normalised images (B, 3, H, W).

        Args:
            x_BCHW: the images.
            noise_BE: the gate's noise while training, standard normal; None: from torch's generator. For a control
                gate what it is told instead, see `moe.gates.told`.
        """
        h = self.shared(x_BCHW)
        routing = self.gate(h, noise_BE)
        counted = loads(routing, shared=self.training)
        return Embedded(self._combined(h, routing, counted), routing, counted)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Embedding z (B, D) float32 of normalised images (B, 3, H, W), Equation 1."""
        return self.embed(x_BCHW).z

    def route(self, x_BCHW: Tensor, told: Tensor | None = None) -> Routing:
        """Logits (B, E), chosen experts (B, K) and weights (B, K), without running any expert.

        Args:
            x_BCHW: the images.
            told: what `moe.gates.told.of_images` gives for them; None for gates that look at the image.
        """
        routing: Routing = self.gate(self.shared(x_BCHW), told)
        return routing

    def all_readouts(self, x_BCHW: Tensor) -> Tensor:
        """(E, B, D) float32: every image forced through every expert, the router bypassed (Section 4)."""
        return self._readouts(self.shared(x_BCHW))

    def route_and_readouts(self, x_BCHW: Tensor, told: Tensor | None = None) -> tuple[Routing, Tensor]:
        """`route` and `all_readouts` of the same images; the shared blocks run once."""
        h = self.shared(x_BCHW)
        return self.gate(h, told), self._readouts(h)

    def pooled_shared(self, x_BCHW: Tensor) -> Tensor:
        """(B, C) float32, means over pixels of the shared blocks' output: the gate and all experts get no other."""
        return pooled(self.shared(x_BCHW))

    def describe(self, x_BCHW: Tensor, told: Tensor | None, rows_W: Tensor) -> Described:
        """Embedding, routing, shared features and, of some images, every expert's readout; the shared blocks run once.

        Args:
            x_BCHW: the images.
            told: see `route`.
            rows_W: places in the batch of the images that every expert is shown, int64; there may be none.
        """
        h = self.shared(x_BCHW)
        routing: Routing = self.gate(h, told)
        z = self._combined(h, routing, loads(routing, shared=self.training))
        readouts = self._readouts(h[rows_W]) if len(rows_W) else z.new_zeros(len(self.experts), 0, self.embedding)
        return Described(z, routing, pooled(h), readouts.transpose(0, 1))

    def _combined(self, h_BCHW: Tensor, routing: Routing, counted: Loads) -> Tensor:
        at_once = h_BCHW.is_cuda if self.experts_at_once is None else self.experts_at_once
        return weighted_sum(self.experts, h_BCHW, routing, self._batched if at_once else None, counted)

    def _readouts(self, h_BCHW: Tensor) -> Tensor:
        return torch.stack([expert(h_BCHW).float() for expert in self.experts])


def pooled(h_BCHW: Tensor) -> Tensor:
    """(B, C) float32: means over pixels."""
    return h_BCHW.float().mean(dim=(2, 3))


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Within it, weights are a function of a run's seed alone, whatever ran in this process before."""
    with torch.random.fork_rng():
        torch.manual_seed(key(seed, Stream.WEIGHTS) % 2**63)
        yield


def build_model(config: ModelConfig, gate: GateConfig | None = None) -> MoE:
    """The network of a configuration; weights drawn from torch's global generator."""
    return MoE(config, gate or NoisyTopKConfig())
