"""Representations as vectors over pairs of images; how alike two are is the cosine of theirs.

- Spearman's correlation of two dissimilarity matrices is the cosine of their centred ranks (Appendix A.4).
- Linear CKA (Kornblith et al. 2019), with the unbiased estimate of HSIC (Song et al. 2012) in place of the biased one,
  which is far above 0 by chance where units are many, is the cosine of U-centred Gram matrices off their diagonals
  (Székely and Rizzo 2014).

So both are compared, permuted and averaged by the same code. Experts are worked on side by side, a thread each.

Axes: n images, d units (may differ between experts), N experts, P = n (n - 1) / 2 pairs of images, row by row.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from probes.statistics.similarity import ranked_rdm

Distance = Literal["euclidean", "correlation", "unit_length"]
Measure = Literal["spearman", "cka", "procrustes"]
Progress = Callable[[int, int], None]
DISTANCES: tuple[Distance, ...] = ("euclidean", "correlation", "unit_length")
MEASURES: tuple[Measure, ...] = ("spearman", "cka", "procrustes")
MIN_IMAGES = 4  # the unbiased estimate divides by n - 3

Given = TypeVar("Given")
Found = TypeVar("Found")


def side_by_side(
    work: Callable[[Given], Found], given: Sequence[Given], progress: Progress | None = None
) -> list[Found]:
    """`[work(each) for each in given]`, as many at a time as there are cores for this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    done = []
    with ThreadPoolExecutor(min(cores, max(len(given), 1))) as pool:
        for found in pool.map(work, given):
            done.append(found)
            if progress is not None:
                progress(len(done), len(given))
    return done


def placed(Z_nd: NDArray[np.floating[Any]], distance: Distance) -> NDArray[np.float64]:
    """Readouts moved so that Euclidean distances between them are, or rank as, the distance asked for.

    Args:
        Z_nd: (n, d) readouts.
        distance: "euclidean" leaves them as they are. "unit_length" divides each by its norm, so that what is left is
            its direction (distances rank as 1 - cosine). "correlation" takes its mean over units away first (they rank
            as 1 - Pearson's correlation). A readout of length 0 stays where it is.
    """
    X_nd = Z_nd.astype(np.float64)
    if distance == "euclidean":
        return X_nd
    if distance == "correlation":
        X_nd -= X_nd.mean(axis=1, keepdims=True)
    length_n1 = np.linalg.norm(X_nd, axis=1, keepdims=True)
    return np.asarray(X_nd / np.where(length_n1 == 0, 1.0, length_n1))


def gram_vector(X_nd: NDArray[np.float64]) -> NDArray[np.float32]:
    """U-centred Gram matrix (P,) of the readouts, above its diagonal, of length 1; 0 throughout for equal readouts.

    Its scalar product with another is the unbiased estimate of HSIC (Song et al. 2012, Equation 4) but for a factor of
    n (n - 3) / 2, so their cosine is linear CKA.

    Raises:
        ValueError: there are fewer than four images.
    """
    n = len(X_nd)
    if n < MIN_IMAGES:
        raise ValueError(f"CKA needs {MIN_IMAGES} images, got {n}")
    X_nd = X_nd - X_nd.mean(axis=0)
    K_nn = X_nd @ X_nd.T
    np.fill_diagonal(K_nn, 0.0)
    sums_n = K_nn.sum(axis=0)
    shift_n = sums_n / (n - 2) - sums_n.sum() / (2 * (n - 1) * (n - 2))
    K_nn -= shift_n
    K_nn -= shift_n[:, None]
    u_P = K_nn[above_diagonal(n)]
    length = np.linalg.norm(u_P)
    return np.zeros(len(u_P), np.float32) if length == 0 else (u_P / length).astype(np.float32)


@lru_cache(maxsize=2)
def above_diagonal(n: int) -> NDArray[np.bool_]:
    """(n, n), true above the diagonal: takes a matrix to its vector. Not to be written to."""
    return np.triu(np.ones((n, n), np.bool_), k=1)


def square(vector_P: NDArray[np.floating[Any]], n: int) -> NDArray[np.float32]:
    """The symmetric matrix (n, n) of a vector over pairs, 0 on its diagonal."""
    matrix_nn = np.zeros((n, n), np.float32)
    matrix_nn[above_diagonal(n)] = vector_P
    matrix_nn += matrix_nn.T
    return matrix_nn


def pair_vectors(
    readouts: Sequence[NDArray[np.floating[Any]]],
    distance: Distance,
    measure: Measure,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The vectors of N experts: `correlations` of them are their similarities, `compare` sets them beside others.

    Kept as float32, N x P numbers: 1.1 GB with 160 experts and 1,854 images.

    Args:
        readouts: N arrays (n, d_i) to the same n images in the same order.
        distance: between readouts, see `placed`.
        measure: "spearman" or "cka".
        progress: called with (done, total) experts.

    Returns:
        (N, P) vectors, 0 throughout for an expert without a geometry: all its distances are equal.
    """
    n = len(readouts[0])
    vectors_NP = np.empty((len(readouts), n * (n - 1) // 2), np.float32)

    def fill(place: int) -> None:
        vectors_NP[place] = pair_vector(readouts[place], distance, measure)

    side_by_side(fill, range(len(readouts)), progress)
    return vectors_NP


def pair_vector(Z_nd: NDArray[np.floating[Any]], distance: Distance, measure: Measure) -> NDArray[np.float32]:
    """The vector (P,) of one representation, see `pair_vectors`."""
    X_nd = placed(Z_nd, distance)
    return ranked_rdm(X_nd) if measure == "spearman" else gram_vector(X_nd)
