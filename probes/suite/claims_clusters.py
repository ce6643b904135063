"""Claims about clusters: are there two, one animate and one inanimate, in every run?

Axes: n images, R runs, N living experts of all runs.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.statistics.animacy import animacy_index
from probes.statistics.cluster_null import (
    Structureless,
    continuum,
    defined,
    independent,
    margin,
    run_halves,
    spread_of_halves,
)
from probes.statistics.cluster_traits import trait_difference
from probes.statistics.constancy import is_constant
from probes.statistics.recurrence import recurrence, share_interval
from probes.statistics.resampling import p_value
from probes.statistics.similarity import Clusters, cluster, second_order
from probes.statistics.spreads import mean_over_cells, student_interval
from probes.statistics.stability import subsampled
from probes.statistics.verdicts import ALPHA
from probes.subject import representative_rows
from probes.suite.claims_asked import Asked, Floats, Measured, MissingError

_LEAST = 4  # experts
_DRAWS = 999
_INDEPENDENT = 20  # sets of experts: it is seldom a close thing


@dataclass(frozen=True)
class Experts:
    """The living experts of all runs.

    Attributes:
        runs_N: place of each one's run.
        expert_N: which of its run's it is.
        readouts: of each, on the images that are clustered.
        similarity_NN: of their dissimilarity matrices.
        found: clusters, as many as the silhouette chooses.
        pair_N: which of two clusters each is in.
    """

    runs_N: NDArray[np.int64]
    expert_N: NDArray[np.int64]
    readouts: list[NDArray[np.float32]]
    similarity_NN: Floats
    found: Clusters
    pair_N: NDArray[np.int64]


def experts(asked: Asked) -> Experts:
    """Cluster them.

    Raises:
        MissingError: there are too few.
    """
    rows = representative_rows(asked.store, asked.options.clustered)
    every = [
        (run, expert, np.asarray(Z_nD[rows]))
        for run, subject in enumerate(asked.subjects)
        for expert, Z_nD in enumerate(subject.activations.readouts_EnD)
    ]
    living = [one for one in every if not is_constant(one[2])]
    if len(living) < _LEAST:
        raise MissingError(f"to cluster experts {_LEAST} living ones are needed, here: {len(living)}")
    readouts = [Z_nD for _, _, Z_nD in living]
    similarity_NN = second_order(readouts)
    return Experts(
        np.array([run for run, _, _ in living]), np.array([expert for _, expert, _ in living]), readouts, similarity_NN,
        cluster(similarity_NN), cluster(similarity_NN, [2]).labels,
    )  # fmt: skip


def structureless(asked: Asked) -> Structureless:
    """Clusters of experts that have none: of one cloud with the spectrum of these."""
    similarity_NN = asked.once(experts).similarity_NN
    return continuum(similarity_NN, draws=asked.options.permutations, seed=asked.options.seed)


def two_clusters(asked: Asked) -> Measured:
    """The silhouette chooses two on other images and in other runs as well, more clearly than a continuum's does."""
    one, draws, seed = asked.once(experts), asked.options.halves, asked.options.seed
    cells_N = asked.cells_R[one.runs_N]
    of_images = _margins(defined(subsampled(one.readouts, draws=draws, seed=seed)))
    of_runs = _margins(run_halves(one.similarity_NN, one.runs_N, cells_N, draws=draws, seed=seed))
    images = spread_of_halves(of_images, len(one.readouts[0]) - 1)
    seeds = spread_of_halves(of_runs, len(np.unique(one.runs_N)) - len(np.unique(cells_N)))
    null = asked.once(structureless)
    apart = independent(one.readouts, draws=_INDEPENDENT, seed=seed)
    effect = margin(one.found.silhouette)
    return Measured(
        effect, student_interval(effect, seeds, images), "seeds and images", (0.0, math.inf),
        p_value(one.found.silhouette[2], null.pair_b), "experts of a continuum",
        images=student_interval(effect, images),
        more={
            "clusters": float(one.found.k), "silhouette": one.found.silhouette[2],
            "share_of_halves_of_images": _share(of_images > 0), "share_of_halves_of_runs": _share(of_runs > 0),
            "share_of_a_continuum": _share(null.k_b == 2), "share_of_independent_experts": _share(apart.k_b == 2),
        },
    )  # fmt: skip


def _margins(parts: Iterable[Floats]) -> Floats:
    return np.array([margin(cluster(part).silhouette) for part in parts])


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else float("nan")


def animacy_of_experts(asked: Asked) -> Floats:
    """Each living expert's preference for animate things, d' of its readout norm."""
    one, animate_C = asked.once(experts), asked.sides_C
    rows = np.flatnonzero(asked.labels_n >= 0)
    animate_n = animate_C[asked.labels_n[rows]]
    of_run = [animacy_index(subject.activations.norms_nE[rows], animate_n) for subject in asked.subjects]
    return np.array([of_run[run][expert] for run, expert in zip(one.runs_N, one.expert_N, strict=True)])


def clusters_by_animacy(asked: Asked) -> Measured:
    """One cluster's experts prefer animate things and the other's inanimate ones, run by run."""
    one, animacy_N = asked.once(experts), asked.once(animacy_of_experts)
    known_N = np.isfinite(animacy_N)
    animacy_N, second_N, runs_N = animacy_N[known_N], one.pair_N[known_N] == 1, one.runs_N[known_N]
    found = trait_difference(animacy_N, second_N, runs_N, draws=_DRAWS, seed=asked.options.seed)
    if np.isnan(found.difference_R).all():
        raise MissingError("no run has experts in both clusters")
    runs_R, means = np.full(len(asked.subjects), np.nan), (found.larger_R, found.smaller_R)
    runs_R[: len(found.larger_R)] = np.minimum(found.larger_R, -found.smaller_R)
    effect, bounds = asked.over_seeds(runs_R)
    cells_R = asked.cells_R[: len(found.larger_R)]
    animate, inanimate = (mean_over_cells(mean_R, cells_R) for mean_R in means)
    return Measured(
        effect, bounds, "seeds", (0.0, math.inf), found.p, "experts of a run",
        runs_R, more={"animate_cluster": animate, "inanimate_cluster": inanimate, "difference": animate - inanimate},
    )  # fmt: skip


def clusters_in_every_run(asked: Asked) -> Measured:
    """The share of runs that have experts in both clusters is above a bound, and there are clusters.

    It is not compared with that of clusters dealt to the experts at random, which is near 1 where a run has many
    experts, so that no number of runs would be above it. What the claim excludes is that the clusters are the runs.
    """
    one, null = asked.once(experts), asked.once(structureless)
    found = recurrence(one.pair_N, one.runs_N, draws=_DRAWS, seed=asked.options.seed)
    runs, share = len(found.counts_RK), found.share
    if runs < 2:
        raise MissingError("two runs are needed")
    fewer = f"by chance it would be {found.null:.2f}, and so few by p = {found.p_fewer:.2g}: the clusters are the runs"
    return Measured(
        share, share_interval(round(share * runs), runs), "runs", (asked.options.recurring, math.inf),
        p_value(one.found.silhouette[2], null.pair_b), "experts of a continuum",
        np.array((found.counts_RK > 0).all(axis=1), np.float64) if runs == len(asked.subjects) else np.empty(0),
        more={"by_chance": found.null, "p_fewer": found.p_fewer, "p_more": found.p_more},
        note=fewer if found.p_fewer <= ALPHA else "",
    )  # fmt: skip
