"""The paper's importance loss (Section 3, Equation 4; Shazeer et al. 2017)."""

from torch import Tensor

from moe.balancing.base import BalancingLoss
from moe.losses import importance_cv2
from moe.routing import Routing


class ImportanceLoss(BalancingLoss):
    """Squared coefficient of variation of the summed gates, 0 (even) to E - 1, see `moe.losses.importance_cv2`."""

    def forward(self, routing: Routing) -> Tensor:
        """Equation 4 without its weight."""
        return importance_cv2(routing.gates())
