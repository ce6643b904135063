"""How far do clusters of experts depend on the images that were shown?

Axes: n images, N experts.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from probes.statistics.similarity import cluster, second_order


class Stability(NamedTuple):
    """Clusterings on parts of the images against the one on all.

    Attributes:
        rand: (draws,) adjusted Rand index, 1: the same clusters, 0: as alike as random ones.
        k: (draws,) number of clusters chosen.
        together_NN: share of draws in which two experts were in one cluster.
    """

    rand: NDArray[np.float64]
    k: NDArray[np.int64]
    together_NN: NDArray[np.float64]


def subsampled(
    readouts: Sequence[NDArray[np.floating[Any]]], *, draws: int, seed: int, fraction: float = 0.5
) -> Iterator[NDArray[np.float64]]:
    """`second_order` (N, N) on random parts of the images, drawn without replacement.

    Without, because an image that is drawn twice has a distance of 0 to itself, which a dissimilarity matrix of
    different images does not have.

    Args:
        readouts: N arrays (n, d_i), as for `second_order`.
        draws: number of parts.
        seed: of the draws.
        fraction: size of a part, at least 3 images.
    """
    rng = np.random.default_rng(seed)
    n = len(readouts[0])
    size = min(n, max(3, round(fraction * n)))
    for _ in range(draws):
        rows = np.sort(rng.choice(n, size, replace=False))
        yield second_order([readout[rows] for readout in readouts])


def cluster_stability(parts: Sequence[NDArray[np.float64]], labels_N: NDArray[np.int64]) -> Stability:
    """Cluster every part's similarity anew, the number of clusters included, and compare with the labels on all.

    Args:
        parts: (N, N) similarities; those that are not finite, an expert being constant on them, are left out.
        labels_N: clusters on all images.
    """
    rand, ks, together_NN = [], [], np.zeros((len(labels_N), len(labels_N)))
    for similarity_NN in parts:
        if not np.isfinite(similarity_NN).all():
            continue
        found = cluster(similarity_NN)
        rand.append(float(adjusted_rand_score(labels_N, found.labels)))
        ks.append(found.k)
        together_NN += found.labels[:, None] == found.labels
    with np.errstate(invalid="ignore"):
        return Stability(
            np.array(rand), np.array(ks, np.int64), together_NN / len(rand) if rand else together_NN * np.nan
        )
