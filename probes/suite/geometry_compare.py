"""Every expert beside every reference, under every distance and measure; and every expert beside every other.

Axes: n images, N living experts, m those that a reference is compared with, S subjects, P pairs of images, D draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.statistics.pair_vectors import Distance, Measure, pair_vectors, placed
from probes.statistics.procrustes import (
    procrustes,
    procrustes_influence,
    procrustes_matrix,
    procrustes_null,
    shape_of,
)
from probes.statistics.references import Ceiling, Compared, compare, cosines, noise_ceiling, reaches
from probes.statistics.resampling import Interval
from probes.statistics.similarity import correlations
from probes.statistics.spreads import Spread, influence_spread, student_interval, within_cells
from probes.suite.geometry_references import Reference

Floats = NDArray[np.float64]
Similarities = dict[tuple[Distance, Measure], Floats]  # (N, N) each
_LEAST_SUBJECTS = 2


@dataclass(frozen=True)
class Setting:
    """What is computed.

    Attributes:
        distances: between readouts; intervals and p-values are those of the first.
        measures: of two geometries.
        draws: permutations of the images.
        seed: of the permutations.
        runs_N: the run of each living expert.
        sizes_N: the number of experts of that run.
    """

    distances: tuple[Distance, ...]
    measures: tuple[Measure, ...]
    draws: int
    seed: int
    runs_N: NDArray[Any]
    sizes_N: NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """Some experts beside one reference under one distance and one measure.

    Attributes:
        reference: its name.
        distance: between readouts.
        measure: of geometries.
        places: the experts, (m,).
        value_m: similarity; the mean over subjects where there are several.
        ceiling: of each expert, (m,) both; NaN where there is none.
        influence_mn: of each image on the value, empty where there is no interval.
        null_Dm: values with permuted images, empty where there is no p.
        subjects_mS: the value with each subject, where there are several.
    """

    reference: str
    distance: Distance
    measure: Measure
    places: NDArray[np.intp]
    value_m: Floats
    ceiling: Ceiling
    influence_mn: Floats = field(default_factory=lambda: np.empty((0, 0)))
    null_Dm: Floats = field(default_factory=lambda: np.empty((0, 0)))
    subjects_mS: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def interval(self, which_m: NDArray[np.bool_], setting: Setting | None = None) -> Interval:
        """Of the mean over some experts: over other images, other subjects and, with the setting, other seeds.

        How far seeds differ is taken to be the same for every number of experts.
        """
        if not len(self.influence_mn):
            return Interval(float("nan"), float("nan"))
        spreads: list[Spread] = [influence_spread(self.influence_mn[which_m].mean(axis=0))]
        if self.subjects_mS.shape[1] >= _LEAST_SUBJECTS:
            of_S = self.subjects_mS[which_m].mean(axis=0)
            spreads.append(Spread(float(of_S.var(ddof=1)) / len(of_S), len(of_S) - 1))
        if setting is not None and len(np.unique(setting.runs_N)) > 1:
            variance, freedom = self._over_seeds(setting)
            spreads.append(Spread(variance / len(np.unique(setting.runs_N[self.places][which_m])), freedom))
        low, high = student_interval(float(self.value_m[which_m].mean()), *spreads)
        least = 0.0 if self.measure == "procrustes" else -1.0
        return Interval(float(np.maximum(low, least)), float(np.minimum(high, 1.0)))

    def _over_seeds(self, setting: Setting) -> Spread:
        """Variance over seeds of a run's mean."""
        finite_m = np.isfinite(self.value_m)
        places, value_m = self.places[finite_m], self.value_m[finite_m]
        runs, run_m = np.unique(setting.runs_N[places], return_inverse=True)
        sizes_R = [setting.sizes_N[places[run_m == run][0]] for run in range(len(runs))]
        return within_cells(np.bincount(run_m, value_m) / np.bincount(run_m), np.array(sizes_R))

    def p(self, which_m: NDArray[np.bool_]) -> float:
        """Permutation p of the mean over some experts."""
        if not len(self.null_Dm):
            return float("nan")
        return reaches(float(self.value_m[which_m].mean()), self.null_Dm[:, which_m].mean(axis=1))

    def chance(self, which_m: NDArray[np.bool_]) -> float:
        """Mean over permutations of the mean over some experts."""
        return float(self.null_Dm[:, which_m].mean()) if len(self.null_Dm) else float("nan")

    def p_adjusted(self, which_m: NDArray[np.bool_]) -> list[float]:
        """P of each of some experts, corrected for all of them: against the largest of each permutation."""
        if not (len(self.null_Dm) and which_m.any()):
            return [float("nan")] * int(which_m.sum())
        largest_D = np.fmax.reduce(self.null_Dm[:, which_m], axis=1)
        return [reaches(float(value), largest_D) for value in self.value_m[which_m]]


def compare_all(
    readouts: Sequence[NDArray[np.floating[Any]]],
    references: Sequence[Reference],
    setting: Setting,
    step: Callable[[], None],
    *,
    others: bool = True,
) -> tuple[list[Finding], Similarities]:
    """Experts beside references that are about the same images, and experts beside each other.

    Args:
        readouts: N arrays (n, d_i) of living experts to these images.
        references: of the same images.
        setting: what is computed.
        step: called after each distance and measure.
        others: whether experts are set beside each other; else only where noise ceilings need it.
    """
    found: list[Finding] = []
    similarities: Similarities = {}
    for distance in setting.distances:
        for measure in setting.measures:
            mine = [reference for reference in references if reference.measurable(measure)]
            if measure == "procrustes":
                shapes = [shape_of(placed(readout, distance)) for readout in readouts]
                found += _shapes(shapes, mine, distance, setting)
                if others:
                    similarities[distance, measure] = procrustes_matrix(shapes)
            else:
                parts, similarities[distance, measure] = _vectors(readouts, mine, distance, measure, setting)
                found += parts
            step()
    return found, similarities


