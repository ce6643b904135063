"""Does one division of the classes, animate against inanimate, part them more than every other division would?

A table says of every two classes how far apart they are: how well a readout tells them apart, or how distant their
images are. The contrast of a division is the mean over pairs of classes on different sides less that over pairs on the
same side. What could have come out otherwise is which classes lie on which side, so the contrast is compared with that
of all other divisions into sides of these sizes (210 for six and four).

Axes: S divisions, C classes, n images, d units.
"""

from math import floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.animacy import divisions
from probes.statistics.verdicts import ALPHA

_TIE = 1e-12
Floats = NDArray[np.float64]


class ContrastTest(NamedTuple):
    """One division against all others.

    Attributes:
        contrast_S: of every division, the one in question first, in the table's unit.
        every: all divisions are among them; else a random sample.
        p: share of the divisions with as large a contrast or a larger one.
        critical: p is at most 5% if the contrast is above this; with fewer than 20 divisions it cannot be, and this is
            the largest of the others.
    """

    contrast_S: Floats
    every: bool
    p: float
    critical: float

    @property
    def contrast(self) -> float:
        """Of the division in question."""
        return float(self.contrast_S[0])


def contrast_test(table_CC: Floats, side_C: NDArray[np.bool_], *, most: int, seed: int) -> ContrastTest:
    """Compare a division with all others of its sizes.

    Args:
        table_CC: symmetric, how far apart two classes are; NaN where undefined, the diagonal is not looked at.
        side_C: the division.
        most: so many divisions at most; else the one in question and a random sample.
        seed: of the sample.

    Raises:
        ValueError: a side is empty.
    """
    if side_C.all() or not side_C.any():
        raise ValueError("a division has two sides")
    sides_SC, every = divisions(side_C, most, seed)
    contrast_S = contrasts(table_CC, sides_SC)
    known_S = contrast_S[np.isfinite(contrast_S)]
    if not np.isfinite(contrast_S[0]):
        return ContrastTest(contrast_S, every, float("nan"), float("nan"))
    tie = _TIE * float(np.abs(known_S).max())
    others = np.sort(known_S[1:])[::-1]
    p = float((known_S >= contrast_S[0] - tie).mean())
    allowed = max(floor(ALPHA * len(known_S) + _TIE) - 1, 0)  # others that may be as large
    return ContrastTest(
        contrast_S, every, p, float(others[min(allowed, len(others) - 1)]) if len(others) else float("nan")
    )


def contrasts(table_CC: Floats, sides_SC: NDArray[np.bool_]) -> Floats:
    """Mean over pairs across less mean over pairs within, (S,); NaN where there is no pair of one kind."""
    defined_CC = np.isfinite(table_CC) & ~np.eye(len(table_CC), dtype=bool)
    values_CC = np.where(defined_CC, table_CC, 0.0)
    one_SC, other_SC = sides_SC.astype(np.float64), (~sides_SC).astype(np.float64)

    def sums(of_CC: Floats) -> tuple[Floats, Floats]:
        across_S = ((one_SC @ of_CC) * other_SC).sum(axis=1)
        return across_S, of_CC.sum() / 2 - across_S

    with np.errstate(invalid="ignore", divide="ignore"):
        (across_S, within_S), (pairs_across_S, pairs_within_S) = sums(values_CC), sums(defined_CC.astype(np.float64))
        found_S = across_S / pairs_across_S - within_S / pairs_within_S
    return np.where(np.isfinite(found_S), found_S, np.nan)


def class_distances(Z_nd: NDArray[np.floating[Any]], labels_n: NDArray[np.integer[Any]], classes: int) -> Floats:
    """Mean squared Euclidean distance between the images of two classes, over that between all classes, (C, C).

    Every two classes' block of a dissimilarity matrix of squared distances, without ever making it. Divided by the mean
    over pairs of different classes, so that experts of any scale can be averaged.

    Args:
        Z_nd: activations.
        labels_n: class of each image; negative ones are ignored.
        classes: number of classes C. Those without images are NaN.
    """
    labelled = labels_n >= 0
    Z_nd = Z_nd[labelled].astype(np.float64)
    Z_nd = Z_nd - Z_nd.mean(axis=0)
    member_Cn = (labels_n[labelled] == np.arange(classes)[:, None]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights_Cn = member_Cn / member_Cn.sum(axis=1, keepdims=True)
        mean_Cd, size_C = weights_Cn @ Z_nd, weights_Cn @ np.einsum("nd,nd->n", Z_nd, Z_nd)
        table_CC = size_C[:, None] + size_C - 2 * mean_Cd @ mean_Cd.T
        np.fill_diagonal(table_CC, np.nan)
        return np.asarray(table_CC / np.nanmean(table_CC))
