"""Simulations for the statistics behind the paper's claims; part of `benchmarks.calibrate`.

Axes: n images, C classes, E experts of a run, N experts of all runs, R runs.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from probes.statistics import (
    Verdict,
    cluster,
    continuum,
    contrast_test,
    equivalence,
    held_out_r2,
    independent,
    influence_spread,
    likeness,
    margin,
    mean_over_cells,
    p_value,
    partition,
    recurrence,
    run_halves,
    seed_spread,
    share_interval,
    spread_of_halves,
    student_interval,
    trait_difference,
    unique_null,
    verdict,
    within_runs,
)
from probes.statistics.nonlinearity import curve_r2
from probes.statistics.resampling import Interval
from probes.statistics.tuning import held_out_predictions

ALPHA = 0.05
Floats = NDArray[np.float64]
Random = np.random.Generator


def seeds(rng: Random, *, cells: int = 2, each: int = 2) -> list[bool]:
    """Whether the mean over configurations that differ, each of a few seeds, is in its interval."""
    means, cell_R = 3 * rng.normal(size=cells), np.repeat(np.arange(cells), each)
    values_R = means[cell_R] + rng.normal(size=cells * each)
    low, high = student_interval(mean_over_cells(values_R, cell_R), seed_spread(values_R, cell_R))
    return [low <= means.mean() <= high]


def verdicts(rng: Random, *, cells: int = 2, each: int = 5) -> list[bool]:
    """An effect at the very edge of what is claimed: the claim seems to hold | not to hold."""
    cell_R = np.repeat(np.arange(cells), each)
    values_R = rng.normal(size=cells * each)
    found = verdict(
        *student_interval(mean_over_cells(values_R, cell_R), seed_spread(values_R, cell_R)), (0.0, math.inf)
    )
    return [found is Verdict.HOLDS, found is Verdict.FAILS]


def line_interval(rng: Random, *, n: int = 300) -> list[bool]:
    """Whether the r2 of a line over all images, 0.5, is in its interval over images."""
    x_n1 = rng.normal(size=(n, 1))
    line = curve_r2(x_n1, x_n1 + rng.normal(size=(n, 1)), seed=0)["line"]
    low, high = student_interval(float(line.value_t[0]), influence_spread(line.influence_nt[:, 0]))
    return [low <= 0.5 <= high]


def bent(rng: Random, *, n: int = 300) -> list[bool]:
    """Whether a straight relation of gate and readout seems bent by 0.01 or more."""
    x_n1 = rng.normal(size=(n, 1))
    found = curve_r2(x_n1, x_n1 + rng.normal(size=(n, 1)), seed=0)
    gain = found["monotone"].value_t[0] - found["line"].value_t[0]
    spread = influence_spread(found["monotone"].influence_nt[:, 0] - found["line"].influence_nt[:, 0])
    return [student_interval(float(gain), spread).low > 0.01]


def equal_tuning(rng: Random, *, n: int = 200, runs: int = 4) -> list[bool]:
    """Gate and readout follow dimensions equally in the mean: 0 is in the interval of their r2's difference."""
    X_np = rng.random((n, 8))
    differences, influences = [], []
    for _ in range(runs):
        Y_nt = 3 * X_np @ rng.dirichlet(np.ones(8), 2).T.clip(0.1) + 0.5 * rng.normal(size=(n, 2))
        r2 = held_out_r2(Y_nt, held_out_predictions(X_np, Y_nt))
        differences.append(r2.value_t[0] - r2.value_t[1])
        influences.append(r2.influence_nt[:, 0] - r2.influence_nt[:, 1])
    values_R = np.array(differences)
    spreads = seed_spread(values_R, np.zeros(runs)), influence_spread(np.mean(influences, axis=0))
    low, high = student_interval(float(values_R.mean()), *spreads)
    return [low <= 0 <= high]


def as_far_as_the_bound(rng: Random, *, classes: int = 10, experts: int = 2) -> list[bool]:
    """Whether experts, one of which differs by just the bound over all classes, seem alike."""
    effect_EC = 0.03 * rng.normal(size=(experts, classes))
    noise_ECC = 0.03 * np.triu(rng.normal(size=(experts, classes, classes)), k=1)
    accuracy_ECC = 0.75 + effect_EC[:, :, None] + effect_EC[:, None] + noise_ECC + noise_ECC.transpose(0, 2, 1)
    accuracy_ECC[0] += 0.05
    return [equivalence(accuracy_ECC, 0.05).p <= ALPHA]


