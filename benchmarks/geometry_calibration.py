"""Simulations for `calibrate`: experts beside a reference, with and without a relation.

Axes: n images, N experts.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from probes.statistics.pair_vectors import Measure, pair_vector, pair_vectors, placed
from probes.statistics.procrustes import procrustes_influence, procrustes_null, shape_of
from probes.statistics.references import Compared, compare, reaches, unit
from probes.statistics.spreads import influence_spread, student_interval

ALPHA = 0.05
Floats = NDArray[np.float64]
Random = np.random.Generator
_WEIGHTS = np.random.default_rng(1).normal(size=(3, 5, 8))  # of three experts, which are the same in all simulations


def _images(rng: Random, n: int) -> Floats:
    """Features of images, some of which are far more extreme than others."""
    return np.asarray(rng.normal(size=(n, 5)) * np.exp(0.3 * rng.normal(size=(n, 1))))


def _experts(features_n5: Floats) -> list[Floats]:
    return [np.tanh(features_n5 @ weights) for weights in _WEIGHTS]


def _compared(experts: list[Floats], reference_nk: Floats, measure: Measure, *, draws: int, seed: int) -> Compared:
    n = len(reference_nk)
    if measure == "procrustes":
        shapes, target = [shape_of(placed(expert, "euclidean")) for expert in experts], shape_of(reference_nk)
        values, influences = zip(*(procrustes_influence(shape, target) for shape in shapes), strict=True)
        return Compared(np.array(values), np.array(influences), procrustes_null(shapes, target, draws, seed))
    vectors_NP = pair_vectors(experts, "euclidean", measure)
    reference_P = unit(pair_vector(reference_nk, "euclidean", measure))
    return compare(vectors_NP, [reference_P], n, ranked=measure == "spearman", draws=draws, seed=seed)[0]


def unrelated(rng: Random, *, measure: Measure = "spearman", n: int = 40, classes: int = 0) -> list[bool]:
    """Whether experts seem to be related to a reference that has nothing to do with them: the mean, some expert.

    The reference has features of its own, or the classes of the images, which are unequal.
    """
    reference_nk = _images(rng, n) if not classes else np.eye(classes)[rng.integers(0, classes, n) % (classes - 1)]
    found = _compared(_experts(_images(rng, n)), reference_nk, measure, draws=99, seed=int(rng.integers(2**31)))
    largest_D = found.null_DN.max(axis=1)
    return [
        reaches(float(found.value_N.mean()), found.null_DN.mean(axis=1)) <= ALPHA,
        any(reaches(float(value), largest_D) <= ALPHA for value in found.value_N),
    ]


def _related(rng: Random, n: int, measure: Measure, *, tied: bool) -> Compared:
    features = _images(rng, n)
    reference = (features[:, :2] > 0.5).astype(float) if tied else features[:, :3]
    return _compared(_experts(features), reference, measure, draws=0, seed=0)


@cache
def _true_value(measure: Measure, n: int, tied: bool) -> float:
    """Over all images; of Procrustes, which is above 0 by chance, over as many as are shown."""
    rng = np.random.default_rng(0)
    sizes = [n] * 4000 if measure == "procrustes" else [600] * 16
    return float(np.mean([_related(rng, size, measure, tied=tied).value_N.mean() for size in sizes]))


def covered(rng: Random, *, measure: Measure = "spearman", n: int = 60, tied: bool = False) -> list[bool]:
    """Whether the mean over three experts lies in its interval over images."""
    found = _related(rng, n, measure, tied=tied)
    spread = influence_spread(found.influence_Nn.mean(axis=0))
    low, high = student_interval(float(found.value_N.mean()), spread)
    return [low <= _true_value(measure, n, tied) <= high]
