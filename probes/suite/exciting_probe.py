"""The images that each expert responds to most (Section 4, Figures 2c, 3 and S2).

Axes: n images, E experts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import hypergeom

from moe.data.readers import Progress
from probes.drawing.base import save
from probes.drawing.pictures import Block, picture_grid
from probes.probe import Probe, Result
from probes.statistics.exciting import most_exciting
from probes.subject import Subject, dead_note
from probes.tables import write_table

Kind = Literal["readout", "gate"]
KINDS: dict[Kind, str] = {"readout": "readout norm", "gate": "gate logit"}


def scores(subject: Subject, kind: Kind) -> NDArray[np.float32]:
    """(n, E) responses of a kind."""
    return subject.activations.norms_nE if kind == "readout" else subject.activations.logits_nE


class ExcitingProbe(Probe):
    """The images each expert responds to most."""

    about: ClassVar[str] = "exciting: images with the largest readout norm and the largest gate logit for each expert"

    count: int = Field(8, ge=1, le=50, description="images for each expert")

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Two picture grids and a table of ids and scores."""
        self._write([subject], folder, progress)
        best = {kind: self._chosen(subject, kind) for kind in KINDS}
        shared = [len(np.intersect1d(a, b)) for a, b in zip(best["readout"], best["gate"], strict=True)]
        count = len(best["gate"][0])
        n = len(subject.store)
        return Result(
            {
                "images": n,
                "overlap_gate_readout": float(np.mean(shared)) / count,
                # of two random sets of that size: the mean of the hypergeometric distribution
                "overlap_chance": count / n,
                "overlap_p": overlap_p(sum(shared), count, n, subject.experts),
            },
            dead_note(subject.dead()),
        )

    def across_images(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        """The same grids, the sets of images side by side (Figure 3)."""
        self._write(subjects, folder, progress)
        return Result({}, dead_note(subjects[0].dead()))

    def _chosen(self, subject: Subject, kind: Kind) -> list[NDArray[np.intp]]:
        return [most_exciting(scores_n, self.count) for scores_n in scores(subject, kind).T]

    def _write(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> None:
        table: list[list[Any]] = []
        for number, (kind, what) in enumerate(KINDS.items(), 1):
            blocks = []
            for subject in subjects:
                rows = self._chosen(subject, kind)
                block = exciting_block(subject, list(enumerate(rows)), kind)
                blocks.append(block)
                table += [
                    [subject.store.name, kind, expert, rank, subject.store.ids[row], value]
                    for expert, mine in enumerate(rows)
                    for rank, (row, value) in enumerate(zip(mine.tolist(), block.scores[expert], strict=True), 1)
                ]
            labels = [f"expert {expert}" for expert in range(subjects[0].experts)]
            title = f"Most exciting inputs by {what} ({subjects[0].title})"
            save(picture_grid(blocks, labels, title, what), folder / f"exciting_{kind}.png")
            progress(number, len(KINDS))
        write_table(folder / "exciting.csv", ["images", "score", "expert", "rank", "image", "value"], table)


def overlap_p(shared: int, count: int, n: int, experts: int) -> float:
    """Probability that pairs of unrelated lists share as many images, all experts together, or more.

    Args:
        shared: images in both lists, summed over experts.
        count: images of a list.
        n: images to choose from.
        experts: number of experts E, that is of pairs of lists.
    """
    one = hypergeom(n, count, count).pmf(np.arange(count + 1))
    total = np.ones(1)
    for _ in range(experts):
        total = np.convolve(total, one)
    return float(min(1.0, total[shared:].sum()))


def exciting_block(subject: Subject, rows: Sequence[tuple[int, NDArray[np.intp]]], kind: Kind = "readout") -> Block:
    """Pictures with their scores: for each (expert, images) a row."""
    values_nE = scores(subject, kind)
    return Block(
        subject.store.name,
        [[subject.store.images_NHWC[row] for row in mine] for _, mine in rows],
        [values_nE[mine, expert].tolist() for expert, mine in rows],
    )
