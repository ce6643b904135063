"""What a probe is given: a run, a set of images, and what the one does with the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callbacks.keys import fewest_views
from moe.data.store import ImageStore
from moe.wording import numbered
from probes.activations import Activations
from probes.snapshots import Snapshot
from probes.statistics.constancy import is_constant
from sweeps.runs.foreign import ForeignRun
from sweeps.runs.run import Run

MAX_IMAGES = 2000
FEW_VIEWS = 16  # in a training step
_FEW = f"under {FEW_VIEWS} views in some training step, statistics that batch norm's running averages describe badly"


@dataclass(frozen=True)
class Subject:
    """One run seen through one set of images.

    Attributes:
        run: the run, or what is kept of a model that was trained elsewhere.
        store: the images.
        activations: of the run's model to the images.
        epoch: epochs trained, if the model is a checkpoint; None for the final one.
        snapshot: the model itself, for what is not among its activations; None where only these are known.
    """

    run: Run | ForeignRun
    store: ImageStore
    activations: Activations
    epoch: int | None = None
    snapshot: Snapshot | None = None

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return len(self.activations.readouts_EnD)

    @property
    def title(self) -> str:
        """The run, for titles of figures."""
        return self.run.title + ("" if self.epoch is None else f" after epoch {self.epoch}")

    @property
    def seed(self) -> int | str:
        """The run's seed; empty where none is known."""
        return self.run.config.seed if isinstance(self.run, Run) else ""

    @property
    def units(self) -> NDArray[np.int64] | None:
        """(n,) what was sampled independently: the concept of each image as a number; None: each image is its own."""
        groups = self.store.groups
        return None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)

    def units_of(self, rows: NDArray[Any]) -> NDArray[np.int64] | None:
        """`units` of some of the images, numbered anew from 0."""
        units = self.units
        return None if units is None else np.unique(units[rows], return_inverse=True)[1].astype(np.int64)

    def dead(self) -> list[int]:
        """Experts that answer all images alike, at the readout."""
        return [
            expert
            for expert, readout_nD in enumerate(self.activations.readouts_EnD)
            if is_constant(np.asarray(readout_nD))
        ]

    def few(self) -> dict[int, int]:
        """Experts that had few views in a training step, with the fewest, in the last epoch of this model's training.

        Empty where training did not count them. Their batch norm learned from statistics of a few images, which its
        running averages describe badly.
        """
        history = self.run.history() if isinstance(self.run, Run) else []
        trained = [row for row in history if self.epoch is None or row["epoch"] == self.epoch]
        last = trained[-1] if trained else {}
        fewest = {expert: last.get(fewest_views(expert)) for expert in range(self.experts)}
        return {expert: int(count) for expert, count in fewest.items() if count is not None and count < FEW_VIEWS}


def dead_note(dead: list[int], run: Run | ForeignRun | None = None) -> list[str]:
    """A note that names dead experts, if there are any."""
    if not dead:
        return []
    where = f" of {run.title}" if run is not None else ""
    return [f"dead {numbered('expert', dead)}{where}: the same readout for all images"]


def few_notes(subjects: Sequence[Subject]) -> list[str]:
    """A note for each run that has experts with few views in a training step; with its id where there are several."""
    few = {subject.run.id: subject.few() for subject in subjects}
    notes = []
    for run, experts in few.items():
        if experts:
            many = "experts" if len(experts) > 1 else "expert"
            where = f" of run {run}" if len(few) > 1 else ""
            named = ", ".join(f"{expert} ({count})" for expert, count in experts.items())
            notes.append(f"{many} {named}{where}: {_FEW}")
    return notes


def rated_rows(store: ImageStore) -> NDArray[np.intp]:
    """Images that have rated dimensions (THINGS: one a concept)."""
    factors = store.factors_NF
    return np.array([], np.intp) if factors is None else np.flatnonzero(np.isfinite(factors).all(axis=1))


def representative_rows(store: ImageStore, count: int = MAX_IMAGES) -> NDArray[np.intp]:
    """Images for representational similarity: the rated ones, at most `count` at even spacing.

    Without rated images those at even spacing among all. An RDM of n images has n(n - 1) / 2 entries an expert, so
    that all images are rarely an option.
    """
    rated = rated_rows(store)
    rows = rated if len(rated) else np.arange(len(store))
    return rows[evenly(len(rows), count)]


def evenly(n: int, count: int) -> NDArray[np.intp]:
    """At most `count` of n places, at even spacing, first and last included."""
    return np.linspace(0, n - 1, min(n, count)).round().astype(np.intp)
