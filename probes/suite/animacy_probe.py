"""Does each expert, at the gate and at the readout, prefer animate things (Section 5)?

Axes: n images, E experts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.data.store import ImageStore
from moe.errors import UserError, suggest
from probes.drawing.base import save
from probes.drawing.curves import intervals
from probes.probe import READOUT_BASELINES, Baseline, Numbers, Probe, Result
from probes.statistics.animacy import (
    SplitTest,
    animacy_index,
    animacy_test,
    animate_classes,
    bootstrap_animacy,
    plain_name,
)
from probes.statistics.resampling import interval
from probes.subject import Subject, dead_note
from probes.tables import mean, number, write_table

_ALPHA = 0.05
ByKind = Mapping[str, NDArray[np.float64]]  # "gate", "readout"


class AnimacyProbe(Probe):
    """Preference for animate things."""

    about: ClassVar[str] = "animacy: preference of each expert's gate and readout for animate things"
    baselines: ClassVar[tuple[Baseline, ...]] = (*READOUT_BASELINES, "random_router")

    animate: tuple[str, ...] | None = Field(None, description="animate classes; default: known for STL-10 and THINGS")
    divisions: int = Field(
        20_000,
        ge=0,
        description="divisions of the classes to compare with, all where there are no more; 0: no p-values",
    )
    bootstrap: int = Field(1000, ge=0, description="samples of the images (THINGS: of the concepts), for intervals")
    seed: int = Field(0, ge=0, description="of divisions and samples")

    def check(self, stores: Sequence[ImageStore]) -> None:
        """Every class that `animate` names is one of some of the images."""
        classes = {plain_name(name): name for store in stores for name in store.manifest.classes}
        for name in self.animate or ():
            if plain_name(name) not in classes:
                raise UserError(f'animacy.animate: no class "{name}": {suggest(name, classes.values())}')

    def skip(self, store: ImageStore) -> str | None:
        """Needs classes on both sides."""
        sides = animate_classes(store.manifest.classes, self.animate)
        if sides is None and self.animate is not None:
            return "animacy.animate names none of its classes, or all"
        if sides is None:
            return "it is not known which of these classes are animate; --set 'animacy.animate=[...]' says it"
        present = np.unique(store.labels_N[store.labels_N >= 0])
        if len({bool(sides[label]) for label in present}) < 2:
            return "the labelled images are all animate or all inanimate"
        return None

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Index an expert at gate and readout, with intervals over images and p over divisions of the classes."""
        store = subject.store
        sides_C = animate_classes(store.manifest.classes, self.animate)
        assert sides_C is not None  # `skip` looked
        rows = np.flatnonzero(store.labels_N >= 0)
        animate_n = sides_C[store.labels_N[rows]]
        values = {"gate": subject.activations.logits_nE[rows], "readout": subject.activations.norms_nE[rows]}
        found = {kind: animacy_index(values_nE, animate_n) for kind, values_nE in values.items()}
        progress(1, 3)
        bounds = {
            kind: self._bounds(values_nE, animate_n, subject.units_of(rows)) for kind, values_nE in values.items()
        }
        progress(2, 3)
        tests = {
            kind: animacy_test(values_nE, store.labels_N[rows], sides_C, most=self.divisions, seed=self.seed)
            for kind, values_nE in (values.items() if self.divisions else ())
        }
        self._table(folder, found, bounds, tests)
        _figure(folder, subject, found, bounds)
        progress(3, 3)
        numbers = _headline(found, tests) | {"images": len(rows), "animate_images": int(animate_n.sum())}
        notes = [*dead_note(subject.dead()), f"animate: {', '.join(np.array(store.manifest.classes)[sides_C])}"]
        return Result(numbers, notes + _what_can_be_told(tests))

    def _bounds(
        self, values_nE: NDArray[np.float32], animate_n: NDArray[np.bool_], units: NDArray[np.int64] | None
    ) -> NDArray[np.float64]:
        """(E, 2) intervals over images."""
        if not self.bootstrap:
            return np.full((values_nE.shape[1], 2), np.nan)
        drawn = bootstrap_animacy(values_nE, animate_n, draws=self.bootstrap, seed=self.seed, units=units)
        return np.array([interval(column) for column in drawn.T])

    @staticmethod
    def _table(folder: Path, found: ByKind, bounds: ByKind, tests: Mapping[str, SplitTest]) -> None:
        header, columns = ["expert"], []
        for kind, index_E in found.items():
            header += [kind, f"{kind}_low", f"{kind}_high"]
            columns += [index_E, bounds[kind][:, 0], bounds[kind][:, 1]]
            if kind in tests:
                header += [f"{kind}_p", f"{kind}_p_adjusted"]
                columns += [tests[kind].p_E, tests[kind].p_adjusted_E]
        write_table(folder / "animacy.csv", header, ([e, *row] for e, row in enumerate(zip(*columns, strict=True))))


def _headline(found: ByKind, tests: Mapping[str, SplitTest]) -> Numbers:
    numbers: Numbers = {}
    for kind, index_E in found.items():
        numbers[f"{kind}_mean_size"] = mean(np.abs(index_E))
        if kind in tests:
            test = tests[kind]
            numbers[f"{kind}_mean_size_null"] = mean(test.sizes_S[1:])
            numbers[f"{kind}_p"] = number(test.p)
            numbers[f"{kind}_clear"] = int((test.p_adjusted_E <= _ALPHA).sum()) if _can_tell(test) else None
    return numbers | {"same_sign": number(_same_sign(found["gate"], found["readout"]))}


def _can_tell(test: SplitTest) -> bool:
    """Whether the classes allow enough divisions for a p below 5%."""
    return len(test.index_SE) * _ALPHA >= 1


def _what_can_be_told(tests: Mapping[str, SplitTest]) -> list[str]:
    """What the p-values are about, and whether they can be small at all."""
    if not tests:
        return []
    test = next(iter(tests.values()))
    count = len(test.index_SE)
    which = f"all {count:,}" if test.every else f"{count:,} random"
    notes = [f"p-values compare with {which} divisions of the classes into kinds of these sizes"]
    if not _can_tell(test):
        notes.append(f"animacy cannot be told from other divisions: with {count} of them p is at least {1 / count:.2g}")
    return notes


def _figure(folder: Path, subject: Subject, found: ByKind, bounds: ByKind) -> None:
    panels = {"gate logit": (found["gate"], bounds["gate"]), "readout norm": (found["readout"], bounds["readout"])}
    lines = "; lines: 95% over images of these classes" if np.isfinite(bounds["gate"]).any() else ""
    figure = intervals(
        panels,
        [f"expert {expert}" for expert in range(subject.experts)],
        "animate minus inanimate (d')",
        f"Animacy on {subject.store.name} ({subject.title}){lines}",
        0.0,
    )
    save(figure, folder / "animacy.png")


def _same_sign(a_E: NDArray[np.float64], b_E: NDArray[np.float64]) -> float:
    """Share of experts whose gate and readout prefer the same side; NaN if none has both."""
    both = np.isfinite(a_E) & np.isfinite(b_E)
    return float((np.sign(a_E[both]) == np.sign(b_E[both])).mean()) if both.any() else float("nan")
