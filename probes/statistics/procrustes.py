"""Procrustes: how well one representation can be rotated into another (Williams et al. 2021).

With columns centred and all of a representation scaled to length 1, the largest scalar product over rotations and
reflections is the sum of the singular values of X'Y, the cosine of Williams et al.'s angular distance: 1 for equal
shapes. It is above 0 by chance, the more so the more units there are for the images. The smaller of two
representations is thought filled up with units that are always 0.

Axes: n images, d units, N experts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.pair_vectors import side_by_side
from probes.statistics.references import permutations_of

Floats = NDArray[np.float64]


def shape_of(X_nd: NDArray[np.floating[Any]]) -> Floats:
    """Readouts with columns centred and length 1 in all; 0 throughout if all are equal."""
    C_nd = X_nd - X_nd.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(C_nd)
    return np.asarray(C_nd / length if length > 0 else C_nd)


def procrustes(X_nd: Floats, Y_nk: Floats) -> float:
    """Similarity in [0, 1] of two `shape_of`; NaN if one of them is 0."""
    found = float(np.linalg.svd(X_nd.T @ Y_nk, compute_uv=False).sum())
    return min(found, 1.0) if X_nd.any() and Y_nk.any() else float("nan")


def procrustes_influence(X_nd: Floats, Y_nk: Floats) -> tuple[float, Floats]:
    """`procrustes`, and its derivative (n,) with respect to each image's weight, times n; they sum to 0.

    The derivative of the sum of singular values of M = U S V' is UV'.
    """
    U, S, Vt = np.linalg.svd(X_nd.T @ Y_nk, full_matrices=False)
    value = float(S.sum())
    if not (X_nd.any() and Y_nk.any()):
        return float("nan"), np.full(len(X_nd), np.nan)
    along_n = np.einsum("nr,nr->n", X_nd @ U, Y_nk @ Vt.T)
    size_n = np.einsum("nd,nd->n", X_nd, X_nd) + np.einsum("nk,nk->n", Y_nk, Y_nk)
    return min(value, 1.0), np.asarray(len(X_nd) * (along_n - value / 2 * size_n))


def procrustes_matrix(shapes: Sequence[Floats]) -> Floats:
    """`procrustes` of every two (N, N), 1 on the diagonal; NaN where a shape is 0, its diagonal included."""
    filled_nNd = _filled(shapes)
    n, N, d = filled_nNd.shape
    similarity_NN = np.full((N, N), np.nan)

    def fill(place: int) -> None:
        with_others = filled_nNd[:, place].T @ filled_nNd[:, place + 1 :].reshape(n, -1)
        products = with_others.reshape(d, -1, d).transpose(1, 0, 2)
        similarity_NN[place, place + 1 :] = np.linalg.svd(products, compute_uv=False).sum(axis=1)

    side_by_side(fill, range(N - 1))
    similarity_NN = np.fmax(similarity_NN, similarity_NN.T)
    np.fill_diagonal(similarity_NN, 1.0)
    dead = [place for place, shape in enumerate(shapes) if not shape.any()]
    similarity_NN[dead] = similarity_NN[:, dead] = np.nan
    return np.asarray(np.minimum(similarity_NN, 1.0))


def procrustes_null(shapes: Sequence[Floats], Y_nk: Floats, draws: int, seed: int) -> Floats:
    """`procrustes` (draws, N) of every shape with Y whose images are permuted, the same permutation for all shapes."""
    filled_nNd = _filled(shapes)
    n, N, d = filled_nNd.shape
    # single precision: a product is known to 1e-7, a sum of singular values in which errors cancel hardly less well
    flat_dn, single_nk = filled_nNd.reshape(n, -1).T.astype(np.float32), Y_nk.astype(np.float32)
    dead_N = np.array([not shape.any() for shape in shapes]) | (not Y_nk.any())

    def values(order: NDArray[np.int32]) -> Floats:
        products = (flat_dn @ single_nk[order]).reshape(N, d, -1).astype(np.float64)
        if d > products.shape[2]:
            products = products.transpose(0, 2, 1)
        # singular values by the smaller Gram matrix: quicker, and the sum is known to 1e-7
        squares = np.linalg.eigvalsh(products @ products.transpose(0, 2, 1))
        found_N = np.sqrt(np.maximum(squares, 0.0)).sum(axis=1)
        return np.asarray(np.where(dead_N, np.nan, found_N))

    found = side_by_side(values, permutations_of(n, draws, seed))
    return np.stack(found) if found else np.empty((0, N))


def _filled(shapes: Sequence[Floats]) -> Floats:
    """(n, N, d), the smaller shapes filled up with zeros."""
    n, d = len(shapes[0]), max(shape.shape[1] for shape in shapes)
    filled_nNd = np.zeros((n, len(shapes), d))
    for place, shape in enumerate(shapes):
        filled_nNd[:, place, : shape.shape[1]] = shape
    return filled_nNd
