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
from probes.statistics.resampling import p_value
from probes.statistics.similarity import centred_ranks

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

_BLOCK = 8192  # pairs multiplied at a time in double precision
_BINS = 512  # of ranks, for influences alone
_BATCH = 30_000_000  # permuted numbers held at once by a thread, 120 MB
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
    vectors_NP: Vectors,
    references_RP: Sequence[Vectors],
    n: int,
    *,
    ranked: bool,
    draws: int,
    seed: int,
    places: Sequence[slice] | None = None,
) -> list[Compared]:
    """Set experts beside each reference.

    Args:
        vectors_NP: `pair_vectors` of the experts.
        references_RP: one vector each, of length 1; or the mean over subjects of such vectors.
        n: number of images, four or more.
        ranked: the vectors are ranks (Spearman), which move with the distances of all other images.
        draws: permutations of the images.
        seed: of the permutations.
        places: the experts that each reference is compared with; None: all of them.
    """
    stacked_RP = np.stack(references_RP).astype(np.float32)
    beside = [range(len(vectors_NP))[part] for part in places or [slice(None)] * len(stacked_RP)]
    values = [cosines(vectors_NP[mine.start : mine.stop], stacked_RP[[r]])[:, 0] for r, mine in enumerate(beside)]
    influences = _influences(vectors_NP, stacked_RP, values, beside, n, ranked=ranked)
    nulls = _permuted(vectors_NP, stacked_RP, beside, n, draws, seed)
    return [Compared(*each) for each in zip(values, influences, nulls, strict=True)]


class _Pulls:
    """One vector, ready for the influence of images on what it is multiplied with.

    Attributes:
        vector_P: it.
        scale: its root mean square.
        z_nn: the vector at mean square 1, as a matrix.
        own_n: its product with itself, summed over the pairs of each image, moves of ranks included.
    """

    def __init__(self, vector_P: Vectors, n: int, *, ranked: bool) -> None:
        self.vector_P, self._ranked, P = vector_P, ranked, len(vector_P)
        self.scale = float(np.sqrt(np.mean(np.square(vector_P, dtype=np.float64)))) or 1.0
        self.z_nn = square(vector_P, n)
        if ranked:
            self._bin_P = _bins(vector_P, P).astype(np.uint16)
            bin_nn = _bins(self.z_nn, P)
            middle = bin_nn[0, 0]
            bin_nn += _BINS * np.arange(n)[:, None]
            self._count_nB = np.bincount(bin_nn.ravel(), minlength=n * _BINS).reshape(n, _BINS).astype(np.float32)
            self._count_nB[:, middle] -= 1  # of an image with itself
            self._step = P / self.scale  # by which a rank moves, were all images below it
        self.z_nn /= np.float32(self.scale)
        self.own_n = self.product(self)

    def product(self, other: "_Pulls") -> Floats:
        """Sums (n,) over the pairs of each image: of the products, and of what the pair moves through the ranks."""
        sums_n: Floats = np.einsum("ij,ij->i", self.z_nn, other.z_nn).astype(np.float64)
        if self._ranked:
            moved_n = self.moved(other)
            sums_n += moved_n + (moved_n if other is self else other.moved(self))
        return sums_n

    def moved(self, other: "_Pulls") -> Floats:
        """Each image's sum over its pairs of the other's values where ranks are higher, equal ones half.

        One more distance lifts all larger ones by a rank. Ranks are taken in 512 bins, which moves an influence by
        less than a hundredth.
        """
        at_B = np.bincount(self._bin_P, other.vector_P, _BINS) / (len(self._bin_P) * other.scale)
        above_B = at_B.sum() - np.cumsum(at_B) + at_B / 2
        return np.asarray(self._step * (self._count_nB @ above_B))


def _bins(ranks: Vectors, P: int) -> NDArray[np.intp]:
    """Of centred ranks: tied ones share a place that no other one has, the middle of theirs."""
    return np.asarray(((ranks + np.float32((P - 1) / 2)) * np.float32(_BINS / P)).astype(np.intp))


def _influences(
    vectors_NP: Vectors, references_RP: Vectors, values: Sequence[Floats], beside: Sequence[range], n: int, *,
    ranked: bool,
) -> list[Floats]:  # fmt: skip
    lengths = np.linalg.norm(references_RP, axis=1)  # 1, or less for a mean over subjects
    # a mean over subjects moves like the ranks of its own values
    own = [centred_ranks(vector_P.astype(np.float64)) if ranked else vector_P for vector_P in references_RP]
    pulls = [_Pulls(vector_P, n, ranked=ranked) for vector_P in own]
    influences = [np.full((len(value_m), n), np.nan) for value_m in values]

    def fill(place: int) -> None:
        wanted = [r for r, mine in enumerate(beside) if place in mine and np.isfinite(values[r][place - mine.start])]
        if not wanted:
            return
        expert = _Pulls(vectors_NP[place], n, ranked=ranked)
        for r in wanted:
            row, other = place - beside[r].start, pulls[r]
            cosine = values[r][row] / lengths[r]
            mean_n = (expert.product(other) - cosine / 2 * (expert.own_n + other.own_n)) / (n - 1)
            influences[r][row] = lengths[r] * 2 * (n - 1) / (n - 2) * (mean_n - mean_n.mean())

    side_by_side(fill, range(len(vectors_NP)))
    return influences


def permutations_of(n: int, draws: int, seed: int) -> list[NDArray[np.int32]]:
    """Random orders of n images; equal arguments give equal orders, so that draws of two measures belong together."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(n).astype(np.int32) for _ in range(draws)]


def _permuted(
    vectors_NP: Vectors, references_RP: Vectors, beside: Sequence[range], n: int, draws: int, seed: int
) -> list[Floats]:
    """Products (draws, m) with each reference's images permuted, of the experts beside it."""
    P, R = vectors_NP.shape[1], len(references_RP)
    orders = permutations_of(n, draws, seed)
    squares = [square(vector_P, n).ravel() for vector_P in references_RP]
    i_P, j_P = (images_P.astype(np.int32) for images_P in np.triu_indices(n, k=1))
    lengths_N = np.sqrt(np.einsum("np,np->n", vectors_NP, vectors_NP, dtype=np.float64))
    lengths_N[lengths_N == 0] = np.nan
    together = {mine: [r for r in range(R) if beside[r] == mine] for mine in beside}
    step = max(1, _BATCH // (max(map(len, together.values())) * P))

    def products(start: int) -> list[Floats]:
        taken = [order[i_P] * np.int32(n) + order[j_P] for order in orders[start : start + step]]
        found = [np.empty(0)] * R
        for mine, which in together.items():
            permuted = np.empty((len(which), len(taken), P), np.float32)
            for r, of_draws in zip(which, permuted, strict=True):
                for taken_P, out_P in zip(taken, of_draws, strict=True):
                    np.take(squares[r], taken_P, out=out_P, mode="clip")
            experts = slice(mine.start, mine.stop)
            product = (vectors_NP[experts] @ permuted.reshape(-1, P).T).astype(np.float64) / lengths_N[experts, None]
            for r, of_draws in zip(which, product.reshape(len(mine), len(which), -1).transpose(1, 2, 0), strict=True):
                found[r] = of_draws
        return found

    parts = side_by_side(products, range(0, draws, step))
    return [np.concatenate([part[r] for part in parts] or [np.empty((0, len(beside[r])))]) for r in range(R)]


def reaches(value: float, null_D: Floats) -> float:
    """Permutation p, one-sided, of a cosine beside `null_DN`'s, which are products in single precision."""
    return p_value(value, null_D, rounding=_ROUNDING)


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
