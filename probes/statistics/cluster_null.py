"""Are there clusters of experts, are they two, or does the silhouette name them where there are none?

The silhouette always has a best number. It says something if it is higher than that of a continuum of experts
(`continuum`), cut where it is best. That it is two says something if it is two for other images and other seeds as
well (`spread_of_halves`), if experts that have nothing in common would not choose two (`independent`; they choose
many), and if two groups are more than the two ends of a continuum, which chooses two as well, at a lower silhouette.

Axes: N experts, b draws.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.similarity import cluster, second_order
from probes.statistics.spreads import UNKNOWN, Spread

_PAIR = 2
_LEAST = 4  # experts: with three, two clusters are the only choice
Floats = NDArray[np.float64]


class Structureless(NamedTuple):
    """Clusterings of experts that have no clusters.

    Attributes:
        pair_b: silhouette of two clusters, in each draw.
        best_b: silhouette of as many as were chosen, which is the highest.
        k_b: number of clusters chosen.
    """

    pair_b: Floats
    best_b: Floats
    k_b: NDArray[np.int64]


class WithinRuns(NamedTuple):
    """Clusters of each run's experts, seen together.

    Attributes:
        silhouette: mean over runs of the silhouette at each one's best number of clusters; NaN without any.
        null_b: what it is where no run's experts have clusters; of none without runs.
    """

    silhouette: float
    null_b: Floats


def margin(silhouette: Mapping[int, float], k: int = _PAIR) -> float:
    """Silhouette of k clusters less the best of any other number; above 0 if k is chosen. NaN without others."""
    others = [value for other, value in silhouette.items() if other != k]
    return silhouette[k] - max(others) if others and k in silhouette else float("nan")


def continuum(similarity_NN: Floats, *, draws: int, seed: int) -> Structureless:
    """Cluster experts that lie as those of a single Gaussian cloud with the spectrum of these would.

    As in SigClust (Liu, Hayes, Nobel and Marron 2008) nothing but the variances along the principal axes is kept. To
    points that are independent and normal, with whatever covariances, all rotations of the set of points are alike:
    given the spectrum, their principal coordinates are those of a random rotation. So rotations are drawn, and each
    cloud has just this spectrum, which makes the test exact. Clouds drawn anew differ in their largest axis more than
    in anything else, and hardly any clusters stand out from them.

    Distances 1 - similarity are taken as half the squared distances of points, as they are for correlations, which
    makes the centred similarities the scalar products of centred points (negative variances, of which rank correlations
    have none but by rounding, are 0).

    Args:
        similarity_NN: of living experts, four or more.
        draws: number of clouds.
        seed: of the clouds.
    """
    N = len(similarity_NN)
    centred_NN = similarity_NN - similarity_NN.mean(axis=0)
    centred_NN = centred_NN - centred_NN.mean(axis=1)[:, None]
    variance_A = np.maximum(np.linalg.eigvalsh((centred_NN + centred_NN.T) / 2)[1:], 0.0)  # axes A = N - 1
    rng = np.random.default_rng(seed)

    def cloud() -> Floats:
        points_NA = rng.normal(size=(N, N - 1))
        axes_NA = np.linalg.qr(points_NA - points_NA.mean(axis=0))[0]
        product_NN = (axes_NA * variance_A) @ axes_NA.T
        size_N = product_NN.diagonal()
        return np.asarray(1 - (size_N[:, None] + size_N) / 2 + product_NN)

    return _clustered(cloud() for _ in range(draws))


def within_runs(similarity_NN: Floats, runs_N: NDArray[Any], *, draws: int, seed: int) -> WithinRuns:
    """Whether the experts of a run fall into clusters, asked of all runs at once.

    All experts together are first of all in the clusters that their runs make, since those of a run share its first
    blocks. Here every run is compared with clouds of its own spectrum (`continuum`), so that nothing between runs
    counts; a single run has too few experts to tell much, the mean over runs more.

    Args:
        similarity_NN: of living experts.
        runs_N: run of each expert; runs with fewer than four are left out.
        draws: number of clouds of each run.
        seed: of the clouds.
    """
    parts = [np.flatnonzero(runs_N == run) for run in dict.fromkeys(runs_N.tolist())]
    of_runs = [similarity_NN[np.ix_(part, part)] for part in parts if len(part) >= _LEAST]
    if not of_runs:
        return WithinRuns(float("nan"), np.empty(0))
    found = [max(cluster(one).silhouette.values()) for one in of_runs]
    seeds = np.random.SeedSequence(seed).generate_state(len(of_runs)).tolist()
    nulls = [continuum(one, draws=draws, seed=own).best_b for one, own in zip(of_runs, seeds, strict=True)]
    return WithinRuns(float(np.mean(found)), np.mean(nulls, axis=0))


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
        np.array([one.silhouette[_PAIR] for one in found]), np.array([one.silhouette[one.k] for one in found]),
        np.array([one.k for one in found], np.int64),
    )  # fmt: skip


def run_halves(
    similarity_NN: Floats, runs_N: NDArray[Any], cells_N: NDArray[Any], *, draws: int, seed: int
) -> Iterator[Floats]:
    """Similarities of the experts of half of the runs.

    Args:
        similarity_NN: of living experts.
        runs_N: run of each expert.
        cells_N: cell of each expert. Half of each cell's runs are drawn, one more at random of an odd number; the run
            of a cell that has no other stays.
        draws: number of halves; those with fewer than four experts are left out.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    of_cell = [np.unique(runs_N[cells_N == cell]) for cell in np.unique(cells_N)]
    for _ in range(draws):
        kept = np.flatnonzero(np.isin(runs_N, np.concatenate([_half(runs, rng) for runs in of_cell])))
        if len(kept) >= _LEAST:
            yield similarity_NN[np.ix_(kept, kept)]


def defined(parts: Iterable[Floats]) -> Iterator[Floats]:
    """Of each similarity the experts that are not dead, where they are four or more."""
    for similarity_NN in parts:
        alive = np.flatnonzero(np.isfinite(similarity_NN.diagonal()))
        if len(alive) >= _LEAST:
            yield similarity_NN[np.ix_(alive, alive)]


def spread_of_halves(values_b: Floats, freedom: int) -> Spread:
    """Variance of a number over images, or runs, that one might have had, from its values on random halves of them.

    Halves that are drawn without replacement vary as wholes do (delete-half jackknife: Shao and Wu 1989). A bootstrap
    would make clusters of runs that it draws twice. Only how halves vary counts, not where they lie: with fewer
    experts any number of clusters stands out less. They vary more, too, so that the variance is too large rather than
    too small.

    Args:
        values_b: on each half.
        freedom: of what was halved: images less one, or runs less cells. With few draws no more is known than they say.
    """
    if freedom < 1 or len(values_b) < _PAIR:
        return UNKNOWN
    return Spread(float(values_b.var(ddof=1)), min(freedom, len(values_b) - 1))


def _half(runs: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    if len(runs) == 1:
        return runs
    count = len(runs) // 2 + (len(runs) % 2 and int(rng.integers(2)))
    return rng.choice(runs, count, replace=False)
