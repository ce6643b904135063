"""Balance without a loss.

Wang et al. 2024, "Auxiliary-loss-free load balancing strategy for mixture-of-experts", arXiv:2408.15664; the chosen
scores are divided by their sum, as in DeepSeek-V3 (arXiv:2412.19437).

    s = sigmoid(l);  chosen: the k largest s_e + b_e;  weights: s over the chosen, divided by their sum
    after a step:    b_e <- b_e + u sign(mean load - load_e)

Axes: B images, C channels, H height, W width, E experts, K = top-k slots.
"""

import torch
from torch import Tensor

from moe.distributed import all_sum
from moe.gates.base import Branch, Gate
from moe.gates.options import SigmoidBiasConfig
from moe.routing import Routing


class SigmoidBiasGate(Gate):
    """Sigmoid scores, and a bias an expert that decides who is chosen but not how much they count.

    While training, each batch moves the bias of every expert by ``bias_rate``: up where its load was below the mean,
    down where it was above. The loads are those of all processes. The bias is part of the model and is exported; in
    evaluation it stays.
    """

    bias_E: Tensor

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: SigmoidBiasConfig) -> None:
        super().__init__(channels, hidden, experts, top_k, config)
        self.rate = config.bias_rate
        self.logits = Branch(channels, hidden, experts)
        self.register_buffer("bias_E", torch.zeros(experts))

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; noise plays no part. The logits are those before sigmoid and bias."""
        logits_BE = self.logits(h_BCHW)
        scores_BE = logits_BE.sigmoid()
        chosen_BK = (scores_BE.detach() + self.bias_E).topk(self.top_k, dim=1).indices
        kept_BK, order_BK = scores_BE.gather(1, chosen_BK).sort(dim=1, descending=True, stable=True)
        routing = Routing(logits_BE, chosen_BK.gather(1, order_BK), kept_BK / kept_BK.sum(dim=1, keepdim=True))
        if self.training:
            self._nudge(routing.load())
        return routing

    @torch.no_grad()
    def _nudge(self, load_E: Tensor) -> None:
        load_E = all_sum(load_E.to(self.bias_E.dtype))
        self.bias_E += self.rate * (load_E.mean() - load_E).sign()
