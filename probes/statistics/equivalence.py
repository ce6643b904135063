"""Are a model's experts alike in how well they tell classes apart?

That no difference is found is no evidence of likeness; few classes never find one. Experts are shown to be alike if
every difference is shown to be smaller than a bound: two one-sided tests for each two experts (Schuirmann 1987), over
classes that one might have chosen, and the largest of all p (an intersection-union test: Berger 1982), which needs no
correction for the number of pairs.

Axes: C classes, E experts, N experts of all runs, R runs.
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from probes.statistics.class_pairs import PairMean, pair_mean
from probes.statistics.resampling import p_value
from probes.statistics.spreads import UNKNOWN, Spread

_NEGLIGIBLE = 1e-12
_LEAST_RUNS = 3  # without one of them there must be two to compare
Floats = NDArray[np.float64]


class Equivalence(NamedTuple):
    """How far a model's experts differ at most.

    Attributes:
        largest: of the sizes of the differences between two experts' mean accuracies; NaN with fewer than two living.
        p: of a difference as large as the bound or larger between some two; NaN where it cannot be told.
    """

    largest: float
    p: float


def equivalence(accuracy_ECC: Floats, bound: float) -> Equivalence:
    """Test whether all experts are equivalent.

    Args:
        accuracy_ECC: symmetric accuracies of E experts between C classes, NaN where undefined, for dead experts
            throughout.
        bound: differences of mean accuracy below it count as none.
    """
    alive = np.flatnonzero(np.isfinite(accuracy_ECC).any(axis=(1, 2)))
    found = [pair_mean(accuracy_ECC[a] - accuracy_ECC[b]) for a, b in combinations(alive, 2)]
    if not found:
        return Equivalence(float("nan"), float("nan"))
    return Equivalence(max(abs(one.mean) for one in found), float(np.max([_p(one, bound) for one in found])))


def _p(difference: PairMean, bound: float) -> float:
    """The larger p of two one-sided tests, by the jackknife over classes; NaN if that cannot be told."""
    near = bound - abs(difference.mean)  # the nearer end of the bound has the larger p
    if difference.jackknife <= _NEGLIGIBLE:
        return 0.0 if near > 0 else 1.0
    return float(student.sf(near / difference.jackknife, difference.classes - 1))


class Likeness(NamedTuple):
    """Correlation between experts' accuracy tables, within a model and between models of different seeds.

    Attributes:
        within: mean over pairs of experts of one run, then over cells of the sweep.
        between: over pairs of experts of two runs of one cell, which differ by seed.
        spread: variance of `within - between` over seeds, by leaving out each run; NaN if a cell has fewer than three.
        p: of as large a difference if the experts of a cell were dealt to its runs at random.
    """

    within: float
    between: float
    spread: Spread
    p: float


def likeness(patterns_NP: Floats, runs_N: NDArray[Any], cells_N: NDArray[Any], *, draws: int, seed: int) -> Likeness:
    """Whether experts of one model are more alike than experts of different seeds.

    If they are not, their likeness says nothing of the model: it is that of any network that learned from these images.

    Args:
        patterns_NP: accuracies of each expert's pairs of classes, without NaN.
        runs_N: run of each expert.
        cells_N: cell of each expert. Only those with two runs or more, and with two experts in a run, are compared.
        draws: permutations.
        seed: of the permutations.
    """
    similarity_NN = _correlations(patterns_NP)
    rng = np.random.default_rng(seed)
    parts: list[tuple[Floats, NDArray[Any]]] = []
    for cell in np.unique(cells_N):
        rows = np.flatnonzero(cells_N == cell)
        part = similarity_NN[np.ix_(rows, rows)], np.unique(runs_N[rows], return_inverse=True)[1]
        if np.isfinite(_means(*part)).all():
            parts.append(part)
    if not parts:
        return Likeness(float("nan"), float("nan"), UNKNOWN, float("nan"))
    within, between = np.mean([_means(*part) for part in parts], axis=0)
    null = [np.mean([_excess(part, rng.permutation(run)) for part, run in parts]) for _ in range(draws)]
    return Likeness(float(within), float(between), _spread(parts), p_value(float(within - between), np.array(null)))


def _correlations(patterns_NP: Floats) -> Floats:
    centred_NP = patterns_NP - patterns_NP.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred_NP /= np.linalg.norm(centred_NP, axis=1, keepdims=True)
    return np.asarray(centred_NP @ centred_NP.T)


def _means(similarity_NN: Floats, run_N: NDArray[Any]) -> tuple[float, float]:
    """Mean similarity within runs and between them; NaN without such pairs."""
    upper = np.triu_indices(len(run_N), k=1)
    same = run_N[upper[0]] == run_N[upper[1]]
    values = similarity_NN[upper]
    return _mean(values[same]), _mean(values[~same])


def _excess(similarity_NN: Floats, run_N: NDArray[Any]) -> float:
    within, between = _means(similarity_NN, run_N)
    return within - between


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _spread(parts: list[tuple[Floats, NDArray[Any]]]) -> Spread:
    variance, freedom = 0.0, 0
    for similarity_NN, run_N in parts:
        runs = np.unique(run_N)
        if len(runs) < _LEAST_RUNS:
            return UNKNOWN
        left = []
        for run in runs:
            kept = run_N != run
            left.append(_excess(similarity_NN[np.ix_(kept, kept)], run_N[kept]))
        variance += (len(runs) - 1) / len(runs) * float(((np.array(left) - np.mean(left)) ** 2).sum())
        freedom += len(runs) - 1
    return Spread(variance / len(parts) ** 2, freedom)
