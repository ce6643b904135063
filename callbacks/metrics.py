"""Routing metrics as pure functions.

Axes: B images, E experts, K = top-k slots, C classes. Arrays are NumPy; anything `numpy.asarray` takes will do.
An image's chosen experts are K different ones, in any order. Where a gate gives an image fewer than K (expert choice),
`moe.routing.NONE` stands in the slots that are empty.
"""

from dataclasses import dataclass
from math import comb, log

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moe.routing import NONE

# up to here exchanging whole columns is quicker than sorting many short rows
_FEW = 4


@dataclass(frozen=True)
class LoadBalance:
    """How evenly a gate uses its experts.

    Attributes:
        importance: (E,) sum of each expert's gates over the images (Section 3, Losses).
        load: (E,) number of images routed to each expert (gate above 0).
        cv2: squared coefficient of variation of the importances (population sd), 0 (even) to E - 1 (collapsed).
        entropy: entropy of the importances' shares divided by log E, 0 (collapsed) to 1 (even); 1 if E = 1.
        dead: number of experts that no image was routed to.

    `cv2` and `entropy` are NaN where no image has any expert.
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
    if gates.ndim != 2 or not gates.sum() > 0:
        raise ValueError(f"gates must be a matrix (B, E) with some gate above zero, not {gates.shape}")
    return _balance(gates.sum(axis=0), (gates > 0).sum(axis=0))


def routed_balance(indices_BK: ArrayLike, weights_BK: ArrayLike, experts: int) -> LoadBalance:
    """`load_balance` from the chosen experts and their gates, without the zeros of all the others.

    Args:
        indices_BK: chosen experts.
        weights_BK: their gates, non-negative; 0 in empty slots.
        experts: E.

    Raises:
        ValueError: shapes differ, an expert is not below E, an empty slot has a gate, or no gate is above zero though
            experts were chosen.
    """
    indices, weights = _chosen(indices_BK, experts), np.asarray(weights_BK, dtype=np.float64)
    filled = indices != NONE
    if indices.shape != weights.shape or not (weights.sum() > 0 or not filled.any()):
        shapes = f"{indices.shape} and {weights.shape}"
        raise ValueError(f"experts and gates must be matrices (B, K) with some gate above zero, not {shapes}")
    if weights[~filled].any():
        raise ValueError("a gate above zero stands in a slot without an expert")
    used = weights > 0
    chosen, gates = (indices.ravel(), weights.ravel()) if used.all() else (indices[used], weights[used])
    importance = np.bincount(chosen, gates, minlength=experts).astype(np.float64)
    return _balance(importance, np.bincount(chosen, minlength=experts))


def _balance(importance: NDArray[np.float64], load: NDArray[np.integer]) -> LoadBalance:
    with np.errstate(invalid="ignore"):
        cv2, share = importance.var() / importance.mean() ** 2, importance / importance.sum()
    return LoadBalance(
        importance=importance,
        load=load.astype(np.int64),
        cv2=float(cv2),
        entropy=float(_entropy(share)),
        dead=int((load == 0).sum()),
    )


def _entropy(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of shares (..., E) divided by log E, (...); 1 if E = 1, NaN stays NaN."""
    experts = share.shape[-1]
    if experts == 1:
        return share[..., 0]  # the only share: 1, or NaN
    terms = share * np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(np.abs(terms.sum(axis=-1)) / log(experts))  # abs: no -0.0


def gate_entropy(logits_BE: ArrayLike) -> float:
    """How undecided the gate is about an image: mean entropy of softmax(logits) divided by log E.

    Unlike the entropy of the importances, which tells how evenly all images together use the experts, this is 0 if
    the gate decides for one expert each time, whichever, and 1 if it is indifferent each time.

    Args:
        logits_BE: finite logits, before the top k is taken.

    Returns:
        0 (decisive) to 1 (indifferent); 0 if E = 1.

    Raises:
        ValueError: not a matrix, or there is no image.
    """
    logits = np.asarray(logits_BE, dtype=np.float64)
    if logits.ndim != 2 or not logits.size:
        raise ValueError(f"logits must be a matrix (B, E) with B > 0, not {logits.shape}")
    experts = logits.shape[1]
    if experts == 1:
        return 0.0
    below = logits - logits.max(axis=1, keepdims=True)
    odds = np.exp(below)
    total = odds.sum(axis=1)
    # log total - sum of p log(odds); odds of 0 add nothing, however low their logit
    return float((np.log(total) - (odds * below).sum(axis=1) / total).mean() / log(experts))


def _chosen(indices_BK: ArrayLike, experts: int | None = None) -> NDArray[np.int64]:
    indices = np.asarray(indices_BK)
    if indices.ndim != 2:
        raise ValueError(f"chosen experts must be a matrix (B, K), not {indices.shape}")
    limit = np.inf if experts is None else experts
    if indices.size and not (indices.min() >= NONE and indices.max() < limit):
        raise ValueError(f"chosen experts must be in 0..{limit - 1}, not {indices.min()}..{indices.max()}")
    return indices.astype(np.int64, copy=False)


