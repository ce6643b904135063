"""Animacy: does an expert answer animate things more strongly than inanimate ones?

The paper finds this to be the axis along which experts divide (Section 5) and draws it into Figure 5, without saying
which categories it counts as animate; ANIMATE is our reading. Axes: n images, B draws of a batch, S divisions
of the classes, C classes, E experts.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.constancy import constant_columns
from probes.statistics.resampling import bootstrap_counts, mean_of_defined

_TIE = 1e-12  # relative: values so close are equal but for rounding

ANIMATE = frozenset({
    "bird", "cat", "deer", "dog", "horse", "monkey", "frog",  # STL-10, CIFAR-10
    "animal", "insect", "body part",  # THINGS; body parts are animate in the literature on animacy
})  # fmt: skip
INANIMATE = frozenset({
    "airplane", "automobile", "car", "ship", "truck",
    "clothing", "clothing accessory", "container", "dessert", "drink", "electronic device", "food", "fruit",
    "furniture", "home decor", "kitchen appliance", "kitchen tool", "medical equipment", "musical instrument",
    "office supply", "part of car", "plant", "sports equipment", "tool", "toy", "vegetable", "vehicle", "weapon",
})  # fmt: skip


def plain_name(name: str) -> str:
    """A class's name as it is compared: THINGS and STL-10 write the same words differently."""
    return name.strip().lower().replace("_", " ")


def animate_classes(classes: Sequence[str], animate: Sequence[str] | None = None) -> NDArray[np.bool_] | None:
    """Whether each class is animate, or None if that is not known of all, or the same for all.

    Args:
        classes: names.
        animate: those that are animate, all others then are not; None: by ANIMATE and INANIMATE.
    """
    names = [plain_name(name) for name in classes]
    if animate is None:
        if not set(names) <= ANIMATE | INANIMATE:
            return None
        wanted = ANIMATE
    else:
        wanted = frozenset(plain_name(name) for name in animate)
    result = np.array([name in wanted for name in names], np.bool_)
    return result if result.any() and not result.all() else None


