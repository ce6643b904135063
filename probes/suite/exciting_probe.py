"""The images that each expert responds to most (Section 4, Figures 2c, 3 and S2).

Axes: n images, E experts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.wording import numbered
from probes.drawing.base import save
from probes.drawing.pictures import Block, picture_grid
from probes.probe import GATE_BASELINES, Baseline, Numbers, Probe, Result
from probes.statistics.constancy import constant_columns
from probes.statistics.exciting import most_exciting, overlap, overlap_null, undecided
from probes.statistics.resampling import p_value
from probes.subject import Subject, dead_note
from probes.tables import mean, write_table

Kind = Literal["readout", "gate"]
KINDS: dict[Kind, str] = {"readout": "readout norm", "gate": "gate logit"}


def scores(subject: Subject, kind: Kind) -> NDArray[np.float32]:
    """(n, E) responses of a kind."""
    return subject.activations.norms_nE if kind == "readout" else subject.activations.logits_nE


class ExcitingProbe(Probe):
    """The images each expert responds to most."""

    about: ClassVar[str] = "exciting: images with the largest readout norm and the largest gate logit for each expert"
    baselines: ClassVar[tuple[Baseline, ...]] = GATE_BASELINES

    count: int = Field(8, ge=1, le=50, description="images for each expert")
    permutations: int = Field(
        999, ge=0, description="of the images (THINGS: of the concepts), for the overlap's p-value"
    )
    seed: int = Field(0, ge=0, description="of the permutations")

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Two picture grids and a table of ids and scores; how far the two kinds of lists overlap."""
        self._write([subject], folder, progress)
        lists = {kind: self._chosen(subject, kind) for kind in KINDS}
        n, count = len(subject.store), lists["gate"].shape[1]
        dead_E = constant_in_any([subject])
        tied_E = ~dead_E & np.any([undecided(scores(subject, kind), count) for kind in KINDS], axis=0)
        undefined_E = dead_E | tied_E
        found_E = np.where(undefined_E, np.nan, overlap(lists["readout"], lists["gate"]))
        write_table(folder / "overlap.csv", ["expert", "overlap_gate_readout"], enumerate_rows(found_E))
        numbers: Numbers = {"images": n, "overlap_gate_readout": mean(found_E), "overlap_chance": count / n}
        if self.permutations and not undefined_E.all():
            null = overlap_null(
                lists["readout"][~undefined_E], lists["gate"][~undefined_E], n, draws=self.permutations,
                seed=self.seed, units=subject.units,
            )  # fmt: skip
            numbers["overlap_p"] = p_value(float(np.nanmean(found_E)), null)
        else:
            numbers["overlap_p"] = None
        return Result(numbers, self._notes(subject, dead_E, tied_E))

    @staticmethod
    def _notes(subject: Subject, dead_E: NDArray[np.bool_], tied_E: NDArray[np.bool_]) -> list[str]:
        dead = subject.dead()
        others = [expert for expert in np.flatnonzero(dead_E).tolist() if expert not in dead]
        notes = dead_note(dead)
        if others:
            notes.append(f"{numbered('expert', others)}: no overlap, the gate or the readout's norm is constant")
        if tied_E.any():
            which = numbered("expert", np.flatnonzero(tied_E).tolist())
            notes.append(f"{which}: no overlap, images on and off the list have the same score")
        return notes

    def across_images(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        """The same grids, the sets of images side by side (Figure 3)."""
        self._write(subjects, folder, progress)
        return Result({}, dead_note(subjects[0].dead()))

    def _chosen(self, subject: Subject, kind: Kind) -> NDArray[np.intp]:
        """(E, count) images of the largest responses."""
        return np.stack([most_exciting(scores_n, self.count) for scores_n in scores(subject, kind).T])

    def _write(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> None:
        table: list[list[Any]] = []
        for number, (kind, what) in enumerate(KINDS.items(), 1):
            blocks, dead_E = [], constant_in_any(subjects, [kind])
            for subject in subjects:
                rows = self._chosen(subject, kind)
                block = exciting_block(subject, list(enumerate(rows)), kind)
                blocks.append(block)
                table += [
                    [subject.store.name, kind, expert, rank, subject.store.ids[row], value]
                    for expert, mine in enumerate(rows)
                    if not dead_E[expert]
                    for rank, (row, value) in enumerate(zip(mine.tolist(), block.scores[expert], strict=True), 1)
                ]
            labels = [f"expert {expert}{': constant' if dead else ''}" for expert, dead in enumerate(dead_E)]
            title = f"Most exciting inputs by {what} ({subjects[0].title})"
            save(picture_grid(blocks, labels, title, what), folder / f"exciting_{kind}.png")
            progress(number, len(KINDS))
        write_table(folder / "exciting.csv", ["images", "score", "expert", "rank", "image", "value"], table)


def constant_in_any(subjects: Sequence[Subject], kinds: Sequence[Kind] = tuple(KINDS)) -> NDArray[np.bool_]:
    """(E,) experts of one run that answer all images of a set alike: their lists would be those of the indices."""
    constant = [constant_columns(scores(subject, kind)) for subject in subjects for kind in kinds]
    return np.asarray(np.any(constant, axis=0), np.bool_)


def enumerate_rows(values_E: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Rows of a table with one number an expert."""
    return list(enumerate(values_E.tolist()))


def exciting_block(subject: Subject, rows: Sequence[tuple[int, NDArray[np.intp]]], kind: Kind = "readout") -> Block:
    """Pictures with their scores: for each (expert, images) a row."""
    values_nE = scores(subject, kind)
    return Block(
        subject.store.name,
        [[subject.store.images_NHWC[row] for row in mine] for _, mine in rows],
        [values_nE[mine, expert].tolist() for expert, mine in rows],
    )
