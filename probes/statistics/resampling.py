"""Permutation nulls and bootstrap intervals: how large a number may be by chance, and how far it would move.

Axes: n images (or whatever is sampled), B draws of a batch, E experts.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_ROUNDING = 1e-12
_BATCH = 4_000_000  # counts held at once, 32 MB


class Interval(NamedTuple):
    """A percentile interval."""

    low: float
    high: float


def interval(draws: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The central part of bootstrap draws (b,); NaN draws are left out, NaN without any other (percentile method)."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def p_value(observed: float, null: NDArray[np.float64], *, rounding: float = _ROUNDING) -> float:
    """One-sided permutation p: (1 + draws that reach the observed value) / (1 + draws).

    The observed order counts as one of the draws, so p is never 0. A draw that falls short by rounding alone, relative
    to the larger of the value and 1, reaches it. Draws that are NaN say nothing and are left out; NaN if the observed
    value is, or no draw is left.
    """
    finite = null[np.isfinite(null)]
    if not np.isfinite(observed) or not len(finite):
        return float("nan")
    tie = rounding * max(abs(observed), 1.0)
    return float((1 + (finite >= observed - tie).sum()) / (1 + len(finite)))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values of a family of tests, adjusted so that one or more false ones occur as rarely as the level says.

    Step-down (Holm 1979), whatever the dependence between the tests. NaN stays NaN and is no test.
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN come last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def bootstrap_counts(
    n: int, draws: int, seed: int, units: NDArray[np.integer[Any]] | None = None
) -> Iterator[NDArray[np.float64]]:
    """How often each image is in a bootstrap sample, in batches (B, n) of `draws` samples in all.

    Args:
        n: number of images.
        draws: number of samples.
        seed: of the random numbers; the batches' size does not matter.
        units: (n,) what was sampled, e.g. concepts, numbered from 0; whole units are drawn then, with replacement, as
            many as there are. None: every image is its own unit.
    """
    rng = np.random.default_rng(seed)
    m = n if units is None else int(units.max()) + 1
    step = max(1, _BATCH // max(n, m))
    for start in range(0, draws, step):
        counts = rng.multinomial(m, np.full(m, 1 / m), size=min(step, draws - start)).astype(np.float64)
        yield counts if units is None else counts[:, units]


def dealt(
    labels_n: NDArray[Any], draws: int, seed: int, units: NDArray[np.integer[Any]] | None = None
) -> Iterator[NDArray[Any]]:
    """The labels (n,) dealt to the images at random, `draws` times.

    Args:
        labels_n: labels of any kind.
        draws: number of permutations.
        seed: of the permutations.
        units: (n,) groups of images, numbered from 0, e.g. concepts. If each has one label, labels are dealt to them
            and not to images, since images of one concept are answered alike whatever its label. None: to images.
    """
    rng = np.random.default_rng(seed)
    places = np.arange(len(labels_n)) if units is None else units
    first = np.unique(places, return_index=True)[1]
    if (labels_n[first][places] != labels_n).any():  # a unit with several labels
        places, first = np.arange(len(labels_n)), np.arange(len(labels_n))
    for _ in range(draws):
        yield rng.permutation(labels_n[first])[places]


def matched_null(matrix_EE: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Mean of a matrix's diagonal when its columns are paired with its rows at random, (draws,).

    Undefined entries are left out of a mean.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(matrix_EE))
    picked = np.stack([matrix_EE[rows, rng.permutation(len(rows))] for _ in range(draws)])
    return mean_of_defined(picked)


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of the finite values, NaN where there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    total = np.where(finite, values, 0.0).sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), dtype=np.float64)
