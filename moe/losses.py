"""NT-Xent and the importance loss, in float32 whatever the autocast.

Axes: B images, D dimensions, E experts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from moe.distributed import Joined, all_sum
from moe.precision import at_least_float32


def nt_xent(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020; Section 3, Losses).

    Row i of `a_BD` and row i of `b_BD` are projections of two views of one image; the other 2B - 2 rows are
    its negatives. Mean over all 2B anchors, natural logarithm. Untrained level: about log(2B - 1).

    In a distributed run the rows of all processes are negatives; the anchors are this process's, so that the mean
    over processes is the loss of the whole batch.

    Args:
        a_BD: projections v of the first view, any scale.
        b_BD: projections v of the second view.
        temperature: tau, 0.5 in the paper.

    Returns:
        Scalar float32.
    """
    with torch.autocast(a_BD.device.type, enabled=False):
        a, b = (F.normalize(at_least_float32(x), dim=1) for x in (a_BD, b_BD))
        joined = Joined(len(a), a.device)
        similarity = torch.cat([a, b]) @ torch.cat([joined(a), joined(b)]).T / temperature
        place = torch.arange(len(a), device=a.device) + joined.start
        itself = torch.cat([place, place + joined.total]).unsqueeze(1)
        partner = torch.cat([place + joined.total, place])
        return F.cross_entropy(similarity.scatter(1, itself, float("-inf")), partner)


def importance_cv2(gates_BE: Tensor) -> Tensor:
    """Squared coefficient of variation of the importances, Equation 4 without its weight.

    The importance of an expert is the sum of its gates over the batch; the spread is the population standard
    deviation, so the value lies between 0 (even) and E - 1 (all on one expert). In a distributed run the batch is
    that of all processes.

    Args:
        gates_BE: gate values, zero where an expert was not chosen.

    Returns:
        Scalar float32.
    """
    with torch.autocast(gates_BE.device.type, enabled=False):
        importance_E = all_sum(at_least_float32(gates_BE).sum(dim=0))
        return importance_E.var(correction=0) / importance_E.mean().square()
