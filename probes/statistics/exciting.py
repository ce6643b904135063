"""Most exciting inputs: the images that a unit (an expert's readout norm, a gate logit) responds to most.

Source: Section "Expert-Level Tuning" (Figures 3, S2 and 6b). Axes: n images.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def most_exciting(scores_n: NDArray[np.number[Any] | np.bool_], count: int) -> NDArray[np.intp]:
    """Return the indices of the `count` largest scores, in descending order, ties by index.

    Args:
        scores_n: (n,) one response per image, in any unit; infinities are ordered as usual.
        count: how many indices to return; more than n returns all n.

    Returns:
        (min(count, n),) indices into `scores_n`.

    Raises:
        ValueError: `scores_n` is not one-dimensional or holds NaN, or `count` is negative.

    """
    scores_n = np.asarray(scores_n)
    if scores_n.ndim != 1:
        raise ValueError(f"scores must have one axis, got shape {scores_n.shape}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    nan = np.flatnonzero(np.isnan(scores_n))
    if nan.size:
        raise ValueError(f"{nan.size} of {scores_n.size} scores are NaN, the first at index {nan[0]}")
    # A stable ascending sort of the reversed scores, reversed again: descending with ties by index, without
    # negating the scores (which wraps round for unsigned integers).
    ascending = np.argsort(scores_n[::-1], kind="stable")
    return (scores_n.size - 1 - ascending[::-1])[:count]
