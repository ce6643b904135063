"""NT-Xent and the importance loss, in float32 whatever the autocast.

Axes: B images, D dimensions, E experts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020; Section 3, Losses).

    Row i of `a_BD` and row i of `b_BD` are projections of two views of one image; the other 2B - 2 rows are
    its negatives. Mean over all 2B anchors, natural logarithm. Untrained level: about log(2B - 1).

    Args:
        a_BD: projections v of the first view, any scale.
        b_BD: projections v of the second view.
        temperature: tau, 0.5 in the paper.

    Returns:
        Scalar float32.
    """
    with torch.autocast(a_BD.device.type, enabled=False):
        v = F.normalize(torch.cat([a_BD, b_BD]).float(), dim=1)
        similarity = v @ v.T / temperature
        similarity.fill_diagonal_(float("-inf"))
        count = len(a_BD)
        partner = torch.arange(2 * count, device=v.device).roll(count)
        return F.cross_entropy(similarity, partner)


def importance_cv2(gates_BE: Tensor) -> Tensor:
    """Squared coefficient of variation of the importances, Equation 4 without its weight.

    The importance of an expert is the sum of its gates over the batch; the spread is the population standard
    deviation, so the value lies between 0 (even) and E - 1 (all on one expert).

    Args:
        gates_BE: gate values, zero where an expert was not chosen.

    Returns:
        Scalar float32.
    """
    with torch.autocast(gates_BE.device.type, enabled=False):
        importance_E = gates_BE.float().sum(dim=0)
        return importance_E.var(correction=0) / importance_E.mean().square()