def _patterns(rng: Random, cells: int, runs: int, experts: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Accuracies of 45 pairs of classes that have nothing to do with runs; configurations differ."""
    common, of_cell = rng.normal(size=45), 0.5 * rng.normal(size=(cells, 45))
    cell_N, run_N = np.repeat(np.arange(cells), runs * experts), np.repeat(np.arange(cells * runs), experts)
    return common + of_cell[cell_N] + 0.7 * rng.normal(size=(len(run_N), 45)), run_N, cell_N


def within_models(rng: Random) -> list[bool]:
    """Whether experts of a model seem more alike than those of different seeds where they are not, 2 x 2 runs."""
    found = likeness(*_patterns(rng, 2, 2, 4), draws=199, seed=int(rng.integers(2**31)))
    return [found.p <= ALPHA]


def within_interval(rng: Random) -> list[bool]:
    """Whether 0 is in the interval of the difference, 2 x 4 runs."""
    found = likeness(*_patterns(rng, 2, 4, 4), draws=1, seed=0)
    low, high = student_interval(found.within - found.between, found.spread)
    return [low <= 0 <= high]


def contrast(rng: Random, *, classes: int = 10, animate: int = 6) -> list[bool]:
    """Whether animacy seems to part classes at random places most."""
    places = rng.normal(size=(classes, 4)) * np.array([2.0, 1.0, 0.5, 0.5])
    table_CC = np.linalg.norm(places[:, None] - places, axis=2)
    return [contrast_test(table_CC, np.arange(classes) < animate, most=2000, seed=0).p <= ALPHA]


def cloud(rng: Random, *, experts: int = 24, decay: float = 1.0) -> list[bool]:
    """Whether experts of one Gaussian cloud seem to be two clusters; or clusters, as many as are chosen."""
    points = 0.3 * rng.normal(size=(experts, 20)) * np.arange(1, 21) ** -decay
    return _told_from_a_cloud(1 - ((points[:, None] - points) ** 2).sum(axis=2) / 2, rng)


def planted_clusters(rng: Random, *, kinds: int = 2, each: int = 12, between: float = 0.4) -> list[bool]:
    """Clusters that correlate by 0.8 within: whether two are found, p <= .05; and whether clusters are."""
    common, centres = rng.normal(size=100), rng.normal(size=(kinds, 1, 100))
    own = 0.2**0.5 * rng.normal(size=(kinds, each, 100))
    experts = between**0.5 * common + (0.8 - between) ** 0.5 * centres + own
    return _told_from_a_cloud(np.corrcoef(experts.reshape(-1, 100)), rng)


def _told_from_a_cloud(similarity_NN: Floats, rng: Random) -> list[bool]:
    found, null = cluster(similarity_NN), continuum(similarity_NN, draws=39, seed=int(rng.integers(2**31)))
    pairs = ((found.silhouette[2], null.pair_b), (found.silhouette[found.k], null.best_b))
    return [p_value(silhouette, null_b) <= ALPHA for silhouette, null_b in pairs]


def clusters_of_runs(
    rng: Random, *, apart: float = 0.0, own: float = 0.7, runs: tuple[int, ...] = (4, 4, 8, 8)
) -> list[bool]:
    """Whether the experts of runs seem to be in clusters within their runs: clouds, or two kinds `apart`.

    Runs differ in the experts' mean, by `own`, and in how far and along which axes their experts lie.
    """
    clouds = []
    for E in runs:
        spread = 0.3 * rng.uniform(0.5, 1.5) * np.arange(1, 21) ** -rng.uniform(0.0, 1.5)
        kinds = apart * np.eye(20)[1] * (np.arange(E)[:, None] % 2)
        clouds.append(own * rng.normal(size=20) + kinds + rng.normal(size=(E, 20)) * spread)
    points = np.concatenate(clouds)
    similarity_NN = 1 - ((points[:, None] - points) ** 2).sum(axis=2) / 2
    runs_N = np.repeat(np.arange(len(runs)), runs)
    found = within_runs(similarity_NN, runs_N, draws=39, seed=int(rng.integers(2**31)))
    return [p_value(found.silhouette, found.null_b) <= ALPHA]


def _kinds(
    rng: Random, kind_RE: NDArray[np.int64], *, apart: float, own: float, images: int = 100
) -> tuple[Floats, NDArray[np.int64]]:
    """Experts (N, images) of two kinds, `apart` from each other, in runs with something of their `own`; their run."""
    R, E = kind_RE.shape
    kinds = apart * rng.normal(size=(2, images))
    of_runs = own * rng.normal(size=(R, 1, images))
    experts = rng.normal(size=images) + kinds[kind_RE] + of_runs + rng.normal(size=(R, E, images))
    return experts.reshape(-1, images), np.repeat(np.arange(R), E)


def _margin(similarity_NN: Floats) -> float:
    return margin(cluster(similarity_NN).silhouette)


@cache
def _true_margin(runs: int, apart: float, own: float) -> float:
    rng, kind_RE = np.random.default_rng(0), np.tile([0, 0, 1, 1], (runs, 1))
    return float(np.mean([_margin(np.corrcoef(_kinds(rng, kind_RE, apart=apart, own=own)[0])) for _ in range(500)]))


def margin_interval(
    rng: Random, *, cells: int = 2, each: int = 2, apart: float = 0.8, own: float = 0.5, draws: int = 20
) -> list[bool]:
    """Whether the margin of two clusters is in its interval over images and runs of four experts."""
    kind_RE = np.tile([0, 0, 1, 1], (cells * each, 1))
    experts_Nn, run_N = _kinds(rng, kind_RE, apart=apart, own=own)
    n, similarity_NN = experts_Nn.shape[1], np.corrcoef(experts_Nn)
    parts = [np.corrcoef(experts_Nn[:, rng.choice(n, n // 2, replace=False)]) for _ in range(draws)]
    some_runs = run_halves(similarity_NN, run_N, run_N // each, draws=draws, seed=int(rng.integers(2**31)))
    images = spread_of_halves(np.array([_margin(part) for part in parts]), n - 1)
    seeds = spread_of_halves(np.array([_margin(part) for part in some_runs]), cells * (each - 1))
    low, high = student_interval(_margin(similarity_NN), images, seeds)
    return [low <= _true_margin(cells * each, apart, own) <= high]


def _share_of_runs(rng: Random, share: float, runs: int) -> Interval:
    """Interval of the share of runs with experts in both clusters, clusters found anew."""
    kind_RE = np.where(rng.random((runs, 1)) < share, [0, 0, 1, 1], rng.integers(0, 2, (runs, 1)))
    experts_Nn, run_N = _kinds(rng, kind_RE, apart=1.0, own=0.3)
    found = recurrence(cluster(np.corrcoef(experts_Nn), [2]).labels, run_N, draws=1, seed=0)
    return share_interval(round(found.share * runs), runs)


def recurring_interval(rng: Random, *, share: float = 0.7, runs: int = 10) -> list[bool]:
    """Whether the share of runs that have experts of both kinds is in its interval."""
    low, high = _share_of_runs(rng, share, runs)
    return [low <= share <= high]


def recurring_edge(rng: Random, *, share: float = 0.5, runs: int = 10) -> list[bool]:
    """A share at the very edge of what is claimed: the claim seems to hold | not to hold."""
    found = verdict(*_share_of_runs(rng, share, runs), (share, math.inf))
    return [found is Verdict.HOLDS, found is Verdict.FAILS]


def structureless(rng: Random, *, experts: int = 40) -> list[bool]:
    """Whether experts that have nothing in common but a spectrum choose two clusters, of the many that they could."""
    readouts = [rng.normal(size=(100, 64)) * np.arange(1, 65) ** -0.5 for _ in range(experts)]
    return [bool(independent(readouts, draws=1, seed=int(rng.integers(2**31))).k_b[0] == 2)]


def traits(rng: Random, *, runs: int = 6, experts: int = 4) -> list[bool]:
    """Whether two clusters seem to differ in a trait that they have nothing to do with; runs differ in it."""
    run_N = np.repeat(np.arange(runs), experts)
    trait_N = rng.normal(size=runs)[run_N] + rng.normal(size=len(run_N))
    second_N = rng.random(len(run_N)) < 0.5
    found = trait_difference(trait_N, second_N, run_N, draws=199, seed=int(rng.integers(2**31)))
    return [found.p <= ALPHA]


def useless_set(rng: Random, *, n: int = 120, own: float = 1.0) -> list[bool]:
    """A set of predictors that repeats another and says no more: p <= .05 | its unique part's interval above 0.

    `own` is how much it has besides, which has nothing to do with the response.
    """
    b_n3 = rng.normal(size=(n, 3))
    sets = {
        "a": b_n3 @ rng.normal(size=(3, 4)) + own * rng.normal(size=(n, 4)),
        "b": b_n3,
        "c": rng.normal(size=(n, 2)),
    }
    Y_n1 = b_n3.sum(axis=1, keepdims=True) + 2 * rng.normal(size=(n, 1))
    unique = partition(sets, Y_n1, seed=0).unique["a"]
    null = unique_null(sets, "a", Y_n1, draws=39, seed=int(rng.integers(2**31)))
    low, _ = student_interval(float(unique.value_t[0]), influence_spread(unique.influence_nt[:, 0]))
    return [p_value(float(unique.value_t[0]), null[:, 0]) <= ALPHA, low > 0]


def repeated_set(rng: Random, *, n: int = 200) -> list[bool]:
    """As dimensions that repeat some of the categories, and have others besides: p <= .05 | interval above 0 too."""
    class_nC = np.eye(10)[rng.permutation(np.arange(n) % 10)]
    sets = {
        "dimensions": np.hstack([class_nC[:, :3], rng.random((n, 5))]), "categories": class_nC,
        "low_level": rng.normal(size=(n, 16)),
    }  # fmt: skip
    Y_n1 = class_nC[:, :3] @ [[1.0], [2.0], [3.0]] + rng.normal(size=(n, 1))
    unique = partition(sets, Y_n1, seed=0).unique["dimensions"]
    null = unique_null(sets, "dimensions", Y_n1, draws=39, seed=int(rng.integers(2**31)))
    low, _ = student_interval(float(unique.value_t[0]), influence_spread(unique.influence_nt[:, 0]))
    p = p_value(float(unique.value_t[0]), null[:, 0])
    return [p <= ALPHA, p <= ALPHA and low > 0]
