"""THINGS: object photographs by concept, with 66 (or 49) behavioural dimensions and 27 categories.

Hebart et al. 2019 (images), Hebart et al. 2020 (dimensions). A folder laid out as it is downloaded from OSF; the tables
may lie in folders like data/, variables/ and Metadata/, and be .txt, .tsv or .csv:

    images/<concept>/<photo>.jpg           or object_images/, or several object_images_A-C/, ...; 00001_<concept> too
    unique_id.txt                          concepts in row order
    spose_embedding_66d_sorted.txt         concepts x 66; 49d too
    labels_66.txt, labels_short.txt, labels.txt    names of the dimensions
    things_concepts.tsv                    optional, also _concepts-metadata_things.tsv: column "Bottom-up Category ..."
    category_mat_manual.tsv                optional: concepts x 27, 1 where a concept is in a category
"""

import csv
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from moe.data.files import read_lines, read_text
from moe.data.readers import DEFAULTS, ReadOptions, read_images
from moe.data.sources import ZIP_DAMAGE
from moe.data.store import Images
from moe.errors import UserError
from moe.wording import counted, first_few, printable, reason

EMBEDDING = "spose_embedding_66d_sorted.txt"
_EMBEDDING = re.compile(r"spose_embedding_?(\d*)d?_?.*\.(txt|tsv|csv)", re.IGNORECASE)
_CONCEPTS = re.compile(r"_?(things_concepts|concepts[-_]metadata_things)\.(tsv|csv|txt)", re.IGNORECASE)
_IMAGES = re.compile(r"_?(object_)?images?(_\w-\w|_cc0|_things)?", re.IGNORECASE)
_SUFFIXES = (".txt", ".tsv", ".csv")
_DEEPEST, _FEW = 3, 40  # levels and folders beside each other in which tables are looked for
_IDS, _MANUAL = "unique_id", "category_mat_manual"
_CATEGORY = "Bottom-up Category (Human Raters)"
_NUMBERED = re.compile(r"[0-9]+[_-](?P<concept>.+)")
_PHOTO = re.compile(r"_[0-9]+[a-z]*$", re.IGNORECASE)


class _Folder:
    """The files of a copy of THINGS, wherever they lie in it."""

    def __init__(self, path: Path) -> None:
        while len(inside := [entry for entry in path.iterdir() if not entry.name.startswith(".")]) == 1:
            if not inside[0].is_dir():
                break
            path = inside[0]  # as an archive unpacks, into a folder of its own
        self.path = path
        self.places = list(_places(path, _DEEPEST))
        self.files = {file.name.casefold(): file for place in reversed(self.places) for file in _tables(place)}

    def get(self, *stems: str) -> Path | None:
        """The first of these tables that is there."""
        names = (f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES)
        return next((self.files[name] for name in names if name in self.files), None)

    @cached_property
    def embeddings(self) -> list[Path]:
        """Files of dimensions, the one with most dimensions first."""
        found = [(match, file) for name, file in self.files.items() if (match := _EMBEDDING.fullmatch(name))]
        found.sort(key=lambda pair: (-int(pair[0][1] or 0), pair[0][2] != "txt", pair[1].name))
        return [file for _, file in found]

    @cached_property
    def concepts(self) -> Path | None:
        """The table of concepts."""
        return next((file for name, file in sorted(self.files.items()) if _CONCEPTS.fullmatch(name)), None)

    def images(self) -> list[Path]:
        """Folders of photographs: one called images or object_images, else all whose names start so."""
        found = [folder for place in self.places for folder in _folders(place) if _IMAGES.fullmatch(folder.name)]
        for name in ("images", "object_images"):
            if exact := [folder for folder in found if folder.name.casefold() == name]:
                return exact[:1]
        return found


def _folders(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in sorted(os.scandir(path), key=lambda entry: entry.name) if entry.is_dir()]


def _places(path: Path, levels: int) -> Iterator[Path]:
    """A folder and those below it that may hold tables; of many folders beside each other, each is a concept."""
    yield path
    inside = [folder for folder in _folders(path) if not (_IMAGES.fullmatch(folder.name) or folder.name[0] == ".")]
    for folder in inside if levels and len(inside) <= _FEW else ():
        yield from _places(folder, levels - 1)


