"""Experts beside a reference: how alike, how far that would move with other images, and how alike by chance.

Works on the vectors of `pair_vectors`, whose cosines are Spearman's correlation of dissimilarities and unbiased CKA.

Two chances are told apart. *Other images*: the influence of each image on the cosine, whose squares sum to the variance
that a bootstrap of the images converges to (infinitesimal jackknife, Efron 1982). In a bootstrap sample images occur
twice, at distance 0 of each other; rsatoolbox leaves such pairs out (Schütt et al. 2023), and here they do not arise.
*No relation*: the images of the reference are permuted, for all experts alike (Mantel 1967).

Axes: n images, N experts, R references, S subjects, P = n (n - 1) / 2 pairs of images, D draws.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.pair_vectors import side_by_side, square
from probes.statistics.similarity import centred_ranks

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

_BLOCK = 8192  # pairs multiplied at a time in double precision
_BINS = 512  # of ranks, for influences alone
_BATCH = 48_000_000  # permuted numbers held at once by a thread, 192 MB
_ROUNDING = 2e-6  # of products in single precision, in units of a cosine


class Compared(NamedTuple):
    """N experts beside one reference.

    Attributes:
        value_N: cosine with the reference; if it is the mean over subjects, the mean of the cosines. NaN for an expert
            without a geometry.
        influence_Nn: derivative of the value with respect to each image's weight, times n; sums to 0 over images.
        null_DN: values with the reference's images permuted, the same permutation for all experts.
    """

    value_N: Floats
    influence_Nn: Floats
    null_DN: Floats


def unit(vectors: Vectors) -> Vectors:
    """Vectors (..., P) at length 1; those of length 0 stay."""
    length = np.sqrt(np.einsum("...p,...p->...", vectors, vectors, dtype=np.float64))[..., None]
    return np.asarray(vectors / np.where(length == 0, 1.0, length), np.float32)


def cosines(vectors_NP: Vectors, others_SP: Vectors) -> Floats:
    """Scalar products (N, S) with vectors of length 1 or less, the experts' own taken at length 1, in blocks.

    NaN for an expert of length 0, and for another vector that is 0 throughout.
    """
    product_NS, squares_N = np.zeros((len(vectors_NP), len(others_SP))), np.zeros(len(vectors_NP))
    for start in range(0, vectors_NP.shape[1], _BLOCK):
        block_Np = vectors_NP[:, start : start + _BLOCK].astype(np.float64)
        product_NS += block_Np @ others_SP[:, start : start + _BLOCK].astype(np.float64).T
        squares_N += np.einsum("np,np->n", block_Np, block_Np)
    squares_N[squares_N == 0] = np.nan
    product_NS[:, ~others_SP.any(axis=1)] = np.nan
    return np.asarray(product_NS / np.sqrt(squares_N)[:, None])


def compare(
    vectors_NP: Vectors, references_RP: Sequence[Vectors], n: int, *, ranked: bool, draws: int, seed: int
) -> list[Compared]:
    """Set all experts beside each reference.

    Args:
        vectors_NP: `pair_vectors` of the experts.
        references_RP: one vector each, of length 1; or the mean over subjects of such vectors.
        n: number of images, four or more.
        ranked: the vectors are ranks (Spearman), which move with the distances of all other images.
        draws: permutations of the images.
        seed: of the permutations.
    """
    stacked_RP = np.stack(references_RP).astype(np.float32)
    value_NR = cosines(vectors_NP, stacked_RP)
    influence_NRn = _influences(vectors_NP, stacked_RP, value_NR, n, ranked=ranked)
    null_DNR = _permuted(vectors_NP, stacked_RP, n, draws, seed)
    return [Compared(value_NR[:, r], influence_NRn[:, r], null_DNR[:, :, r]) for r in range(len(stacked_RP))]


class _Pulls:
    """One vector, ready for the influence of images on what it is multiplied with.

    Attributes:
        z_P: the vector, its mean square 1.
        z_nn: the same as a matrix.
        own_n: its product with itself, summed over the pairs of each image, moves of ranks included.
    """

    def __init__(self, vector_P: Vectors, n: int, *, ranked: bool) -> None:
        self._n, self._ranked, P = n, ranked, len(vector_P)
        scale = float(np.sqrt(np.mean(np.square(vector_P, dtype=np.float64)))) or 1.0
        self.z_P = (vector_P / scale).astype(np.float32)
        self.z_nn = square(self.z_P, n)
        if ranked:
            # tied ranks share a place that no other one has: the middle of theirs
            self._bin_P = ((vector_P + (P - 1) / 2) * (_BINS / P)).astype(np.intp)
            ends = [_BINS * image_P + self._bin_P for image_P in np.triu_indices(n, k=1)]
            count = sum(np.bincount(end_P, minlength=n * _BINS) for end_P in ends)
            self._count_nB = np.asarray(count, np.float32).reshape(n, _BINS)
            self._step = P / scale  # by which a rank moves, were all images below it
        self.own_n = self.product(self)

    def product(self, other: "_Pulls") -> Floats:
        """Sums (n,) over the pairs of each image: of the products, and of what the pair moves through the ranks."""
        sums_n: Floats = np.einsum("ij,ij->i", self.z_nn, other.z_nn).astype(np.float64)
        if self._ranked:
            sums_n += self.moved(other.z_P) + other.moved(self.z_P)
        return sums_n

    def moved(self, values_P: Vectors) -> Floats:
        """Each image's sum over its pairs of the values where ranks are higher, equal ones half.

        One more distance lifts all larger ones by a rank. Ranks are taken in 512 bins, which moves an influence by
        less than a hundredth.
        """
        at_B = np.bincount(self._bin_P, values_P, _BINS) / len(values_P)
        above_B = at_B.sum() - np.cumsum(at_B) + at_B / 2
        return np.asarray(self._step * (self._count_nB @ above_B))


def _influences(vectors_NP: Vectors, references_RP: Vectors, value_NR: Floats, n: int, *, ranked: bool) -> Floats:
    lengths = np.linalg.norm(references_RP, axis=1)  # 1, or less for a mean over subjects
    # a mean over subjects moves like the ranks of its own values
    own = [centred_ranks(vector_P.astype(np.float64)) if ranked else vector_P for vector_P in references_RP]
    pulls = [_Pulls(vector_P, n, ranked=ranked) for vector_P in own]
    influence_NRn = np.full((*value_NR.shape, n), np.nan)

    def fill(place: int) -> None:
        if not np.isfinite(value_NR[place]).any():
            return
        mine = _Pulls(vectors_NP[place], n, ranked=ranked)
        for r, (other, length) in enumerate(zip(pulls, lengths, strict=True)):
            if length == 0:
                continue
            cosine = value_NR[place, r] / length
            mean_n = (mine.product(other) - cosine / 2 * (mine.own_n + other.own_n)) / (n - 1)
            influence_NRn[place, r] = length * 2 * (n - 1) / (n - 2) * (mean_n - mean_n.mean())

    side_by_side(fill, range(len(vectors_NP)))
    return influence_NRn


def permutations_of(n: int, draws: int, seed: int) -> list[NDArray[np.int32]]:
    """Random orders of n images; equal arguments give equal orders, so that draws of two measures belong together."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(n).astype(np.int32) for _ in range(draws)]


