"""Animacy: does an expert answer animate things more strongly than inanimate ones?

The paper finds this to be the axis along which experts divide (Section 5) and draws it into Figure 5, without saying
which categories it counts as animate; ANIMATE is our reading. Axes: n images, B draws of a batch, E experts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.resampling import bootstrap_counts, dealt

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


def animate_classes(classes: Sequence[str], animate: Sequence[str] | None = None) -> NDArray[np.bool_] | None:
    """Whether each class is animate, or None if that is not known of all, or the same for all.

    Args:
        classes: names.
        animate: those that are animate, all others then are not; None: by ANIMATE and INANIMATE.
    """
    names = [name.strip().lower().replace("_", " ") for name in classes]
    if animate is None:
        if not set(names) <= ANIMATE | INANIMATE:
            return None
        wanted = ANIMATE
    else:
        wanted = frozenset(name.strip().lower().replace("_", " ") for name in animate)
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

    A sample without images of one kind gives NaN.
    """
    batches = bootstrap_counts(len(animate_n), draws, seed, units)
    return np.concatenate([_index(counts_Bn, scores_nE, animate_n) for counts_Bn in batches])


def animacy_null(
    scores_nE: NDArray[np.floating[Any]],
    animate_n: NDArray[np.bool_],
    *,
    draws: int,
    seed: int,
    units: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.float64]:
    """`animacy_index` (draws, E) when it is dealt at random (see `dealt`) which images, or units, are animate."""
    return np.stack([animacy_index(scores_nE, sides) for sides in dealt(animate_n, draws, seed, units)])


def _index(
    counts_Bn: NDArray[np.float64], scores_nE: NDArray[np.floating[Any]], animate_n: NDArray[np.bool_]
) -> NDArray[np.float64]:
    scores_nE = scores_nE.astype(np.float64)
    # constant columns become exact zeros, so that their variance is 0 and not a rounding error
    scores_nE = np.where(np.ptp(scores_nE, axis=0) > 0, scores_nE - scores_nE.mean(axis=0), 0.0)
    means, variances = [], []
    with np.errstate(invalid="ignore", divide="ignore"):
        for kind_n in (animate_n, ~animate_n):
            weights_Bn = counts_Bn[:, kind_n]
            total_B1 = weights_Bn.sum(axis=1, keepdims=True)
            mean_BE = weights_Bn @ scores_nE[kind_n] / total_B1
            means.append(mean_BE)
            variances.append(np.maximum(weights_Bn @ scores_nE[kind_n] ** 2 / total_B1 - mean_BE**2, 0.0))
        index_BE = (means[0] - means[1]) / np.sqrt((variances[0] + variances[1]) / 2)
    return np.asarray(np.where(np.isfinite(index_BE), index_BE, np.nan), dtype=np.float64)