def _vectors(
    readouts: Sequence[NDArray[np.floating[Any]]],
    references: Sequence[Reference],
    distance: Distance,
    measure: Measure,
    setting: Setting,
) -> tuple[list[Finding], Floats]:
    """Spearman's correlation or CKA: cosines of vectors over pairs of images."""
    n = len(readouts[0])
    vectors_NP = pair_vectors(readouts, distance, measure)
    similarity_NN = correlations(vectors_NP)
    ceiling_N = ceilings(similarity_NN, setting.sizes_N, setting.runs_N)
    subjects = [one.vectors(distance, measure) for one in references]
    means = [subjects_SP.mean(axis=0) for subjects_SP in subjects]
    if distance == setting.distances[0] and references:
        compared = compare(
            vectors_NP, means, n, ranked=measure == "spearman", draws=setting.draws, seed=setting.seed,
            places=[one.places for one in references],
        )  # fmt: skip
    else:
        none = np.empty((0, 0))
        compared = [Compared(cosines(vectors_NP[one.places], mean_P[None])[:, 0], none, none)
                    for one, mean_P in zip(references, means, strict=True)]  # fmt: skip
    found = []
    for one, subjects_SP, (value_m, influence_mn, null_Dm) in zip(references, subjects, compared, strict=True):
        several = len(subjects_SP) >= _LEAST_SUBJECTS
        own = noise_ceiling(correlations(subjects_SP)) if several else None
        found.append(Finding(
            one.name, distance, measure, np.arange(len(vectors_NP))[one.places], value_m,
            Ceiling(*(part[one.places] for part in ceiling_N)) if own is None
            else Ceiling(*(np.full(len(value_m), end_S.mean()) for end_S in own)),
            influence_mn, null_Dm,
            cosines(vectors_NP[one.places], subjects_SP) if several and len(influence_mn) else np.empty((0, 0)),
        ))  # fmt: skip
    return found, similarity_NN


def _shapes(
    shapes: Sequence[Floats], references: Sequence[Reference], distance: Distance, setting: Setting
) -> list[Finding]:
    """Procrustes. A mean over shapes would have to be found by alignment, so that it has no noise ceiling here."""
    found = []
    for one in references:
        assert one.features_nk is not None  # others are not measurable
        target_nk, mine = shape_of(placed(one.features_nk, distance)), shapes[one.places]
        value_m, influence_mn, null_Dm = [procrustes(shape, target_nk) for shape in mine], *([np.empty((0, 0))] * 2)
        if distance == setting.distances[0]:
            influence_mn = np.array([procrustes_influence(shape, target_nk)[1] for shape in mine])
            null_Dm = procrustes_null(mine, target_nk, setting.draws, setting.seed)
        none = np.full(len(mine), np.nan)
        found.append(Finding(
            one.name, distance, "procrustes", np.arange(len(shapes))[one.places], np.array(value_m),
            Ceiling(none, none), influence_mn, null_Dm,
        ))  # fmt: skip
    return found


def ceilings(similarity_NN: Floats, sizes_N: NDArray[np.int64], runs_N: NDArray[Any]) -> Ceiling:
    """Noise ceilings between seeds, (N,) both: among the runs with as many experts; NaN where there is but one."""
    low_N, high_N = np.full(len(runs_N), np.nan), np.full(len(runs_N), np.nan)
    alive_N = np.isfinite(similarity_NN.diagonal())
    for size in np.unique(sizes_N):
        mine = np.flatnonzero((sizes_N == size) & alive_N)
        if len(np.unique(runs_N[mine])) > 1:
            found = noise_ceiling(similarity_NN[np.ix_(mine, mine)], runs_N[mine])
            low_N[mine], high_N[mine] = found
    return Ceiling(low_N, high_N)


def merged(found: Sequence[Finding]) -> list[Finding]:
    """One finding a reference, distance and measure, where each run has a reference of its own (shared features)."""
    parts: dict[tuple[str, Distance, Measure], list[Finding]] = {}
    for one in found:
        parts.setdefault((one.reference, one.distance, one.measure), []).append(one)
    return [
        Finding(
            *key, np.concatenate([one.places for one in mine]), np.concatenate([one.value_m for one in mine]),
            Ceiling(*(np.concatenate(ends) for ends in zip(*(one.ceiling for one in mine), strict=True))),
            np.concatenate([one.influence_mn for one in mine]),
            np.concatenate([one.null_Dm for one in mine], axis=1),
            np.concatenate([one.subjects_mS for one in mine]),
        )
        for key, mine in parts.items()
    ]  # fmt: skip


def other_seeds(similarities: Similarities, setting: Setting) -> list[Finding]:
    """Experts beside those of the other runs with as many experts: the mean over these."""
    found = []
    for (distance, measure), similarity_NN in similarities.items():
        value_N = np.full(len(similarity_NN), np.nan)
        for place, (run, size) in enumerate(zip(setting.runs_N, setting.sizes_N, strict=True)):
            others = (setting.runs_N != run) & (setting.sizes_N == size)
            finite = similarity_NN[place][others & np.isfinite(similarity_NN[place])]
            value_N[place] = finite.mean() if len(finite) else np.nan
        if np.isfinite(value_N).any():
            none = np.full(len(value_N), np.nan)
            found.append(
                Finding("other_seeds", distance, measure, np.arange(len(value_N)), value_N, Ceiling(none, none))
            )
    return found