def _sets(indices_BK: ArrayLike) -> NDArray[np.int64]:
    """The rows sorted, (B, K), empty slots first: equal rows are equal sets."""
    indices = _chosen(indices_BK)
    slots = indices.shape[1]
    if slots > _FEW:
        return np.sort(indices, axis=1)
    columns = list(indices.T)
    for last in range(slots - 1, 0, -1):
        for slot in range(last):
            low, high = columns[slot], columns[slot + 1]
            columns[slot : slot + 2] = [np.minimum(low, high), np.maximum(low, high)]
    return np.stack(columns, axis=1) if columns else indices


def _numbered(sets_BK: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B,) one number for each sorted set, equal for equal sets, in the lexicographic order of the sets."""
    base, slots = int(sets_BK.max(initial=0)) + 1 - NONE, sets_BK.shape[1]
    if base**slots < 2**63:
        numbers = np.zeros(len(sets_BK), dtype=np.int64)
        for column in sets_BK.T:
            numbers = numbers * base + column - NONE
        return numbers
    return np.unique(sets_BK, axis=0, return_inverse=True)[1].ravel()


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


def sized_chance(idx_a: ArrayLike, idx_b: ArrayLike, experts: int) -> float:
    """Agreement of two views routed to independent sets of the observed sizes, uniform among the sets of a size.

    Sum over k of p_a(k) p_b(k) / C(E, k), which is `uniform_chance` where all images have k experts.

    Args:
        idx_a: (B, K) chosen experts of the first view.
        idx_b: the same for the second view.
        experts: E.

    Raises:
        ValueError: an expert is not below E, or there is no image.
    """
    a, b = ((_chosen(chosen, experts) != NONE).sum(axis=1) for chosen in (idx_a, idx_b))
    if not len(a) or not len(b):
        raise ValueError("no images")
    shares = (np.bincount(sizes, minlength=experts + 1) / len(sizes) for sizes in (a, b))
    both = enumerate(zip(*shares, strict=True))
    return float(sum(p * q * uniform_chance(experts, size) for size, (p, q) in both))


def observed_chance(idx_a: ArrayLike, idx_b: ArrayLike) -> float:
    """Agreement if the two views were routed independently, each set as often as it was observed.

    Sum over sets S of p_a(S) p_b(S). This is the honest baseline: a gate that favours few sets agrees with itself
    often without looking at the image, and exceeds 1 / C(E, k) by that alone.
    """
    a, b = _sets(idx_a), _sets(idx_b)
    if not len(a) or not len(b):
        raise ValueError("no images")
    numbers = _numbered(np.concatenate([a, b]))
    seen_a, counts_a = np.unique(numbers[: len(a)], return_counts=True)
    seen_b, counts_b = np.unique(numbers[len(a) :], return_counts=True)
    _, in_a, in_b = np.intersect1d(seen_a, seen_b, assume_unique=True, return_indices=True)
    return float((counts_a[in_a] / len(a)) @ (counts_b[in_b] / len(b)))


def coactivation(indices_BK: ArrayLike, experts: int) -> NDArray[np.float64]:
    """(E, E) fraction of images routed to both experts of a pair, 0 to 1, symmetric.

    The diagonal is the fraction routed to the one expert, its load; a row sums to K times that, where all images have
    K experts.

    Raises:
        ValueError: an expert is not below E, or there is no image.
    """
    indices = _chosen(indices_BK, experts)
    if not len(indices):
        raise ValueError("no images")
    member_BE = np.zeros((len(indices), experts + 1))
    np.put_along_axis(member_BE, indices, 1.0, axis=1)  # NONE counts from the end: the column after the experts'
    member_BE = member_BE[:, :experts]
    return np.asarray(member_BE.T @ member_BE / len(indices))


def _counts(
    indices_BK: ArrayLike, labels_B: ArrayLike, classes: int, experts: int, weights_BK: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Slots (or their weights) of each class and expert, (C, E), and images of each class, (C,)."""
    indices, labels = _chosen(indices_BK, experts), np.asarray(labels_B)
    if len(labels) != len(indices) or labels.max(initial=-1) >= classes:
        raise ValueError(f"{len(indices)} images need as many labels below {classes}, not {labels.shape}")
    known = labels >= 0
    filled = indices[known] != NONE
    cells = (labels[known, None] * experts + indices[known])[filled]
    weights = None if weights_BK is None else np.asarray(weights_BK, dtype=np.float64)[known][filled]
    counts = np.bincount(cells, weights, minlength=classes * experts).reshape(classes, experts)
    return counts.astype(np.float64), np.bincount(labels[known], minlength=classes)


def _per_image(counts_CE: NDArray[np.float64], images_C: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts_CE / images_C[:, None])


