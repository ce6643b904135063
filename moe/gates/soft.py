"""The soft gate: no choice at all (the mixture of Jacobs et al. 1991)."""

from torch import Tensor

from moe.gates.base import Branch, Gate, keep_top_k
from moe.gates.options import SoftConfig
from moe.routing import Routing


class SoftGate(Gate):
    """A softmax over all experts, each of which processes every image; k plays no part.

    It costs E / k times the experts' computation and bounds from above what any choice of k experts can reach.
    """

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: SoftConfig) -> None:
        super().__init__(channels, hidden, experts, experts, config)
        self.logits = Branch(channels, hidden, experts)

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; noise plays no part, and K = E."""
        logits_BE = self.logits(h_BCHW)
        return Routing(logits_BE, *keep_top_k(logits_BE, self.top_k))
