"""What measures of the paper's claims are given, share, and give back.

Axes: n images, R runs, E experts of a run, C classes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from probes.statistics.animacy import animate_classes
from probes.statistics.constancy import is_constant
from probes.statistics.resampling import Interval
from probes.statistics.separability import PairFolds, pair_folds, pairwise_separability
from probes.statistics.spreads import UNKNOWN, Spread, influence_spread, mean_over_cells, seed_spread, student_interval
from probes.subject import Subject, rated_rows
from sweeps.runs.run import Run

Floats = NDArray[np.float64]
Found = TypeVar("Found")
_LEAST_RATED = 50
_MOST_CLASSES = 60


class MissingError(Exception):
    """What a claim needs is not there; the message says what, and how to get it."""


@dataclass(frozen=True)
class Options:
    """Numbers that decide how exact and how slow the measures are; see the probe's options."""

    images: int
    clustered: int
    permutations: int
    halves: int
    bent: float
    loose: float
    alike: float
    correlated: float
    recurring: float
    animate: tuple[str, ...] | None
    seed: int


@dataclass(frozen=True)
class Measured:
    """An effect, what its interval is about, and where a claim says that it lies.

    Attributes:
        effect: over all runs.
        bounds: its 95% interval; NaN where it cannot be told.
        over: what could have come out otherwise.
        region: where the claim says that the effect lies; ends may be infinite.
        p: of the claim's test about something else than the interval; None if it has none, NaN if it cannot be done.
        p_over: what the test is about.
        runs_R: the effect of each run, NaN where it has none; empty if the effect is none of a single run.
        images: interval over images alone, of these runs, where that can be told.
        more: further numbers that a reader needs.
        note: what a reader must know, a sentence without an end; empty: nothing.
    """

    effect: float
    bounds: Interval
    over: str
    region: tuple[float, float]
    p: float | None = None
    p_over: str = ""
    runs_R: Floats = field(default_factory=lambda: np.empty(0))
    images: Interval | None = None
    more: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Asked:
    """All runs on one set of images, and what several measures share.

    Args:
        subjects: a run each, on the same images.
        options: of the probe.
    """

    def __init__(self, subjects: Sequence[Subject], options: Options) -> None:
        self.subjects, self.options, self.store = list(subjects), options, subjects[0].store
        self.cells_R = np.array([_cell(subject) for subject in subjects])
        self._found: dict[Callable[[Asked], Any], Any] = {}

    def once(self, work: Callable[["Asked"], Found]) -> Found:
        """What work on these runs gives, done when it is first asked for."""
        if work not in self._found:
            self._found[work] = work(self)
        found: Found = self._found[work]
        return found

    def known(self, work: Callable[["Asked"], Found]) -> Found | None:
        """What `once` gave, None if it was not asked for or something was missing."""
        return self._found.get(work)

    def over_seeds(self, runs_R: Floats, *more: Spread) -> tuple[float, Interval]:
        """Mean over cells of a number of each run, with its interval over seeds and whatever else varies."""
        effect = mean_over_cells(runs_R, self.cells_R)
        return effect, student_interval(effect, seed_spread(runs_R, self.cells_R), *more)

    def over_images(self, influence_Rn: Floats, units: NDArray[np.int64] | None) -> Spread:
        """Variance over images of a mean over cells, from each run's influences; runs that have none are left out."""
        known_R = np.isfinite(influence_Rn).all(axis=1)
        if not known_R.any():
            return UNKNOWN
        cells = np.unique(self.cells_R[known_R])
        means = [influence_Rn[known_R & (self.cells_R == cell)].mean(axis=0) for cell in cells]
        return influence_spread(np.mean(means, axis=0), units)

    @cached_property
    def rated(self) -> NDArray[np.intp]:
        """Images with rated dimensions.

        Raises:
            MissingError: there are too few.
        """
        rows = rated_rows(self.store)
        if len(rows) < _LEAST_RATED:
            raise MissingError(
                f"{len(rows)} of these images have rated dimensions, {_LEAST_RATED} are needed: add `--images things` "
                "(`moe data import things FOLDER` brings them)"
            )
        return rows

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Classes that have images.

        Raises:
            MissingError: there are not two, or too many.
        """
        present = np.unique(self.store.labels_N[self.store.labels_N >= 0])
        if not 2 <= len(present) <= _MOST_CLASSES:
            raise MissingError(
                f"these images have {len(present)} classes, 2 to {_MOST_CLASSES} are needed: "
                "add `--images stl10-labelled` or others with labels"
            )
        return present

    @cached_property
    def labels_n(self) -> NDArray[np.int64]:
        """Classes numbered among those that have images, -1 for none."""
        new = np.full(len(self.store.manifest.classes) + 1, -1)
        new[self.classes] = np.arange(len(self.classes))
        return np.asarray(new[self.store.labels_N])

    @cached_property
    def sides_C(self) -> NDArray[np.bool_]:
        """Which of `classes` are animate.

        Raises:
            MissingError: that is not known, or all are or none.
        """
        sides = animate_classes([self.store.manifest.classes[label] for label in self.classes], self.options.animate)
        if sides is None:
            raise MissingError(
                "animate and inanimate classes are needed, and known: `--set 'claims.animate=[CLASS, ...]'` says which "
                "are animate; of STL-10 and THINGS it is known"
            )
        return sides

    @cached_property
    def accuracy(self) -> list[Floats]:
        """Of each run, how well its experts tell the classes apart, (E, C, C); NaN for dead experts."""
        rows = np.flatnonzero(self.labels_n >= 0)
        labels_n = self.labels_n[rows]
        folds = pair_folds(labels_n, seed=self.options.seed)
        every = [subject.activations.readouts_EnD for subject in self.subjects]
        return [np.stack([_separability(np.asarray(Z_nD[rows]), labels_n, folds) for Z_nD in one]) for one in every]


def _cell(subject: Subject) -> str:
    """What a run is but for its seed."""
    if not isinstance(subject.run, Run):  # one of its kind
        return subject.run.id
    return json.dumps(subject.run.config.model_dump(mode="json", exclude={"seed", "machine"}), sort_keys=True)


def _separability(Z_nd: NDArray[np.float32], labels_n: NDArray[np.int64], folds: PairFolds) -> Floats:
    if is_constant(Z_nd):
        return np.full((len(folds.classes),) * 2, np.nan)
    return pairwise_separability(Z_nd, labels_n, splits=folds).accuracy