def _permuted(vectors_NP: Vectors, references_RP: Vectors, n: int, draws: int, seed: int) -> Floats:
    """Products (draws, N, R) with the references' images permuted."""
    (N, P), R = vectors_NP.shape, len(references_RP)
    orders = permutations_of(n, draws, seed)
    squares = [square(vector_P, n).ravel() for vector_P in references_RP]
    i_P, j_P = (images_P.astype(np.int32) for images_P in np.triu_indices(n, k=1))
    lengths_N = np.sqrt(np.einsum("np,np->n", vectors_NP, vectors_NP, dtype=np.float64))
    lengths_N[lengths_N == 0] = np.nan
    step = max(1, _BATCH // (R * P))

    def products(start: int) -> Floats:
        batch = orders[start : start + step]
        permuted = np.empty((len(batch) * R, P), np.float32)
        for draw, order in enumerate(batch):
            taken_P = order[i_P] * np.int32(n) + order[j_P]
            for r, flat in enumerate(squares):
                np.take(flat, taken_P, out=permuted[draw * R + r])
        found = (vectors_NP @ permuted.T).astype(np.float64) / lengths_N[:, None]
        return np.asarray(found.T.reshape(len(batch), R, N).transpose(0, 2, 1))

    parts = side_by_side(products, range(0, draws, step))
    return np.concatenate(parts) if parts else np.empty((0, N, R))


def reaches(value: float, null_D: Floats) -> float:
    """Permutation p, one-sided, of a value beside `null_DN`'s; NaN without draws.

    A draw that falls short by rounding alone reaches it.
    """
    finite = null_D[np.isfinite(null_D)]
    if not np.isfinite(value) or not len(finite):
        return float("nan")
    return float((1 + (finite >= value - _ROUNDING).sum()) / (1 + len(finite)))


class Ceiling(NamedTuple):
    """How alike to each of S representations another one could be, that is the same for all of them.

    Attributes:
        low_S: cosine with the mean over all others (of other units). NaN where there is none.
        high_S: cosine with the mean over all, itself among them; no representation has a larger mean over the S.
    """

    low_S: Floats
    high_S: Floats


def noise_ceiling(similarity_SS: Floats, units_S: NDArray[Any] | None = None) -> Ceiling:
    """Bounds of the noise ceiling (Nili et al. 2014), from the cosines between representations alone.

    A mean over vectors of length 1 has scalar products that are means of cosines, so that no vector is needed. For
    Spearman's correlation the mean is one of ranks, compared as it is, not ranked again.

    Args:
        similarity_SS: cosines of S subjects, or experts, with each other; finite.
        units_S: what is left out together for the lower bound, e.g. the run of each expert; None: each alone.
    """
    S = len(similarity_SS)
    units_S = np.arange(S) if units_S is None else units_S
    high_S = similarity_SS.sum(axis=1) / np.sqrt(similarity_SS.sum())
    low_S = np.full(S, np.nan)
    for unit_of in np.unique(units_S):
        mine, others = units_S == unit_of, units_S != unit_of
        if others.any():
            length = np.sqrt(similarity_SS[np.ix_(others, others)].sum())
            low_S[mine] = similarity_SS[np.ix_(mine, others)].sum(axis=1) / length
    return Ceiling(low_S, np.asarray(high_S))