def _tables(place: Path) -> Iterator[Path]:
    names = sorted((entry.name for entry in os.scandir(place)), reverse=True)
    yield from (place / name for name in names if PurePath(name).suffix.lower() in (*_SUFFIXES, ".zip"))


def is_things(path: Path) -> bool:
    """Whether a folder holds THINGS' dimensions or list of concepts."""
    if not path.is_dir():
        return False
    try:
        folder = _Folder(path)
        return bool(folder.embeddings) or folder.get(_IDS) is not None
    except OSError as error:
        raise UserError(f"{printable(str(path))} cannot be read ({error.strerror})") from None


def refuse_zipped(path: Path) -> None:
    """Say of a zip with THINGS' tables that these are read from a folder.

    Raises:
        UserError: it is one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {PurePath(name).name.casefold() for name in archive.namelist()}
    except ZIP_DAMAGE:
        return  # whoever reads it says so
    if f"{_IDS}.txt" in names or any(map(_EMBEDDING.fullmatch, names)):
        raise UserError(f"{printable(str(path))} holds THINGS' tables; unpack it and import the folder")


def read_things(path: Path, options: ReadOptions = DEFAULTS, *, allow_unknown: bool = False) -> Images:
    """The images with one category each (-1: none or several) and the dimensions on one image a concept.

    The dimensions belong to a concept's reference image: the first by name. Concepts are joined by id. The labels are
    the bottom-up categories; those of the manual matrix, if it is there, are the labeling "manual".

    Args:
        path: the folder.
        options: how pictures are read.
        allow_unknown: keep images of concepts that are not in unique_id.txt, without dimensions and category.

    Raises:
        UserError: a file is missing or contradicts another.
    """
    folder = _Folder(path)
    rows, embedding, names, notes = _embedding(folder)
    photos = _photos(folder, options)
    concepts = [_concept(name, rows) for name in photos.ids]
    if not set(concepts) & set(rows):
        listed, shown = next(iter(rows), ""), concepts[0]
        raise UserError(
            f'{folder.get(_IDS)} lists concepts like "{listed}", but the photographs show ones like "{shown}"; mend '
            "the list or the folders' names"
        )
    missing = sorted(set(concepts) - set(rows))
    if missing and not allow_unknown:
        raise UserError(
            f"not in unique_id.txt: {counted(len(missing), 'concept folder')}, first: {missing[0]}; remove what is not "
            "THINGS', or pass --allow-unknown to keep such images without dimensions"
        )
    if missing:
        count = counted(len(missing), "concept")
        notes.append(f"not in unique_id.txt, and so without dimensions: {count}, first: {missing[0]}")
    factors = np.full((len(concepts), embedding.shape[1]), np.nan, np.float32)
    first = {concept: place for place, concept in reversed(list(enumerate(concepts)))}
    seen = [concept for concept in first if concept in rows]
    for concept in seen:
        factors[first[concept]] = embedding[rows[concept]]
    labels, classes = _categories(folder, concepts, notes)
    manual = _manual_categories(folder, rows, concepts)
    notes.append(f"{len(seen)} of {len(rows)} concepts have images")
    return replace(
        photos, source=f"THINGS, {len(seen)} concepts", labels_N=labels, classes=classes, factors_NF=factors,
        factors=names, groups=concepts, labelings=manual and {"manual": manual}, notes=(*notes, *_kept(photos)),
    )  # fmt: skip


def _photos(folder: _Folder, options: ReadOptions) -> Images:
    images = folder.images()
    if not images:
        zips = [file.name for file in folder.files.values() if file.suffix.lower() == ".zip"]
        how = f"; unpack {first_few(zips)} first" if zips else ""
        raise UserError(f"{folder.path} has THINGS' tables but no folder images/ or object_images/{how}")
    if len(images) == 1:
        return read_images(images[0], options)
    inside = tuple(place.relative_to(folder.path).as_posix() for place in images)
    return read_images(folder.path, replace(options, folders=inside))


def _kept(photos: Images) -> list[str]:
    """What reading the photographs noted; that some lie in class folders and others do not says nothing here."""
    return [note for note in photos.notes if "class folder" not in note and "the classes are" not in note]


def _concept(name: str, rows: dict[str, int]) -> str:
    """The concept of a photograph: its folder, which may be numbered, or its name where it lies in none."""
    path = PurePosixPath(name)
    concept = path.parent.name or _PHOTO.sub("", path.name)
    numbered = _NUMBERED.fullmatch(concept)
    return numbered["concept"] if concept not in rows and numbered and numbered["concept"] in rows else concept


def _embedding(folder: _Folder) -> tuple[dict[str, int], NDArray[np.float64], tuple[str, ...], list[str]]:
    table, id_file = next(iter(folder.embeddings), None), folder.get(_IDS)
    if table is None or id_file is None:
        lacks = f"{folder.path / EMBEDDING} (or 49d, .tsv, .csv)" if table is None else f"{folder.path / _IDS}.txt"
        raise UserError(f"{lacks} is missing; add it, or import the folder of photographs alone")
    ids = [_unquoted(line) for line in read_lines(id_file) if line]
    if ids and ids[0].casefold() in ("uniqueid", "unique_id"):
        ids = ids[1:]
    rows = {concept: number for number, concept in enumerate(ids)}
    if len(rows) != len(ids):
        twice = next(concept for number, concept in enumerate(ids) if rows[concept] != number)
        raise UserError(f'{id_file} lists "{twice}" twice; which row of {table.name} is it?')
    embedding = _numbers(table)
    names = _names(folder, embedding.shape[1])
    if embedding.shape != (len(ids), len(names)):
        raise UserError(
            f"{table} has {_size(embedding)}, but {id_file.name} lists {counted(len(ids), 'concept')} and there are "
            f"{counted(len(names), 'name')} of dimensions; get the files of one release"
        )
    bad = ~(np.abs(embedding) <= np.finfo(np.float32).max)  # as which they are kept
    if bad.any():
        row, column = np.argwhere(bad)[0]
        what = "too large" if np.isfinite(embedding[row, column]) else "not a number"
        raise UserError(f'{table}: "{names[column]}" of {ids[row]} is {embedding[row, column]}, {what}; mend it')
    notes = [] if _lists(folder, len(names)) else ["no list of the dimensions' names, which are numbered"]
    if shared := sorted({name for name in names if names.count(name) > 1}):
        notes.append(f"several dimensions have one name: {first_few(shared)}")
    if others := [file.name for file in folder.embeddings[1:]]:
        notes.append(f"dimensions of {table.name}, not of {first_few(others)}")
    negative = int((embedding < 0).sum())
    if negative:
        notes.append(f"{negative} negative embedding entries (lowest {embedding.min():.1e}) set to 0")
    return rows, np.maximum(embedding, 0), names, notes


def _numbers(table: Path) -> NDArray[np.float64]:
    """A table of numbers with spaces, tabs or commas between them; a first line of words is left out."""
    lines = enumerate(read_text(table).replace(",", " ").splitlines(), 1)
    rows = [(number, line.split()) for number, line in lines if line.strip()]
    if rows and not any(map(_is_float, rows[0][1])):
        rows = rows[1:]
    if not rows:
        raise UserError(f"{table} holds no numbers; get it anew")
    first, cells = rows[0]
    width = len(cells)
    for number, cells in rows:
        if word := next((cell for cell in cells if not _is_float(cell)), None):
            raise UserError(f'{table}, line {number}: "{printable(word)}" is not a number; mend it or get it anew')
        if len(cells) != width:
            has = f"{counted(len(cells), 'number')}, but {width} in line {first}"
            raise UserError(f"{table}, line {number}: {has}; mend it or get it anew")
    return np.array([[float(cell) for cell in cells] for _, cells in rows])


def _size(table: NDArray[np.float64]) -> str:
    return f"{counted(len(table), 'row')} of {counted(table.shape[-1], 'number')}"


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _names(folder: _Folder, count: int) -> tuple[str, ...]:
    """Names of the dimensions: from the first list that has as many."""
    lists = _lists(folder, count)
    fitting = [names for names in lists if len(names) == count]
    if lists and not fitting:
        return tuple(lists[0])  # the caller says that they do not fit
    return tuple(fitting[0] if fitting else (f"dimension {number}" for number in range(count)))


def _lists(folder: _Folder, count: int) -> list[list[str]]:
    """The lists of the dimensions' names that are there."""
    stems = (f"labels_{count}", "labels_66", "labels_short", f"labels_short{count}", f"labels{count}", "labels")
    return [[line for line in read_lines(file) if line] for stem in stems if (file := folder.get(stem))]


