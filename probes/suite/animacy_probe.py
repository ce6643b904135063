"""Does each expert, at the gate and at the readout, prefer animate things (Section 5)?

Axes: n images, E experts.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.data.store import ImageStore
from probes.drawing.base import save
from probes.drawing.curves import intervals
from probes.probe import Numbers, Probe, Result
from probes.statistics.animacy import animacy_index, animacy_null, animate_classes, bootstrap_animacy
from probes.statistics.resampling import interval, mean_of_defined, p_value
from probes.subject import Subject, dead_note
from probes.tables import mean, number, write_table


class AnimacyProbe(Probe):
    """Preference for animate things."""

    about: ClassVar[str] = "animacy: preference of each expert's gate and readout for animate things"

    animate: tuple[str, ...] | None = Field(None, description="animate classes; default: known for STL-10 and THINGS")
    permutations: int = Field(199, ge=0, description="of what is animate, for p-values")
    bootstrap: int = Field(1000, ge=0, description="samples of the images (THINGS: of the concepts), for intervals")
    seed: int = Field(0, ge=0, description="of permutations and samples")

    def skip(self, store: ImageStore) -> str | None:
        """Needs classes on both sides."""
        sides = animate_classes(store.manifest.classes, self.animate)
        if sides is None:
            return "it is not known which of these classes are animate; --set 'animacy.animate=[...]' says it"
        present = np.unique(store.labels_N[store.labels_N >= 0])
        if len({bool(sides[label]) for label in present}) < 2:
            return "the labelled images are all animate or all inanimate"
        return None

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Index an expert at gate and readout, with intervals."""
        store = subject.store
        sides = animate_classes(store.manifest.classes, self.animate)
        assert sides is not None  # `skip` looked
        rows = np.flatnonzero(store.labels_N >= 0)
        animate_n = sides[store.labels_N[rows]]
        units = subject.units_of(rows)
        kinds = {"gate": subject.activations.logits_nE[rows], "readout": subject.activations.norms_nE[rows]}
        found: dict[str, NDArray[np.float64]] = {}
        bounds: dict[str, NDArray[np.float64]] = {}
        numbers: Numbers = {}
        for step, (kind, values_nE) in enumerate(kinds.items(), 1):
            found[kind] = animacy_index(values_nE, animate_n)
            bounds[kind] = np.full((subject.experts, 2), np.nan)
            if self.bootstrap:
                drawn = bootstrap_animacy(values_nE, animate_n, draws=self.bootstrap, seed=self.seed, units=units)
                bounds[kind] = np.array([interval(column) for column in drawn.T])
            numbers[f"{kind}_mean_size"] = mean(np.abs(found[kind]))
            if self.permutations:
                null = animacy_null(values_nE, animate_n, draws=self.permutations, seed=self.seed, units=units)
                sizes = mean_of_defined(np.abs(null))
                numbers[f"{kind}_mean_size_null"] = mean(sizes)
                numbers[f"{kind}_p"] = number(p_value(float(mean_of_defined(np.abs(found[kind]))), sizes))
            numbers[f"{kind}_clear"] = _clear(bounds[kind])
            progress(step, len(kinds))
        header = [f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")]
        write_table(
            folder / "animacy.csv",
            ["expert", *header],
            ([e, *(v for kind in kinds for v in (found[kind][e], *bounds[kind][e]))] for e in range(subject.experts)),
        )
        save(
            intervals(
                {
                    "gate logit": (found["gate"], bounds["gate"]),
                    "readout norm": (found["readout"], bounds["readout"]),
                },
                [f"expert {expert}" for expert in range(subject.experts)],
                "animate minus inanimate (d')",
                f"Animacy on {store.name} ({subject.title})" + ("; lines: 95% intervals" if self.bootstrap else ""),
                0.0,
            ),
            folder / "animacy.png",
        )
        return Result(
            numbers
            | {
                "same_sign": number(_same_sign(found["gate"], found["readout"])),
                "images": len(rows),
                "animate_images": int(animate_n.sum()),
            },
            [*dead_note(subject.dead()), f"animate: {', '.join(np.array(store.manifest.classes)[sides])}"],
        )


def _clear(bounds_E2: NDArray[np.float64]) -> int | None:
    """Experts whose interval leaves out 0; None without intervals."""
    if not np.isfinite(bounds_E2).any():
        return None
    return int(((bounds_E2[:, 0] > 0) | (bounds_E2[:, 1] < 0)).sum())


def _same_sign(a_E: NDArray[np.float64], b_E: NDArray[np.float64]) -> float:
    """Share of experts whose gate and readout prefer the same side; NaN if none has both."""
    both = np.isfinite(a_E) & np.isfinite(b_E)
    return float((np.sign(a_E[both]) == np.sign(b_E[both])).mean()) if both.any() else float("nan")
