"""THINGS: object photographs by concept, with 66 behavioural dimensions and 27 categories.

Hebart et al. 2019 (images), Hebart et al. 2020 (dimensions). A folder laid out as

    images/<concept>/<photo>.jpg           (or object_images/)
    unique_id.txt                          concepts in row order
    spose_embedding_66d_sorted.txt         concepts x 66
    labels_66.txt or labels_short.txt      names of the dimensions
    things_concepts.tsv                    optional: column "Bottom-up Category (Human Raters)"
    category_mat_manual.tsv                optional: concepts x 27, 1 where a concept is in a category
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe.data.readers import Progress, no_progress, read_images
from moe.data.store import Images
from moe.errors import UserError

EMBEDDING = "spose_embedding_66d_sorted.txt"
_CATEGORY = "Bottom-up Category (Human Raters)"
_MANUAL = "category_mat_manual.tsv"


def is_things(path: Path) -> bool:
    """Whether a folder has THINGS' layout."""
    return (path / EMBEDDING).exists()


def read_things(
    path: Path, *, size: int | None = None, allow_unknown: bool = False, progress: Progress = no_progress
) -> Images:
    """The images with one category each (-1: none or several) and the dimensions on one image a concept.

    The dimensions belong to a concept's reference image: the first by name. Concepts are joined by id. The labels are
    the bottom-up categories; those of the manual matrix, if it is there, are the labeling "manual".

    Args:
        path: the folder.
        size: pixels a side.
        allow_unknown: keep images of concepts that are not in unique_id.txt, without dimensions and category.
        progress: called with (done, total) images.

    Raises:
        UserError: a file is missing or contradicts another.
    """
    folder = next((path / name for name in ("images", "object_images") if (path / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{path} has {EMBEDDING} but no folder images/ or object_images/")
    photos = read_images(folder, size=size, progress=progress)
    concepts = [name.split("/")[0] for name in photos.ids]
    rows, embedding, names, notes = _embedding(path)
    missing = sorted(set(concepts) - set(rows))
    if missing and not allow_unknown:
        raise UserError(
            f"{len(missing)} concept folders are not in unique_id.txt, first: {missing[0]}; remove them, or pass "
            "--allow-unknown to keep their images without dimensions"
        )
    if missing:
        notes.append(f"{len(missing)} concepts are not in unique_id.txt and have no dimensions, first: {missing[0]}")
    factors = np.full((len(concepts), embedding.shape[1]), np.nan, np.float32)
    seen: set[str] = set()
    for number, concept in enumerate(concepts):
        if concept in rows and concept not in seen:
            factors[number] = embedding[rows[concept]]
            seen.add(concept)
    labels, classes = _categories(path, concepts)
    manual = _manual_categories(path, rows, concepts)
    notes.append(f"{len(seen)} of {len(rows)} concepts have images")
    return Images(
        photos.images_NHWC, photos.ids, f"THINGS, {len(seen)} concepts", labels, classes, factors, names,
        groups=concepts, labelings={"manual": manual} if manual else None, notes=tuple(notes),
    )  # fmt: skip


def _embedding(path: Path) -> tuple[dict[str, int], NDArray[np.float64], tuple[str, ...], list[str]]:
    ids = _lines(path / "unique_id.txt")
    try:
        embedding = np.loadtxt(path / EMBEDDING, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path / EMBEDDING} is damaged: {error}") from None
    label_file = next((path / n for n in ("labels_66.txt", "labels_short.txt") if (path / n).exists()), None)
    names = _lines(label_file) if label_file else [f"dimension {n}" for n in range(embedding.shape[1])]
    if embedding.shape != (len(ids), len(names)):
        raise UserError(f"{EMBEDDING} is {embedding.shape}, but {len(ids)} ids and {len(names)} names exist")
    notes = []
    negative = int((embedding < 0).sum())
    if negative:
        notes.append(f"{negative} negative embedding entries (lowest {embedding.min():.1e}) set to 0")
    rows = {concept: number for number, concept in enumerate(ids)}
    return rows, np.maximum(embedding, 0), tuple(names), notes


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise UserError(f"{path} is missing")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _categories(path: Path, concepts: list[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    table = path / "things_concepts.tsv"
    if not table.exists():
        return None, ()
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or {"uniqueID", _CATEGORY} - set(rows[0]):
        raise UserError(f'{table} needs the columns "uniqueID" and "{_CATEGORY}"')
    category = {row["uniqueID"]: row[_CATEGORY].strip() for row in rows}
    single = {concept: name for concept, name in category.items() if name and "," not in name}
    classes = sorted(set(single.values()))
    index = {name: number for number, name in enumerate(classes)}
    labels = [index[single[concept]] if concept in single else -1 for concept in concepts]
    return np.array(labels, np.int64), tuple(classes)


def _manual_categories(
    path: Path, rows: dict[str, int], concepts: list[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """The category of the concepts that the manual matrix puts into exactly one; -1 for all others."""
    table = path / _MANUAL
    if not table.exists():
        return None
    with table.open(newline="", encoding="utf-8") as file:
        classes, *lines = csv.reader(file, delimiter="\t")
    try:
        member = np.array(lines, np.float64)
    except ValueError as error:
        raise UserError(f"{table} is damaged: {error}") from None
    if member.shape != (len(rows), len(classes)):
        raise UserError(f"{_MANUAL} is {member.shape}, but {len(rows)} ids and {len(classes)} categories exist")
    single = np.where((member > 0).sum(axis=1) == 1, (member > 0).argmax(axis=1), -1)
    labels = [int(single[rows[concept]]) if concept in rows else -1 for concept in concepts]
    return np.array(labels, np.int64), tuple(classes)