def animacy_index(scores_nE: NDArray[np.floating[Any]], animate_n: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Difference between the mean responses to animate and inanimate images, in standard deviations (d').

    (mean_a - mean_i) / sqrt((var_a + var_i) / 2), population variances. 0: none; above 0: animate images excite more.

    Args:
        scores_nE: responses, in any unit.
        animate_n: which images are animate.

    Returns:
        (E,); NaN where the responses are constant within both kinds.

    Raises:
        ValueError: one kind has no image.
    """
    if animate_n.all() or not animate_n.any():
        raise ValueError("both animate and inanimate images are needed")
    index_E: NDArray[np.float64] = _index(np.ones((1, len(animate_n))), scores_nE, animate_n)[0]
    return index_E


def bootstrap_animacy(
    scores_nE: NDArray[np.floating[Any]],
    animate_n: NDArray[np.bool_],
    *,
    draws: int,
    seed: int,
    units: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.float64]:
    """`animacy_index` (draws, E) of bootstrap samples of the images, or of units of them (see `bootstrap_counts`).

    Their spread is that over more images of the same classes, not over other classes. A sample without
    images of one kind gives NaN.
    """
    batches = bootstrap_counts(len(animate_n), draws, seed, units)
    return np.concatenate([_index(counts_Bn, scores_nE, animate_n) for counts_Bn in batches])


class SplitTest(NamedTuple):
    """Animacy against every other way to divide the same classes into two kinds of the same sizes.

    Attributes:
        index_SE: `animacy_index` under each division, the true one first.
        every: all divisions are among them; else they are a random sample.
        p: of the mean |index| over experts.
        p_E: of each expert's |index| alone.
        p_adjusted_E: the same allowing for all experts (Westfall and Young 1993: the smallest p of each division).
    """

    index_SE: NDArray[np.float64]
    every: bool
    p: float
    p_E: NDArray[np.float64]
    p_adjusted_E: NDArray[np.float64]

    @property
    def sizes_S(self) -> NDArray[np.float64]:
        """Mean |index| over experts of each division."""
        return mean_of_defined(np.abs(self.index_SE))


def animacy_test(
    scores_nE: NDArray[np.floating[Any]],
    labels_n: NDArray[np.integer[Any]],
    animate_C: NDArray[np.bool_],
    *,
    most: int,
    seed: int,
) -> SplitTest:
    """Is animacy what divides the classes, more than another division of them would?

    Classes differ in many ways, and images of a class are answered alike for all of them. Any division of ten classes
    into six and four therefore shows a difference that no dealing of images reaches. What is exchangeable without
    animacy are the classes, so they are dealt: the result is about classes that one might have chosen, not about more
    images of these. With few divisions p cannot be small: of 4 classes, 2 animate, it is 1/3 at least.

    Args:
        scores_nE: responses, in any unit.
        labels_n: class of each image, none negative.
        animate_C: which classes are animate; those without images do not count.
        most: so many divisions at most; all where there are no more, else the true one and a random sample.
        seed: of the sample.

    Raises:
        ValueError: one kind has no image.
    """
    classes, code_n = np.unique(labels_n, return_inverse=True)
    side_C = animate_C[classes]
    if side_C.all() or not side_C.any():
        raise ValueError("both animate and inanimate images are needed")
    sides_SC, every = divisions(side_C, most, seed)
    index_SE = _index_of_divisions(scores_nE, code_n, sides_SC)
    sizes_SE = np.abs(index_SE)
    p_SE = _share_as_large(sizes_SE)
    smallest_S = np.min(p_SE, axis=1, initial=np.inf, where=np.isfinite(p_SE))
    adjusted_E = (smallest_S[:, None] <= p_SE[0] * (1 + _TIE)).mean(axis=0)
    return SplitTest(
        index_SE, every, float(_share_as_large(mean_of_defined(sizes_SE)[:, None])[0, 0]), p_SE[0],
        np.where(np.isfinite(p_SE[0]), adjusted_E, np.nan),
    )  # fmt: skip


def divisions(side_C: NDArray[np.bool_], most: int, seed: int) -> tuple[NDArray[np.bool_], bool]:
    """Divisions (S, C) of the classes into kinds of the same sizes, the true one first, and whether they are all."""
    C, animate = len(side_C), int(side_C.sum())
    every = comb(C, animate) <= most
    if every:
        sides_SC = np.zeros((comb(C, animate), C), np.bool_)
        np.put_along_axis(sides_SC, np.array(list(combinations(range(C), animate))), True, axis=1)
        others_SC = sides_SC[(sides_SC != side_C).any(axis=1)]
    else:
        rng = np.random.default_rng(seed)
        others_SC = rng.permuted(np.tile(side_C, (max(most, 1) - 1, 1)), axis=1)
    return np.concatenate([side_C[None], others_SC]), every


def _index_of_divisions(
    scores_nE: NDArray[np.floating[Any]], code_n: NDArray[np.intp], sides_SC: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """`animacy_index` (S, E) of each division, from the sums of each class."""
    scores_nE = np.where(constant_columns(scores_nE), 0.0, scores_nE - scores_nE.mean(axis=0, dtype=np.float64))
    member_Cn = (code_n == np.arange(sides_SC.shape[1])[:, None]).astype(np.float64)
    count_C, sum_CE, squares_CE = member_Cn.sum(axis=1), member_Cn @ scores_nE, member_Cn @ scores_nE**2
    kinds = [_moments(side_SC @ squares_CE, side_SC @ sum_CE, (side_SC @ count_C)[:, None])
             for side_SC in (sides_SC.astype(np.float64), (~sides_SC).astype(np.float64))]  # fmt: skip
    return _d_prime(*kinds)


def _share_as_large(values_SE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each value, the share of its column's that are as large or larger, itself included; NaN for NaN."""
    share_SE = np.full(values_SE.shape, np.nan)
    for column, values_S in enumerate(values_SE.T):
        finite = np.isfinite(values_S)
        ordered = np.sort(values_S[finite])
        below = np.searchsorted(ordered, values_S[finite] * (1 - _TIE))
        share_SE[finite, column] = (len(ordered) - below) / max(len(ordered), 1)
    return share_SE


def _index(
    counts_Bn: NDArray[np.float64], scores_nE: NDArray[np.floating[Any]], animate_n: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """`animacy_index` (B, E) of samples that hold each image so many times."""
    kinds = []
    for kind_n in (animate_n, ~animate_n):
        part_nE = scores_nE[kind_n].astype(np.float64)
        # around the kind's own mean, where a constant column is 0 exactly
        centre_E = part_nE.mean(axis=0)
        part_nE = np.where(constant_columns(scores_nE[kind_n]), 0.0, part_nE - centre_E)
        weights_Bn = counts_Bn[:, kind_n]
        mean_BE, variance_BE = _moments(
            weights_Bn @ part_nE**2, weights_Bn @ part_nE, weights_Bn.sum(axis=1, keepdims=True)
        )
        kinds.append((mean_BE + centre_E, variance_BE))
    return _d_prime(*kinds)


def _moments(
    squares_BE: NDArray[np.float64], sums_BE: NDArray[np.float64], count_B1: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and population variances from sums; a variance that is rounding of the squares is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_BE, square_BE = sums_BE / count_B1, squares_BE / count_B1
        variance_BE = square_BE - mean_BE**2
    return mean_BE, np.where(variance_BE <= _TIE * square_BE, 0.0, variance_BE)


def _d_prime(
    a: tuple[NDArray[np.float64], NDArray[np.float64]], b: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Difference of means in units of the pooled standard deviation; NaN without any."""
    with np.errstate(invalid="ignore", divide="ignore"):
        index = (a[0] - b[0]) / np.sqrt((a[1] + b[1]) / 2)
    return np.asarray(np.where(np.isfinite(index), index, np.nan), dtype=np.float64)
