"""Routing metrics as pure functions.

Axes: B images, E experts, K = top-k slots, C classes. Arrays are NumPy; anything `numpy.asarray` takes will do.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LoadBalance:
    """How evenly a gate uses its experts.

    Attributes:
        importance: (E,) sum of each expert's gates over the images (Section 3, Losses).
        load: (E,) number of images routed to each expert (gate above 0).
        cv2: squared coefficient of variation of the importances (population sd), 0 (even) to E - 1 (collapsed).
        entropy: entropy of the importances' shares divided by log E, 0 (collapsed) to 1 (even); 1 if E = 1.
        dead: number of experts that no image was routed to.
    """

    importance: NDArray[np.float64]
    load: NDArray[np.int64]
    cv2: float
    entropy: float
    dead: int


def load_balance(gates_BE: ArrayLike) -> LoadBalance:
    """Balance of the gates of a batch or a whole data set.

    Args:
        gates_BE: non-negative gate values, zero where an expert was not chosen.

    Raises:
        ValueError: not a matrix, or no gate is above zero.
    """
    gates = np.asarray(gates_BE, dtype=np.float64)
    if gates.ndim != 2 or not gates.sum() > 0:  # noqa: PLR2004
        raise ValueError(f"gates must be a matrix (B, E) with some gate above zero, not {gates.shape}")
    importance = gates.sum(axis=0)
    share = importance / importance.sum()
    used = share[share > 0]
    experts = gates.shape[1]
    load = (gates > 0).sum(axis=0)
    return LoadBalance(
        importance=importance,
        load=load,
        cv2=float(importance.var() / importance.mean() ** 2),
        entropy=float(-(used * np.log(used)).sum() / np.log(experts)) if experts > 1 else 1.0,
        dead=int((load == 0).sum()),
    )


def _sets(indices_BK: ArrayLike) -> NDArray[np.int64]:
    indices = np.asarray(indices_BK)
    if indices.ndim != 2:  # noqa: PLR2004
        raise ValueError(f"chosen experts must be a matrix (B, K), not {indices.shape}")
    return np.sort(indices.astype(np.int64), axis=1)


def view_agreement(idx_a: ArrayLike, idx_b: ArrayLike) -> float:
    """Fraction of images whose two views are routed to the same SET of experts (Appendix B.1).

    Args:
        idx_a: (B, K) chosen experts of the first view, in any order within a row.
        idx_b: the same for the second view.

    Raises:
        ValueError: shapes differ or there is no image.
    """
    a, b = _sets(idx_a), _sets(idx_b)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"views must have equal shapes (B, K) with B > 0, not {a.shape} and {b.shape}")
    return float((a == b).all(axis=1).mean())


def uniform_chance(experts: int, top_k: int) -> float:
    """Agreement of two views routed to independent, uniform sets: 1 / C(E, k) (Appendix B.1)."""
    return 1 / comb(experts, top_k)


def observed_chance(idx_a: ArrayLike, idx_b: ArrayLike) -> float:
    """Agreement if the two views were routed independently, each set as often as it was observed.

    Sum over sets S of p_a(S) p_b(S). This is the honest baseline: a gate that favours few sets agrees with itself
    often without looking at the image, and exceeds 1 / C(E, k) by that alone.
    """
    a, b = _sets(idx_a), _sets(idx_b)
    if not len(a) or not len(b):
        raise ValueError("no images")
    sets, inverse = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    p_a, p_b = (np.bincount(part, minlength=len(sets)) / len(part) for part in (inverse[: len(a)], inverse[len(a) :]))
    return float(p_a @ p_b)


def routing_heatmap(indices_BK: ArrayLike, labels_B: ArrayLike, classes: int, experts: int) -> NDArray[np.float64]:
    """(C, E) proportion of each class's images routed to each expert (Figure 2b); a row sums to K.

    Images with a negative label are left out; a class without images gives a row of NaN.
    """
    indices, labels = np.asarray(indices_BK), np.asarray(labels_B)
    counts = np.zeros((classes, experts))
    known = labels >= 0
    for slot in range(indices.shape[1]):
        np.add.at(counts, (labels[known], indices[known, slot]), 1)
    per_class = np.bincount(labels[known], minlength=classes).astype(float)[:, None]
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / per_class)