def _rows(table: Path) -> list[list[str]]:
    """Rows of a table with tabs, or commas in a .csv; a quote is one only around a whole cell."""
    lines = [line for line in read_text(table).split("\n") if line.strip()]
    rows = list(csv.reader(lines)) if table.suffix.lower() == ".csv" else [line.split("\t") for line in lines]
    return [[_unquoted(cell.strip()) for cell in row] for row in rows]


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell.startswith('"') and cell.endswith('"')
    return cell[1:-1].replace('""', '"').strip() if quoted else cell


def _categories(
    folder: _Folder, concepts: list[str], notes: list[str]
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    table = folder.concepts
    if table is None:
        notes.append("no table of concepts (things_concepts.tsv), and so no classes")
        return None, ()
    header, *rows = _rows(table) or [[]]
    if {"uniqueID", _CATEGORY} - set(header):
        raise UserError(f'{table} needs the columns "uniqueID" and "{_CATEGORY}"; get it anew, or remove it')
    name_column, category_column = header.index("uniqueID"), header.index(_CATEGORY)
    category: dict[str, str] = {}
    for line, row in enumerate(rows, 2):
        cells = row + [""] * (len(header) - len(row))
        if len(cells) > len(header):
            raise UserError(f"row {line} of {table} has {len(cells)} columns, the first {len(header)}")
        before = category.setdefault(cells[name_column], cells[category_column])
        if before != cells[category_column]:
            raise UserError(
                f'{table} puts {cells[name_column]} into "{before}" and into "{cells[category_column]}"; remove one row'
            )
    if absent := sorted(set(concepts) - set(category)):
        notes.append(f"{counted(len(absent), 'concept')} without a row in {table.name}: {first_few(absent)}")
    single = {concept: name for concept, name in category.items() if name and "," not in name}
    classes = sorted(set(single.values()))
    index = {name: number for number, name in enumerate(classes)}
    if several := sorted(set(concepts) & set(category) - set(single)):
        count = counted(len(several), "concept")
        notes.append(f"in no category or in several, and so without a class: {count} ({first_few(several)})")
    labels = [index[single[concept]] if concept in single else -1 for concept in concepts]
    return np.array(labels, np.int64), tuple(classes)


def _manual_categories(
    folder: _Folder, rows: dict[str, int], concepts: list[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """The category of the concepts that the manual matrix puts into exactly one; -1 for all others."""
    table = folder.get(_MANUAL)
    if table is None:
        return None
    classes, *lines = _rows(table) or [[]]
    try:
        member = np.array(lines, np.float64)
    except ValueError as error:
        raise UserError(f"{table} is damaged: {reason(error)}") from None
    if not np.isfinite(member).all():
        raise UserError(f"{table} has a cell that is no number; mend it or get it anew")
    if member.shape != (len(rows), len(classes)):
        raise UserError(
            f"{table} has {_size(member)}, but there are {counted(len(rows), 'concept')} and "
            f"{counted(len(classes), 'name')} of categories; get the files of one release"
        )
    single = np.where((member > 0).sum(axis=1) == 1, (member > 0).argmax(axis=1), -1)
    labels = [int(single[rows[concept]]) if concept in rows else -1 for concept in concepts]
    return np.array(labels, np.int64), tuple(classes)