def routing_heatmap(indices_BK: ArrayLike, labels_B: ArrayLike, classes: int, experts: int) -> NDArray[np.float64]:
    """(C, E) proportion of each class's images routed to each expert (Figure 2b); a row sums to an image's experts, K.

    Images with a negative label are left out; a class without images gives a row of NaN.

    Raises:
        ValueError: numbers of images differ, a label is not below C or an expert not below E.
    """
    return _per_image(*_counts(indices_BK, labels_B, classes, experts))


@dataclass(frozen=True)
class ClassRouting:
    """How each class is routed. Floats of a class without images are NaN.

    Attributes:
        images: (C,) number of images.
        load: (C, E) fraction of the class's images routed to each expert, 0 to 1; a row sums to K, or to the class's
            mean number of experts an image.
        weight: (C, E) mean gate of each expert over the class's images, 0 to 1; a row sums to an image's gates, 1.
        entropy: (C,) entropy of the shares of `weight` divided by log E, 0 (all on one expert) to 1 (even); 1 if E = 1.
        top_set: (C, K) the class's commonest set of experts, ascending, the first in lexicographic order of equally
            common ones; -1 without images, and in empty slots, which come first.
        top_share: (C,) fraction of the class's images routed to that set, above 0 to 1.
    """

    images: NDArray[np.int64]
    load: NDArray[np.float64]
    weight: NDArray[np.float64]
    entropy: NDArray[np.float64]
    top_set: NDArray[np.int64]
    top_share: NDArray[np.float64]


def class_routing(
    indices_BK: ArrayLike, weights_BK: ArrayLike, labels_B: ArrayLike, classes: int, experts: int
) -> ClassRouting:
    """Routing table of the classes.

    Args:
        indices_BK: chosen experts.
        weights_BK: their gates; a row sums to 1, or less.
        labels_B: class of each image; those with a negative one are left out.
        classes: C.
        experts: E.

    Raises:
        ValueError: numbers of images differ, a label is not below C or an expert not below E.
    """
    weights, images = _counts(indices_BK, labels_B, classes, experts, weights_BK)
    weight = _per_image(weights, images)
    top_set, top_count = _commonest(_sets(indices_BK), np.asarray(labels_B), classes)
    return ClassRouting(
        images=images,
        load=routing_heatmap(indices_BK, labels_B, classes, experts),
        weight=weight,
        entropy=_entropy(_shares(weight) if (np.asarray(indices_BK) == NONE).any() else weight),
        top_set=top_set,
        top_share=_per_image(top_count[:, None], images)[:, 0],
    )


def _shares(weight_CE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows divided by their sums; NaN where these are 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(weight_CE / weight_CE.sum(axis=1, keepdims=True))


def _commonest(
    sets_BK: NDArray[np.int64], labels_B: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each class's commonest set (C, K) and its number of images (C,)."""
    top_set = np.full((classes, sets_BK.shape[1]), -1)
    top_count = np.zeros(classes)
    sets, labels = sets_BK[labels_B >= 0], labels_B[labels_B >= 0]
    _, place, inverse = np.unique(_numbered(sets), return_index=True, return_inverse=True)
    pairs, counts = np.unique(labels * len(place) + inverse.ravel(), return_counts=True)
    owner, number = np.divmod(pairs, max(len(place), 1))
    order = np.lexsort((-counts, owner))  # a class's commonest set first; equals stay in the order of their numbers
    present, first = np.unique(owner[order], return_index=True)
    best = order[first]
    top_set[present] = sets[place[number[best]]]
    top_count[present] = counts[best]
    return top_set, top_count


def class_information(indices_BK: ArrayLike, labels_B: ArrayLike, classes: int, experts: int) -> float:
    """What an image's routing tells about its class: I(class; expert) / H(class), a fraction, 0 to 1.

    The expert is that of one of all images' slots that have one, picked uniformly. 0: routing says nothing about the
    class; 1: the expert determines the class.

    The estimate is biased upwards: where routing is independent of class (and uniform over sets) it is not 0 but about
    (C - 1) (E - K) / (2 B K H(class)), H in nats; 0.003 for 5,000 images, 10 classes, 2 of 16 experts. So compare
    runs at equal B, C, E and K, and small values with that number.

    Returns:
        NaN if the labelled images are of fewer than two classes. Images with a negative label are left out.

    Raises:
        ValueError: numbers of images differ, a label is not below C or an expert not below E.
    """
    counts, _ = _counts(indices_BK, labels_B, classes, experts)
    if (counts.sum(axis=1) > 0).sum() < 2:
        return float("nan")
    joint = counts / counts.sum()
    p_class, p_expert = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    information = (joint[seen] * np.log(joint[seen] / (p_class * p_expert)[seen])).sum()
    p_class = p_class[p_class > 0]
    return float(np.clip(information / -(p_class * np.log(p_class)).sum(), 0.0, 1.0))
