"""Expert choice: experts choose images.

Zhou et al. 2022, "Mixture-of-experts with expert choice routing", arXiv:2202.09368, Section 3.1; thresholds in
evaluation as Sun et al. 2026, "Expert threshold routing", arXiv:2603.11535.

    S = softmax(l) over experts;  chosen by expert e: the c images with the largest S_e, c = k n / E of n in the batch
    weights: S_e of the chosen, as they are
    after a step: t_e <- (1 - r) t_e + r (smallest S_e that was chosen);  in evaluation chosen: images with S_e >= t_e

Axes: B images, C channels, H height, W width, E experts, K = E slots.
"""

import torch
from torch import Tensor

from moe.distributed import all_sum, world
from moe.gates.base import Branch, Gate
from moe.gates.options import ExpertChoiceConfig
from moe.routing import NONE, Routing


class ExpertChoiceGate(Gate):
    """Each expert takes the images of the batch that suit it best, all experts equally many, k images' worth in all.

    So the load is even in every batch without a loss, and an image has any number of experts, none included: then it is
    embedded at the origin, for there is no path around the experts here.

    While training, what an image is given depends on its batch: on both views of all of its images together, on each
    device among its own. In evaluation an image has a routing of its own: an expert takes it if its score reaches the
    expert's threshold, the running average of the smallest score that the expert took in training (over all
    processes). Loads are then even as far as the images are like those of training. The thresholds are part of the
    model and are exported; before the first step they are 1 / E.
    """

    exact = False

    threshold_E: Tensor
    steps: Tensor

    def __init__(self, channels: int, hidden: int, experts: int, top_k: int, config: ExpertChoiceConfig) -> None:
        super().__init__(channels, hidden, experts, experts, config)
        self.choices, self.experts, self.rate = top_k, experts, config.threshold_rate
        self.logits = Branch(channels, hidden, experts)
        self.register_buffer("threshold_E", torch.full((experts,), 1 / experts))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, h_BCHW: Tensor, noise_BE: Tensor | None = None) -> Routing:
        """Route a batch, see `Gate`; noise plays no part."""
        logits_BE = self.logits(h_BCHW)
        scores_BE = logits_BE.softmax(dim=1)
        chosen_BE = self._choose(scores_BE.detach()) if self.training else scores_BE >= self.threshold_E
        kept_BK, indices_BK = scores_BE.where(chosen_BE, -1.0).sort(dim=1, descending=True, stable=True)
        empty_BK = kept_BK < 0
        return Routing(logits_BE, indices_BK.masked_fill(empty_BK, NONE), kept_BK.masked_fill(empty_BK, 0.0))

    def capacity(self, images: int) -> int:
        """Images that each expert takes of so many, c: the integer next to k n / E, at least 1."""
        return max((2 * self.choices * images + self.experts) // (2 * self.experts), 1)

    @torch.no_grad()
    def _choose(self, scores_BE: Tensor) -> Tensor:
        """Whether each expert takes each image, (B, E) bool; thresholds follow."""
        best_cE, image_cE = scores_BE.topk(self.capacity(len(scores_BE)), dim=0)
        smallest_E = all_sum(best_cE[-1].to(self.threshold_E.dtype)) / world()[1]
        self.steps += 1
        rate = (1 / self.steps).clamp_min(self.rate)  # the mean of all steps while these are few
        self.threshold_E += rate * (smallest_E - self.threshold_E)
        return torch.zeros_like(scores_BE, dtype=torch.bool).scatter(0, image_cE, value=True)
