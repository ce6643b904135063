"""What experts' geometries are compared with: ratings, categories, pixels, shared features, what the user brings.

Axes: n images, k features, N living experts, S subjects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe.errors import UserError
from probes.features import pooled_shared, small_pictures
from probes.statistics.constancy import is_constant
from probes.statistics.pair_vectors import Distance, Measure, pair_vector
from probes.statistics.references import unit
from probes.statistics.similarity import centred_ranks
from probes.subject import Subject
from probes.suite.rdm_files import RDMFile, match_rdm, read_rdm


@dataclass(frozen=True)
class Reference:
    """A geometry of some images.

    Attributes:
        name: for tables and figures.
        rows: (n,) the images, places in the store.
        places: the living experts that it is compared with.
        features_nk: what it is made of; None for a matrix that was brought.
        file: the matrix; None if there are features.
        kept: (n,) its rows for the images.
    """

    name: str
    rows: NDArray[np.intp]
    places: slice
    features_nk: NDArray[np.floating] | None = None
    file: RDMFile | None = None
    kept: NDArray[np.intp] | None = None

    @property
    def subjects(self) -> int:
        """Number of subjects S, 1 where there are none."""
        return 1 if self.file is None else len(self.file.rdms)

    def measurable(self, measure: Measure) -> bool:
        """CKA and Procrustes need the points; of a matrix that was brought only the order of distances is known.

        1 - r and its root, for example, order pairs of images alike and belong to different points.
        """
        return self.file is None or measure == "spearman"

    def vectors(self, distance: Distance, measure: Measure) -> NDArray[np.float32]:
        """Vectors (S, P) of length 1, see `pair_vectors`; a matrix that was brought is what it is at any distance."""
        if self.file is not None and self.kept is not None:
            ranks = [centred_ranks(self.file.vector(subject, self.kept)) for subject in range(self.subjects)]
            return unit(np.stack(ranks))
        assert self.features_nk is not None
        return unit(pair_vector(self.features_nk, distance, measure))[None]


def found_references(
    subjects: Sequence[Subject], of_run: Sequence[slice], rows: NDArray[np.intp], notes: list[str]
) -> list[Reference]:
    """Those that come with the images and the models: dimensions, categories, pixels, shared features.

    Args:
        subjects: the runs, seen through one store.
        of_run: the living experts of each run.
        rows: the images; categories are about those of them that have one.
        notes: gets what is left out.
    """
    store, every = subjects[0].store, slice(0, of_run[-1].stop)
    found = []
    if store.factors_NF is not None and np.isfinite(store.factors_NF[rows]).all():
        found.append(Reference("dimensions", rows, every, store.factors_NF[rows]))
    labelled = rows[store.labels_N[rows] >= 0]
    if len(labelled) >= len(rows) / 10 and len(np.unique(store.labels_N[labelled])) > 1:
        found.append(
            Reference("categories", labelled, every, np.eye(len(store.manifest.classes))[store.labels_N[labelled]])
        )
    snapshots = [subject.snapshot for subject in subjects]
    if any(snapshot is None for snapshot in snapshots):
        notes.append("pixels and shared features are left out: the model is not at hand")
        snapshots = []
    seen = [(snapshot, places) for snapshot, places in zip(snapshots, of_run, strict=False)
            if snapshot is not None and places.start < places.stop]  # fmt: skip
    alike = len({one.preparation for one, _ in seen}) == 1
    pictured = [(seen[0][0], every)] if alike else seen  # all models may get the same pixels
    found += [Reference("pixels", rows, places, small_pictures(one, store, rows)) for one, places in pictured]
    telling = [(one, places) for one, places in seen if one.model.has_shared]
    found += [Reference("shared", rows, places, pooled_shared(one, store, rows)) for one, places in telling]
    if len(telling) < len(seen):
        notes.append("shared features are left out: the model does not tell them")
    for one in [one for one in found if one.features_nk is not None and is_constant(one.features_nk)]:
        notes.append(f"{one.name} is the same for all images and left out")
        found.remove(one)
    return found


def brought_references(
    paths: Sequence[str], subject: Subject, every: slice, most: int, notes: list[str]
) -> list[Reference]:
    """Those of the user's files that are about these images; the others are named in the notes."""
    found: list[Reference] = []
    for path in paths:
        rdm = read_rdm(Path(path))
        try:
            matched = match_rdm(rdm, subject.store, most)
        except UserError as error:
            notes.append(f"left out: {error}")
            continue
        same = sum(one.file is not None and one.file.name == rdm.name for one in found)
        name = f"rdm_{rdm.name}" + (f"_{same + 1}" if same else "")
        notes += matched.notes
        found.append(Reference(name, matched.rows, every, file=rdm, kept=matched.kept))
    return found
