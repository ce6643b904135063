"""Are there two clusters of experts, or does the silhouette name two where there are none?

The silhouette always has a best number. That it is two says something if it is two for other images and other seeds as
well (`halves`), if experts that have nothing in common would not choose two (`independent`; they choose many), and if
two groups are more than the two ends of a continuum (`continuum`), which chooses two as well, at a lower silhouette.

Axes: N experts, b draws.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from probes.statistics.similarity import cluster, second_order

_PAIR = 2
_LEAST = 4  # experts: with three, two clusters are the only choice
Floats = NDArray[np.float64]


class Structureless(NamedTuple):
    """Clusterings of experts that have no clusters.

    Attributes:
        silhouette_b: of two clusters, in each draw.
        k_b: number of clusters chosen.
    """

    silhouette_b: Floats
    k_b: NDArray[np.int64]


def margin(silhouette: Mapping[int, float], k: int = _PAIR) -> float:
    """Silhouette of k clusters less the best of any other number; above 0 if k is chosen. NaN without others."""
    others = [value for other, value in silhouette.items() if other != k]
    return silhouette[k] - max(others) if others and k in silhouette else float("nan")


def continuum(similarity_NN: Floats, *, draws: int, seed: int) -> Structureless:
    """Cluster experts drawn from a single Gaussian cloud with the spectrum of these.

    The null of SigClust (Liu, Hayes, Nobel and Marron 2008): the variances along the principal axes of the observed
    configuration, and nothing but a normal distribution along each. Two clusters widen an axis, so it is conservative.
    Distances 1 - similarity are taken as half the squared distances of points, as they are for correlations; points
    along principal axes have the variances that classical scaling finds (negative ones, of which rank correlations have
    none but by rounding, are 0).

    Args:
        similarity_NN: of living experts, four or more.
        draws: number of clouds.
        seed: of the clouds.
    """
    N = len(similarity_NN)
    centred_NN = similarity_NN - similarity_NN.mean(axis=0)
    centred_NN = centred_NN - centred_NN.mean(axis=1)[:, None]
    sd_N = np.sqrt(np.maximum(np.linalg.eigvalsh((centred_NN + centred_NN.T) / 2), 0.0) / (N - 1))
    rng = np.random.default_rng(seed)
    return _clustered(1 - squareform(pdist(rng.normal(size=(N, N)) * sd_N, "sqeuclidean")) / 2 for _ in range(draws))


def independent(
    readouts: Sequence[NDArray[np.floating[Any]]], *, draws: int, seed: int, images: int = 100
) -> Structureless:
    """Cluster experts whose readouts are noise with the eigen-spectrum of these.

    Args:
        readouts: N arrays (n, d_i) of living experts, four or more.
        draws: number of sets of experts.
        seed: of the noise.
        images: that the noise answers; more change the clusters little.
    """
    rng = np.random.default_rng(seed)
    spectra = [np.linalg.svd(Z_nd - Z_nd.mean(axis=0), compute_uv=False) for Z_nd in readouts]
    return _clustered(
        second_order([rng.normal(size=(images, len(sd_d))) * sd_d for sd_d in spectra]) for _ in range(draws)
    )


def _clustered(similarities: Iterable[Floats]) -> Structureless:
    found = [cluster(similarity_NN) for similarity_NN in similarities]
    return Structureless(
        np.array([one.silhouette[_PAIR] for one in found]), np.array([one.k for one in found], np.int64)
    )


def halves(
    parts: Iterable[Floats], runs_N: NDArray[Any], cells_N: NDArray[Any], *, seed: int
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Of each similarity on half of the images, the experts of half of the runs.

    The variance of a number over random halves, drawn without replacement, is that over samples of the whole size (the
    delete-half jackknife: Shao and Wu 1989). A bootstrap would make clusters out of runs that it draws twice.

    Args:
        parts: similarities (N, N), e.g. of `stability.subsampled`.
        runs_N: run of each expert.
        cells_N: cell of each expert. Half of each cell's runs are drawn, one more at random of an odd number; the run
            of a cell that has no other stays.
        seed: of the draws.

    Yields:
        Places of the experts drawn, and their similarities, whose experts are all defined and four at least.
    """
    rng = np.random.default_rng(seed)
    of_cell = [np.unique(runs_N[cells_N == cell]) for cell in np.unique(cells_N)]
    for similarity_NN in parts:
        drawn = np.concatenate([_half(runs, rng) for runs in of_cell])
        places = np.flatnonzero(np.isin(runs_N, drawn) & np.isfinite(similarity_NN.diagonal()))
        if len(places) >= _LEAST:
            yield places, similarity_NN[np.ix_(places, places)]


def _half(runs: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    if len(runs) == 1:
        return runs
    count = len(runs) // 2 + (len(runs) % 2 and int(rng.integers(2)))
    return rng.choice(runs, count, replace=False)
