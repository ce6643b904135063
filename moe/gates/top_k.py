"""The top-k gate without noise (Section 3, Equation 3 with H = l_g)."""

from torch import Tensor

from moe.gates.base import Branch, Gate, keep_top_k
from moe.gates.options import TopKConfig
from moe.routing import Routing


class TopKGate(Gate):
    """The k largest logits, in training too; a softmax over them weighs the experts.

    It differs from `noisy_top_k` with ``noisy: false`` in name alone: the same parameters, drawn alike.
    """

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: TopKConfig) -> None:
        super().__init__(channels, hidden, experts, top_k, config)
        self.logits = Branch(channels, hidden, experts)

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; noise plays no part."""
        logits_BE = self.logits(h_BCHW)
        return Routing(logits_BE, *keep_top_k(logits_BE, self.top_k))
