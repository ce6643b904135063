"""Most exciting inputs: the images that a unit (an expert's readout norm, a gate logit) responds to most.

Source: Section "Expert-Level Tuning" (Figures 3, S2 and 6b). Axes: n images, c images of a list, E experts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.constancy import constant_columns


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


def undecided(scores_nE: NDArray[np.floating[Any]], count: int) -> NDArray[np.bool_]:
    """Which experts' lists (E,) of `count` images end among equal scores, to within rounding.

    Which images are on such a list is a matter of their order, and two such lists overlap by it: copies of an image,
    a gate that knows classes alone.
    """
    if count >= len(scores_nE):
        return np.zeros(scores_nE.shape[1], np.bool_)
    last = len(scores_nE) - count
    return constant_columns(np.partition(scores_nE, (last - 1, last), axis=0)[last - 1 : last + 1])


def overlap(a_Ec: NDArray[np.intp], b_Ec: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share (E,) of each expert's list of images in `a` that is in its list in `b`, both of `c` different images."""
    shared = [len(np.intersect1d(a_c, b_c)) for a_c, b_c in zip(a_Ec, b_Ec, strict=True)]
    return np.asarray(np.array(shared) / max(a_Ec.shape[1], 1), np.float64)


def overlap_null(
    a_Ec: NDArray[np.intp],
    b_Ec: NDArray[np.intp],
    n: int,
    *,
    draws: int,
    seed: int,
    units: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.float64]:
    """Mean `overlap` over experts when the images of `b` are exchanged at random, (draws,).

    Images are exchanged for all experts alike: experts that like the same images still do. Dealt to each expert by
    itself, correlated experts would seem to agree with their gates too often.

    Args:
        a_Ec: each expert's list of images by one score.
        b_Ec: its list by the other.
        n: number of images.
        draws: number of permutations.
        seed: of the permutations.
        units: (n,) groups of images, e.g. concepts, numbered from 0: the order of groups is drawn, and images of one
            group stay side by side, so that they mostly become images of one group. None: single images are drawn.
    """
    rng = np.random.default_rng(seed)
    member_nE = np.zeros((n, len(a_Ec)), np.bool_)
    np.put_along_axis(member_nE.T, a_Ec, True, axis=1)
    experts = np.arange(len(a_Ec))[:, None]
    place_n = None if units is None else np.argsort(units, kind="stable")
    null = np.empty(draws)
    for draw in range(draws):
        if units is None:
            becomes_n = rng.permutation(n)
        else:
            becomes_n = np.empty(n, np.intp)
            becomes_n[place_n] = np.argsort(rng.permutation(int(units.max()) + 1)[units], kind="stable")
        null[draw] = member_nE[becomes_n[b_Ec], experts].mean()
    return null
