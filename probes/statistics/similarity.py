"""Representational similarity: which experts, of any run, arrange the same images alike.

Source: Section "Representational Stability Across Instantiations" (Figures 6 and S3), Appendix A.4.

Axes: n images, d readout units (may differ between experts), N experts, P = n (n - 1) / 2 pairs of images.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import smacof
from threadpoolctl import ThreadpoolController

from probes.statistics.constancy import is_constant

_BLOCK = 8192  # pairs of images multiplied at a time in double precision
_MIN_EXPERTS = 3  # the silhouette needs 2 clusters and one fewer than there are experts
_MIN_CLUSTERS = 2
_MIN_IMAGES = 2
_KEYS = 2**31 - 1


def euclidean_rdm(Z_nd: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the Euclidean distance of every pair of images (Appendix A.4).

    Exact: from differences, not from scalar products, which lose the small distances to rounding.

    Args:
        Z_nd: (n, d) activations of one expert, n of at least 2.

    Returns:
        (P,) upper triangle of the dissimilarity matrix, row by row, in units of the activation.

    Raises:
        ValueError: `Z_nd` is not a matrix of at least two rows, or not finite.

    """
    if Z_nd.ndim != 2 or len(Z_nd) < _MIN_IMAGES:
        raise ValueError(f"activations must be (n, d), n at least {_MIN_IMAGES}, got shape {Z_nd.shape}")
    bad = np.flatnonzero(~np.isfinite(Z_nd).all(axis=1))
    if bad.size:
        raise ValueError(f"activations are not finite in {bad.size} images, rows {bad[:10].tolist()}")
    return pdist(Z_nd.astype(np.float64), "euclidean")


def second_order(
    readouts: Sequence[NDArray[np.floating[Any]]], *, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float64]:
    """Return the Spearman correlation between the Euclidean dissimilarity matrices of N experts.

    Each dissimilarity matrix is ranked once (ties get their mean rank); all correlations are then one matrix product,
    in double precision and in blocks. In between, ranks are kept as float32, which holds them exactly up to 2^24 pairs
    (5,793 images) and to 1e-7 beyond: N x P numbers, for the paper's 1,854 images 0.27 GB with 40 experts and 1.1 GB
    with 160.

    Args:
        readouts: N arrays (n, d_i) of activations to the same n images in the same order; d_i may differ.
        progress: called with (done, total) experts.

    Returns:
        (N, N) symmetric, in [-1, 1], with 1 on the diagonal; of a single expert, [[1]]. The row and column of an expert
        whose distances are all equal are NaN, its diagonal included: a dead expert, which answers all images alike (to
        within rounding in the readout's own type), has no geometry.

    Raises:
        ValueError: there are no readouts, they differ in the number of images, or one is not a finite matrix
            of two images or more.

    """
    return correlations(ranked_rdms(readouts, progress=progress))


