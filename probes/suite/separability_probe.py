"""How well does each expert's readout tell two classes apart (Appendix A.3, Figure 5)?

Axes: n images, E experts, C classes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning

from moe.data.readers import Progress
from moe.data.store import ImageStore
from moe.errors import suggest
from moe.wording import first_few
from probes.drawing.base import save
from probes.drawing.matrices import separability_matrices
from probes.probe import READOUT_BASELINES, Baseline, Numbers, Probe, Result
from probes.statistics.animacy import animate_classes
from probes.statistics.class_pairs import MIN_CLASSES, Difference, expert_differences, mean_over_experts
from probes.statistics.constancy import is_constant
from probes.statistics.resampling import mean_of_defined
from probes.statistics.separability import Solver, pair_folds, pairwise_separability
from probes.subject import Subject, dead_note
from probes.tables import mean, number, write_table

_MOST_CLASSES = 60
_FOLDS = 5
_ALPHA = 0.05  # one or more experts that do not differ are called different so rarely


@dataclass(frozen=True)
class Labels:
    """Classes of images, animate ones first where that is known.

    Attributes:
        labels_n: class of each image, -1 where it has none.
        names: of the classes.
        boundary: number of animate classes, None if that is not known.
        concepts_C: concepts (without groups: images) of each class.
        unit: what `concepts_C` counts.
    """

    labels_n: NDArray[np.int64]
    names: list[str]
    boundary: int | None
    concepts_C: NDArray[np.int64]
    unit: str


class SeparabilityProbe(Probe):
    """Separability of classes."""

    about: ClassVar[str] = "separability: pairwise logistic regression between classes on each expert's readout"
    baselines: ClassVar[tuple[Baseline, ...]] = READOUT_BASELINES

    labels: str = Field("default", description='which labels; THINGS has "manual" too, the strict manual categories')
    solver: Solver = Field(
        "optimum", description='"literal": scikit-learn\'s default, which stops short of it, as in the paper'
    )
    grouped: bool = Field(False, description="compare with folds that never split a group (THINGS: a concept)")
    animate: tuple[str, ...] | None = Field(None, description="classes before the dashed line; default: as `animacy`")
    seed: int = Field(0, ge=0, description="of the folds")

    def skip(self, store: ImageStore) -> str | None:
        """Needs two labelled classes, and not so many that their pairs run into thousands."""
        known = {"default", *store.labelings}
        if self.labels not in known:
            return f'there are no labels "{self.labels}" ({suggest(self.labels, known)})'
        if self.grouped and store.groups is None:
            return "these images have no groups, which separability.grouped needs"
        labels_n, names = _raw_labels(store, self.labels)
        if len(names) > _MOST_CLASSES:
            count = len(names) * (len(names) - 1) // 2
            return f"{len(names)} classes make {count:,} pairs; import them with coarser labels"
        present = len(np.unique(labels_n[labels_n >= 0]))
        return None if present > 1 else "these images have fewer than two classes"

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Balanced accuracy of every pair for every expert, with heatmaps; differences between experts."""
        labels = self._labels(subject)
        groups = {"": None} | ({"_grouped": subject.units} if self.grouped else {})
        steps = subject.experts * len(groups)
        accuracy = {
            kind: self._accuracies(subject, labels, units, partial(_shifted, progress, number * subject.experts, steps))
            for number, (kind, units) in enumerate(groups.items())
        }
        counts_C = np.bincount(labels.labels_n[labels.labels_n >= 0], minlength=len(labels.names))
        self._table(folder, labels, accuracy, counts_C)
        self._figure(folder, subject, labels, accuracy["_grouped" if self.grouped else ""])
        numbers, notes = self._numbers(folder, accuracy[""]), dead_note(subject.dead())
        if self.grouped:
            numbers |= _grouped_numbers(accuracy)
        few = [f"{name} ({count})" for name, count in zip(labels.names, counts_C, strict=True) if count < _FOLDS]
        if few:
            notes.append(f"no result, fewer than {_FOLDS} images: {first_few(few)}")
        if numbers["mean_low"] is None:
            notes.append(
                f"how far the mean hangs on the choice of classes cannot be told from fewer than {MIN_CLASSES}"
            )
        return Result(numbers, notes)

    def _accuracies(
        self, subject: Subject, labels: Labels, units: NDArray[np.int64] | None, step: Callable[[int], None]
    ) -> NDArray[np.float64]:
        """(E, C, C); NaN throughout for a dead expert, which has no boundary to fit."""
        rows = np.flatnonzero(labels.labels_n >= 0)
        groups = None if units is None else units[rows]
        splits = pair_folds(labels.labels_n[rows], folds=_FOLDS, seed=self.seed, groups=groups)
        accuracy_ECC = np.full((subject.experts, len(labels.names), len(labels.names)), np.nan)
        for expert, readout_nD in enumerate(subject.activations.readouts_EnD):
            step(expert)
            Z_nd = np.asarray(readout_nD[rows])
            if not is_constant(Z_nd):
                with warnings.catch_warnings():
                    if self.solver == "literal":  # which is what it does
                        warnings.simplefilter("ignore", ConvergenceWarning)
                    found = pairwise_separability(
                        Z_nd, labels.labels_n[rows], folds=_FOLDS, solver=self.solver, splits=splits
                    )
                accuracy_ECC[expert] = found.accuracy
        step(subject.experts)
        return accuracy_ECC

    def _labels(self, subject: Subject) -> Labels:
        """The classes that have images, animate ones first."""
        raw_n, names = _raw_labels(subject.store, self.labels)
        present = np.unique(raw_n[raw_n >= 0])
        sides = animate_classes([names[label] for label in present], self.animate)
        order = present if sides is None else np.concatenate([present[sides], present[~sides]])
        new = np.full(len(names) + 1, -1)
        new[order] = np.arange(len(order))
        labels_n = new[raw_n]  # -1 picks the -1 at the end
        units = subject.units
        counted = [
            np.count_nonzero(labels_n == c) if units is None else len(np.unique(units[labels_n == c]))
            for c in range(len(order))
        ]
        return Labels(
            labels_n, [names[label] for label in order], None if sides is None else int(sides.sum()),
            np.array(counted, np.int64), "images" if units is None else "concepts",
        )  # fmt: skip

    def _table(
        self, folder: Path, labels: Labels, accuracy: dict[str, NDArray[np.float64]], counts_C: NDArray[np.intp]
    ) -> None:
        pairs = list(combinations(range(len(labels.names)), 2))
        header = ["expert", "class_a", "class_b", *(f"balanced_accuracy{kind}" for kind in accuracy)]
        header += ["images_a", "images_b", f"{labels.unit}_a", f"{labels.unit}_b"] if labels.unit != "images" else [
            "images_a", "images_b"]  # fmt: skip
        table = []
        for expert in range(len(accuracy[""])):
            for a, b in pairs:
                row = [
                    expert,
                    labels.names[a],
                    labels.names[b],
                    *(values[expert, a, b] for values in accuracy.values()),
                ]
                row += [int(counts_C[a]), int(counts_C[b])]
                row += [] if labels.unit == "images" else [int(labels.concepts_C[a]), int(labels.concepts_C[b])]
                table.append(row)
        write_table(folder / "separability.csv", header, table)

    def _figure(self, folder: Path, subject: Subject, labels: Labels, accuracy_ECC: NDArray[np.float64]) -> None:
        note, weights = "", np.ones(len(labels.names))
        if labels.unit == "concepts":
            note, weights = (
                "a cell's sides grow with its classes' numbers of concepts; ",
                labels.concepts_C.astype(float),
            )
        note += f"in brackets: {labels.unit}; grey: the same class, or undefined"
        if labels.boundary is not None:
            note += "; dashed: animate | inanimate"
        if self.grouped:
            note += "; no concept on both sides of a split"
        figure = separability_matrices(
            list(accuracy_ECC),
            [f"expert {e}: mean {value:.3f}" for e, value in enumerate(_means(accuracy_ECC))],
            [f"{name} ({count})" for name, count in zip(labels.names, labels.concepts_C, strict=True)],
            weights,
            labels.boundary,
            f"Category separability on {subject.store.name} ({subject.title})",
            note,
        )
        save(figure, folder / "separability.png")

    def _numbers(self, folder: Path, accuracy_ECC: NDArray[np.float64]) -> Numbers:
        means_E = _means(accuracy_ECC)
        one = accuracy_ECC[0][np.triu_indices(accuracy_ECC.shape[1], k=1)]
        numbers: Numbers = {
            "mean": mean(means_E), "lowest_expert": number(means_E.min(initial=np.inf, where=np.isfinite(means_E))),
            "highest_expert": number(means_E.max(initial=-np.inf, where=np.isfinite(means_E))),
            "pairs": len(one), "undefined_pairs": int(np.isnan(one).sum()),
        }  # fmt: skip
        low, high = mean_over_experts(accuracy_ECC).interval()
        differences = expert_differences(accuracy_ECC)
        write_table(folder / "differences.csv", ["expert_a", "expert_b", *Difference._fields[2:]], differences)
        told = [one for one in differences if np.isfinite(one.p_adjusted)]
        return numbers | {
            "mean_low": number(low), "mean_high": number(high),
            "expert_pairs": len(differences),
            "expert_pairs_that_differ": sum(one.p_adjusted <= _ALPHA for one in told) if told else None,
        }  # fmt: skip


def _shifted(progress: Progress, before: int, total: int, done: int) -> None:
    """Progress of a part that begins after `before` steps."""
    progress(before + done, total)


def _raw_labels(store: ImageStore, which: str) -> tuple[NDArray[np.int64], Sequence[str]]:
    if which == "default":
        return store.labels_N, store.manifest.classes
    return store.labelings[which]


def _means(accuracy_ECC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the defined pairs of classes of each expert, (E,)."""
    rows, columns = np.triu_indices(accuracy_ECC.shape[1], k=1)
    return mean_of_defined(accuracy_ECC[:, rows, columns])


def _grouped_numbers(accuracy: dict[str, NDArray[np.float64]]) -> Numbers:
    """Folds by group against folds by image, over the pairs for which both are defined."""
    both = np.isfinite(accuracy[""]) & np.isfinite(accuracy["_grouped"])
    grouped, by_image = (np.where(both, accuracy[kind], np.nan) for kind in ("_grouped", ""))
    change_E = _means(grouped) - _means(by_image)
    return {"mean_grouped": mean(_means(accuracy["_grouped"])), "grouped_minus_image": mean(change_E)}
