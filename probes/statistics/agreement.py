"""Do clusters of experts survive another measure of similarity?

Axes: N experts, M measures.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from probes.statistics.similarity import Clusters, cluster

Key = TypeVar("Key")


class Agreement(NamedTuple, Generic[Key]):
    """Clusterings of the same experts by several measures.

    Attributes:
        clusters: by measure, as many clusters as its own silhouette prefers.
        rand_MM: adjusted Rand index (Hubert and Arabie 1985) of every two: 1 the same, 0 as alike as random ones.
        rand_same_k_M: that with the first, cut into as many clusters as the first has.
    """

    clusters: dict[Key, Clusters]
    rand_MM: NDArray[np.float64]
    rand_same_k_M: NDArray[np.float64]


def clusters_by_measure(similarities: Mapping[Key, NDArray[np.float64]]) -> Agreement[Key]:
    """Cluster by each measure and compare; the first one is the yardstick.

    Args:
        similarities: (N, N) by measure, finite, of three experts or more.
    """
    found = {key: cluster(similarity_NN) for key, similarity_NN in similarities.items()}
    first = next(iter(found.values()))
    same_k = [cluster(similarity_NN, [first.k]).labels for similarity_NN in similarities.values()]
    labels: Sequence[NDArray[np.int64]] = [one.labels for one in found.values()]
    rand_MM = np.array([[adjusted_rand_score(a, b) for b in labels] for a in labels], np.float64)
    rand_same_k_M = np.array([adjusted_rand_score(first.labels, other) for other in same_k], np.float64)
    return Agreement(found, rand_MM, rand_same_k_M)