def ranked_rdms(
    readouts: Sequence[NDArray[np.floating[Any]]], *, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """Return the ranks of every expert's dissimilarities, less their mean: all that `second_order` needs of them.

    Arguments and errors are those of `second_order`.

    Returns:
        (N, P) mean ranks of the pairs of images, centred; 0 throughout for a dead expert.

    """
    if not readouts:
        raise ValueError("no readouts were given")
    n = len(readouts[0])
    ranks_NP = np.empty((len(readouts), n * (n - 1) // 2), dtype=np.float32)
    for expert, Z_nd in enumerate(readouts):
        if len(Z_nd) != n:
            raise ValueError(f"readout {expert} has {len(Z_nd)} images, readout 0 has {n}")
        try:
            ranks_NP[expert] = ranked_rdm(Z_nd)
        except ValueError as error:
            raise ValueError(f"readout {expert}: {error}") from error
        if progress is not None:
            progress(expert + 1, len(readouts))
    return ranks_NP


def ranked_rdm(Z_nd: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Centred ranks (P,) of the Euclidean distances of one expert's readouts; 0 throughout if it is dead."""
    rdm_P = euclidean_rdm(Z_nd)
    return np.zeros(len(rdm_P), np.float32) if _flat(rdm_P, Z_nd) else centred_ranks(rdm_P)


def _flat(rdm_P: NDArray[np.float64], Z_nd: NDArray[np.floating[Any]]) -> bool:
    """All distances are equal, or differ by rounding alone since the images are answered alike."""
    return is_constant(Z_nd) or bool(np.ptp(rdm_P) == 0)


def centred_ranks(values_P: NDArray[np.float64]) -> NDArray[np.float32]:
    """Ranks (P,) less their mean, multiples of one half; tied values share the mean of their ranks.

    Exact, in a third of the time of `argsort`: torch sorts whole numbers by radix, here the values to within 2^-31 of
    their range, and what is equal then is sorted once more.
    """
    low, range_of = values_P.min(), np.ptp(values_P)
    scale = _KEYS / range_of if 1e-290 < range_of < np.inf else 0.0
    with _libraries().limit(limits=1, user_api="openmp"):  # threads that share a sort wait more than they gain
        keys, order = torch.sort(torch.from_numpy(((values_P - low) * scale).astype(np.int32)))
    keys_P, order_P, P = keys.numpy(), order.numpy(), len(values_P)
    sorted_P = np.arange(P, dtype=np.float64) - (P - 1) / 2
    same = keys_P[1:] == keys_P[:-1]
    if same.any():
        places = np.flatnonzero(np.append(same, False) | np.append(False, same))
        close = order_P[places]
        within = np.lexsort((values_P[close], keys_P[places]))
        order_P[places] = close[within]
        values = values_P[close[within]]
        first = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        count = np.diff(np.append(first, len(places)))
        sorted_P[places] = np.repeat(sorted_P[places[first]] + (count - 1) / 2, count)
    ranks_P = np.empty(P, dtype=np.float32)
    ranks_P[order_P] = sorted_P
    return ranks_P


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def correlations(centred_NP: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson correlations (N, N) of centred rows, such as `ranked_rdms` gives; NaN for rows of zeros."""
    product_NN = np.zeros((len(centred_NP), len(centred_NP)))
    for start in range(0, centred_NP.shape[1], _BLOCK):
        block_NP = centred_NP[:, start : start + _BLOCK].astype(np.float64)
        product_NN += block_NP @ block_NP.T
    length_N = np.sqrt(product_NN.diagonal())
    length_N[length_N == 0] = np.nan
    similarity_NN = np.clip(product_NN / np.outer(length_N, length_N), -1.0, 1.0)
    defined = ~np.isnan(length_N)
    similarity_NN[defined, defined] = 1.0
    return np.asarray(similarity_NN, dtype=np.float64)


@dataclass(frozen=True)
class Clusters:
    """Clustering of N experts.

    Attributes:
        k: the number of clusters with the highest silhouette; ties go to the smallest.
        labels: (N,) cluster of each expert, 0 to k - 1, numbered by first appearance.
        silhouette: mean silhouette, in [-1, 1], of every number of clusters that was tried (Figure S3).

    """

    k: int
    labels: NDArray[np.int64]
    silhouette: dict[int, float]


def cluster(similarity_NN: NDArray[np.float64], k_range: Iterable[int] = range(2, 16)) -> Clusters:
    """Cluster experts by average linkage on 1 - similarity, as many clusters as maximise the silhouette.

    Args:
        similarity_NN: (N, N) symmetric similarity, N of at least 3, such as `second_order` gives.
        k_range: numbers of clusters to try; those above N - 1 are left out, having no silhouette.

    Returns:
        The `Clusters`.

    Raises:
        ValueError: the similarity is not finite (the message names the rows to leave out first), not
            symmetric or smaller than 3 x 3; or a number of clusters to try lies below 2, or all of them
            above N - 1.

    """
    _check_square(similarity_NN, "similarity")
    N = len(similarity_NN)
    if N < _MIN_EXPERTS:
        raise ValueError(f"at least {_MIN_EXPERTS} experts are needed to cluster them, got {N}")
    asked = sorted(set(k_range))
    tried = [k for k in asked if k <= N - 1]
    if not tried or tried[0] < _MIN_CLUSTERS:
        raise ValueError(f"numbers of clusters must lie within {_MIN_CLUSTERS} to {N - 1}, got {asked}")
    # Rounding can lift a similarity above 1, and a distance must not be negative.
    distance_NN = np.maximum(1.0 - (similarity_NN + similarity_NN.T) / 2, 0.0)
    np.fill_diagonal(distance_NN, 0.0)
    tree = linkage(squareform(distance_NN), method="average")
    labels = _cuts(tree, set(tried))
    silhouette = {k: _mean_silhouette(distance_NN, labels[k]) for k in tried}
    best = max(tried, key=silhouette.__getitem__)  # the first maximum, so the smallest k
    return Clusters(best, labels[best], silhouette)


def _cuts(tree: NDArray[np.float64], wanted: set[int]) -> dict[int, NDArray[np.int64]]:
    """The labels at each wanted number of clusters; numbered by first appearance.

    As scipy's `cut_tree`, with one pass for all numbers: k clusters even where merges are tied, unlike `fcluster`.
    """
    N = len(tree) + 1
    node_N = np.arange(N)
    found = {}
    for merge, (one, other) in enumerate(tree[:, :2].astype(np.intp).tolist()):
        node_N[(node_N == one) | (node_N == other)] = N + merge
        if (k := N - 1 - merge) in wanted:
            _, first, labels_N = np.unique(node_N, return_index=True, return_inverse=True)
            found[k] = np.argsort(np.argsort(first))[labels_N].astype(np.int64)
    return found


def _mean_silhouette(distance_NN: NDArray[np.float64], labels_N: NDArray[np.int64]) -> float:
    """Mean over points of (b - a) / max(a, b): a the mean distance within, b to the nearest other cluster; alone 0."""
    member_NK = (labels_N[:, None] == np.arange(labels_N.max() + 1)).astype(np.float64)
    size_K = member_NK.sum(axis=0)
    sums_NK = distance_NN @ member_NK
    points, own_N = np.arange(len(labels_N)), size_K[labels_N]
    within_N = sums_NK[points, labels_N] / np.maximum(own_N - 1, 1)
    means_NK = sums_NK / size_K
    means_NK[points, labels_N] = np.inf
    nearest_N = means_NK.min(axis=1)
    larger_N = np.maximum(within_N, nearest_N)
    apart_N = np.where((own_N > 1) & (larger_N > 0), nearest_N - within_N, 0.0)
    return float((apart_N / np.where(larger_N > 0, larger_N, 1.0)).mean())


def classical_mds(dissimilarity_NN: NDArray[np.float64], dimensions: int = 2) -> NDArray[np.float64]:
    """Place N points so that their distances approximate the dissimilarities (Torgerson's classical scaling).

    Deterministic: in every dimension the entry of largest magnitude (the first of equals) is positive. Axes
    of equal variance stay free to rotate into each other.

    Args:
        dissimilarity_NN: (N, N) symmetric dissimilarities with a zero diagonal.
        dimensions: number of dimensions, at most N.

    Returns:
        (N, dimensions) coordinates, centred, in units of the dissimilarity, by descending variance.
        Dimensions that would have a negative variance (the dissimilarities are not Euclidean) are 0.

    Raises:
        ValueError: the dissimilarities are not finite, symmetric and zero on the diagonal, or `dimensions`
            does not lie within 1 to N.

    """
    _check_dissimilarity(dissimilarity_NN)
    N = len(dissimilarity_NN)
    if not 1 <= dimensions <= N:
        raise ValueError(f"dimensions must lie within 1 to {N}, got {dimensions}")
    squared_NN = dissimilarity_NN**2
    centred_NN = squared_NN - squared_NN.mean(axis=0) - squared_NN.mean(axis=1)[:, None] + squared_NN.mean()
    variance, axes = np.linalg.eigh(-centred_NN / 2)
    variance, axes = variance[::-1][:dimensions], axes[:, ::-1][:, :dimensions]
    points = axes * np.sqrt(np.maximum(variance, 0.0))
    size = np.abs(points)
    # Entries that are equal but for rounding count as equal, or the sign would depend on the machine.
    largest = np.argmax(size >= size.max(axis=0) * (1 - 1e-9), axis=0)
    sign = np.where(points[largest, np.arange(dimensions)] < 0, -1.0, 1.0)
    return np.asarray(points * sign, dtype=np.float64)


def mds(dissimilarity_NN: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Place N points in the plane by metric multidimensional scaling (SMACOF), as in Figure 6a.

    It starts at the classical solution, so the result is reproducible and keeps that solution's orientation.

    Args:
        dissimilarity_NN: (N, N) symmetric dissimilarities with a zero diagonal, N of at least 2.
        seed: handed to scikit-learn, which draws no random numbers when it is given a start.

    Returns:
        (N, 2) coordinates in units of the dissimilarity.

    Raises:
        ValueError: the dissimilarities are not finite, symmetric and zero on the diagonal.

    """
    start = classical_mds(dissimilarity_NN)
    if not dissimilarity_NN.any():
        return start  # all points coincide, which SMACOF would divide by
    points, _ = smacof(dissimilarity_NN, init=start, n_init=1, random_state=seed)
    return np.asarray(points, dtype=np.float64)


def _check_dissimilarity(dissimilarity_NN: NDArray[np.float64]) -> None:
    _check_square(dissimilarity_NN, "dissimilarity")
    if dissimilarity_NN.diagonal().any():
        raise ValueError("dissimilarity must be 0 on the diagonal")


def _check_square(matrix_NN: NDArray[np.float64], name: str) -> None:
    """Raise ValueError unless the matrix is square, finite and symmetric."""
    if matrix_NN.shape != matrix_NN.shape[:1] * 2:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix_NN.shape}")
    bad = _rows_to_leave_out(~np.isfinite(matrix_NN))
    if bad:
        raise ValueError(f"{name} is not finite: leave out rows and columns {bad} first")
    if not np.allclose(matrix_NN, matrix_NN.T):
        raise ValueError(f"{name} must be symmetric")


def _rows_to_leave_out(bad_NN: NDArray[np.bool_]) -> list[int]:
    """Rows that hold all bad entries: those bad on the diagonal (dead experts), then the worst others."""
    out = set(np.flatnonzero(bad_NN.diagonal()).tolist())
    rest_NN = bad_NN.copy()
    rest_NN[list(out)] = rest_NN[:, list(out)] = False
    while rest_NN.any():
        worst = int((rest_NN | rest_NN.T).sum(axis=1).argmax())
        rest_NN[worst] = rest_NN[:, worst] = False
        out.add(worst)
    return sorted(out)
