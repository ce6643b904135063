"""Simulations for the statistics behind the paper's claims; part of `benchmarks.calibrate`.

Axes: n images, C classes, E experts of a run, N experts of all runs, R runs.
"""

import math

import numpy as np
from numpy.typing import NDArray

from probes.statistics import (
    Verdict,
    cluster,
    continuum,
    contrast_test,
    equivalence,
    held_out_r2,
    influence_spread,
    likeness,
    mean_over_cells,
    p_value,
    partition,
    seed_spread,
    student_interval,
    trait_difference,
    unique_null,
    verdict,
)
from probes.statistics.nonlinearity import curve_r2
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
    """Whether experts of one Gaussian cloud seem to be two clusters."""
    points = 0.3 * rng.normal(size=(experts, 20)) * np.arange(1, 21) ** -decay
    similarity_NN = 1 - ((points[:, None] - points) ** 2).sum(axis=2) / 2
    null = continuum(similarity_NN, draws=39, seed=int(rng.integers(2**31)))
    return [p_value(cluster(similarity_NN).silhouette[2], null.silhouette_b) <= ALPHA]


def traits(rng: Random, *, runs: int = 6, experts: int = 4) -> list[bool]:
    """Whether two clusters seem to differ in a trait that they have nothing to do with; runs differ in it."""
    run_N = np.repeat(np.arange(runs), experts)
    trait_N = rng.normal(size=runs)[run_N] + rng.normal(size=len(run_N))
    second_N = rng.random(len(run_N)) < 0.5
    found = trait_difference(trait_N, second_N, run_N, draws=199, seed=int(rng.integers(2**31)))
    return [found.p <= ALPHA]


def useless_set(rng: Random, *, n: int = 120) -> list[bool]:
    """A set of predictors that repeats another and says no more: p <= .05 | its unique part's interval above 0."""
    b_n3 = rng.normal(size=(n, 3))
    sets = {"a": b_n3 @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4)), "b": b_n3, "c": rng.normal(size=(n, 2))}
    Y_n1 = b_n3.sum(axis=1, keepdims=True) + 2 * rng.normal(size=(n, 1))
    unique = partition(sets, Y_n1, seed=0).unique["a"]
    null = unique_null(sets, "a", Y_n1, draws=39, seed=int(rng.integers(2**31)))
    low, _ = student_interval(float(unique.value_t[0]), influence_spread(unique.influence_nt[:, 0]))
    return [p_value(float(unique.value_t[0]), null[:, 0]) <= ALPHA, low > 0]
