"""Claims about clusters: are there two, one animate and one inanimate, in every run?

Axes: n images, R runs, N living experts of all runs.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from probes.statistics.animacy import animacy_index
from probes.statistics.cluster_null import continuum, halves, independent, margin
from probes.statistics.cluster_traits import trait_difference
from probes.statistics.constancy import is_constant
from probes.statistics.recurrence import recurrence
from probes.statistics.resampling import LEVEL, Interval, interval, p_value
from probes.statistics.similarity import Clusters, cluster, second_order
from probes.statistics.stability import subsampled
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


def two_clusters(asked: Asked) -> Measured:
    """The silhouette chooses two on other images and in other runs as well, more clearly than a continuum's does."""
    one, seed = asked.once(experts), asked.options.seed
    parts = subsampled(one.readouts, draws=asked.options.halves, seed=seed)
    drawn = [cluster(part).silhouette for _, part in halves(parts, one.runs_N, asked.cells_R[one.runs_N], seed=seed)]
    margins_b = np.array([margin(silhouette) for silhouette in drawn])
    null = continuum(one.similarity_NN, draws=asked.options.permutations, seed=seed)
    apart = independent(one.readouts, draws=_INDEPENDENT, seed=seed)
    several = len(np.unique(one.runs_N)) > len(np.unique(asked.cells_R)) and len(margins_b) > 0
    effect = margin(one.found.silhouette)
    # halves tell the spread, not the place: with fewer experts any number of clusters stands out less
    spread_b = effect + margins_b - margins_b.mean() if several else margins_b
    return Measured(
        effect, interval(spread_b) if several else Interval(float("nan"), float("nan")),
        "seeds and images", (0.0, math.inf),
        p_value(one.found.silhouette[2], null.silhouette_b), "experts of a continuum",
        more={
            "clusters": float(one.found.k), "silhouette": one.found.silhouette[2],
            "share_of_halves": float(np.mean(margins_b > 0)) if len(margins_b) else float("nan"),
            "share_of_a_continuum": float((null.k_b == 2).mean()) if len(null.k_b) else float("nan"),
            "share_of_independent_experts": float((apart.k_b == 2).mean()),
        },
    )  # fmt: skip


def animacy_of_experts(asked: Asked) -> Floats:
    """Each living expert's preference for animate things, d' of its readout norm."""
    one, animate_C = asked.once(experts), asked.sides_C
    rows = np.flatnonzero(asked.labels_n >= 0)
    animate_n = animate_C[asked.labels_n[rows]]
    of_run = [animacy_index(subject.activations.norms_nE[rows], animate_n) for subject in asked.subjects]
    return np.array([of_run[run][expert] for run, expert in zip(one.runs_N, one.expert_N, strict=True)])


def clusters_by_animacy(asked: Asked) -> Measured:
    """One cluster's experts prefer animate things more than the other's, run by run."""
    one, animacy_N = asked.once(experts), asked.once(animacy_of_experts)
    known_N = np.isfinite(animacy_N)
    animacy_N, second_N, runs_N = animacy_N[known_N], one.pair_N[known_N] == 1, one.runs_N[known_N]
    found = trait_difference(animacy_N, second_N, runs_N, draws=_DRAWS, seed=asked.options.seed)
    runs_R = np.full(len(asked.subjects), np.nan)
    runs_R[: len(found.runs_R)] = found.runs_R
    if np.isnan(runs_R).all():
        raise MissingError("no run has experts in both clusters")
    effect, bounds = asked.over_seeds(runs_R)
    means = [float(animacy_N[side].mean()) for side in (second_N, ~second_N)]
    return Measured(
        effect, bounds, "seeds", (0.0, math.inf), found.p, "experts of a run",
        runs_R, more={"animate_cluster": max(means), "inanimate_cluster": min(means)},
    )  # fmt: skip


def clusters_in_every_run(asked: Asked) -> Measured:
    """The share of runs that have experts in both clusters is above that of clusters dealt at random."""
    one = asked.once(experts)
    found = recurrence(one.pair_N, one.runs_N, draws=_DRAWS, seed=asked.options.seed)
    runs, share = len(found.counts_RK), found.share
    if runs < 2:
        raise MissingError("two runs are needed")
    return Measured(
        share, _exact(round(share * runs), runs), "runs", (found.null, math.inf), found.p_more, "experts of all runs",
        np.array((found.counts_RK > 0).all(axis=1), np.float64) if runs == len(asked.subjects) else np.empty(0),
        more={"by_chance": found.null},
    )  # fmt: skip


def _exact(hits: int, runs: int) -> Interval:
    """Interval of a share (Clopper and Pearson 1934)."""
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, runs - hits)) if hits < runs else 1.0
    return Interval(low, high)
