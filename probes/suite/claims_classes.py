"""Claims about classes: are experts alike in what they tell apart, and is animacy what parts the classes most?

Axes: R runs, E experts of a run, N experts of all runs, C classes, P pairs of classes.
"""

import math
from collections.abc import Sequence

import numpy as np

from probes.statistics.equivalence import Likeness, equivalence, likeness
from probes.statistics.resampling import mean_of_defined
from probes.statistics.split_contrast import class_distances, contrast_test, contrasts
from probes.statistics.spreads import student_interval
from probes.statistics.verdicts import ALPHA
from probes.suite.claims_asked import Asked, Floats, Measured, MissingError

_DIVISIONS = 20_000
_DRAWS = 999


def separability_alike(asked: Asked) -> Measured:
    """No two experts of a model differ in mean accuracy by as much as a bound (Figure 5)."""
    found = [equivalence(accuracy_ECC, asked.options.alike) for accuracy_ECC in asked.accuracy]
    runs_R = np.array([one.largest for one in found])
    if np.isnan(runs_R).all():
        raise MissingError("no run has two living experts to compare")
    effect, bounds = asked.over_seeds(runs_R)
    p = float(np.max([one.p for one in found if np.isfinite(one.largest)]))  # all runs: the weakest evidence
    return Measured(effect, bounds, "seeds", (-math.inf, asked.options.alike), p, "classes", runs_R)


def separability_of_images(asked: Asked) -> Measured:
    """Experts of one model are no more alike than experts of different seeds."""
    found = _likeness(asked)
    if np.isnan(found.within):
        raise MissingError(
            "two seeds of one configuration with two living experts each are needed: add seeds to the sweep's file and "
            "launch it again"
        )
    difference, bound = found.within - found.between, asked.options.correlated
    return Measured(
        difference, student_interval(difference, found.spread), "seeds", (-bound, bound),
        more={"within": found.within, "between": found.between, "p_more_alike_within": found.p},
    )  # fmt: skip


def _likeness(asked: Asked) -> Likeness:
    upper = np.triu_indices(len(asked.classes), k=1)
    patterns = [accuracy_CC[upper] for accuracy_ECC in asked.accuracy for accuracy_CC in accuracy_ECC]
    runs = np.repeat(np.arange(len(asked.subjects)), [len(accuracy_ECC) for accuracy_ECC in asked.accuracy])
    alive = np.array([np.isfinite(pattern_P).any() for pattern_P in patterns])
    patterns_NP = np.array(patterns)[alive]
    defined_P = np.isfinite(patterns_NP).all(axis=0)
    return likeness(
        patterns_NP[:, defined_P], runs[alive], asked.cells_R[runs[alive]], draws=_DRAWS, seed=asked.options.seed
    )


def animacy_in_separability(asked: Asked) -> Measured:
    """Accuracies are higher across animacy than within, more so than for any other division of the classes."""
    return _animacy(asked, [_mean_table(accuracy_ECC) for accuracy_ECC in asked.accuracy])


def animacy_in_geometry(asked: Asked) -> Measured:
    """Readouts are farther apart across animacy than within, more so than for any other division of the classes."""
    rows = np.flatnonzero(asked.labels_n >= 0)
    tables = []
    for subject in asked.subjects:
        dead = set(subject.dead())
        living = [Z_nD for e, Z_nD in enumerate(subject.activations.readouts_EnD) if e not in dead]
        every = [class_distances(np.asarray(Z_nD[rows]), asked.labels_n[rows], len(asked.classes)) for Z_nD in living]
        tables.append(_mean_table(np.array(every).reshape(len(living), len(asked.classes), len(asked.classes))))
    return _animacy(asked, tables)


def _mean_table(tables_ECC: Floats) -> Floats:
    return mean_of_defined(np.moveaxis(tables_ECC, 0, -1))


def _animacy(asked: Asked, tables: Sequence[Floats]) -> Measured:
    """The contrast of each run's table; the test is of the mean table, over divisions of the classes."""
    sides_C = asked.sides_C
    runs_R = np.array([contrasts(table_CC, sides_C[None])[0] for table_CC in tables])
    if np.isnan(runs_R).all():
        raise MissingError("two animate or two inanimate classes are needed, and a living expert")
    cells = np.unique(asked.cells_R)
    of_cells = [mean_of_defined(np.stack([t for t, c in zip(tables, asked.cells_R, strict=True) if c == cell], axis=-1))
                for cell in cells]  # fmt: skip
    test = contrast_test(
        mean_of_defined(np.stack(of_cells, axis=-1)), sides_C, most=_DIVISIONS, seed=asked.options.seed
    )
    effect, bounds = asked.over_seeds(runs_R)
    count = len(test.contrast_S)
    few = f"{len(asked.classes)} classes allow {count} divisions, so that p is at least {1 / count:.2g}"
    return Measured(
        effect, bounds, "seeds", (test.critical, math.inf), test.p, "divisions of the classes", runs_R,
        more={"divisions": float(count), "rank": float((test.contrast_S >= test.contrast).sum()),
         "largest_of_the_others": float(np.nanmax(test.contrast_S[1:], initial=-math.inf))},
        note=few if count * ALPHA < 1 else "",
    )  # fmt: skip
