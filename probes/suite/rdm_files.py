"""Dissimilarity matrices that a user brings, from fMRI, EEG or behaviour: reading, checking, finding their images.

Axes: S subjects, n images of the matrix.
"""

import contextlib
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

from moe.data.arrays import plain_array
from moe.data.files import read_text, regular
from moe.data.names import Names
from moe.data.store import ImageStore, sha256
from moe.errors import UserError
from moe.wording import counted, first_few, printable
from probes.subject import evenly, rated_rows

_LEAST = 4  # images
_DELIMITERS = (",", ";", "\t")
_LARGEST = 1e100  # whose square, over all pairs of images, is a number still
_ROUNDING = 1e-5  # of a largest entry, by which the two halves of a matrix may differ


@dataclass(frozen=True)
class RDMFile:
    """The matrices of one file.

    Attributes:
        name: for tables and figures: the file's, in letters, digits and "_".
        path: the file.
        sha256: its checksum.
        rdms: (S, n, n), one a subject; or (S, P), their upper triangles row by row.
        images: what the rows are called; None where the file does not say.
    """

    name: str
    path: Path
    sha256: str
    rdms: NDArray[Any]
    images: tuple[str, ...] | None

    @property
    def n(self) -> int:
        """Number of images."""
        shape = self.rdms.shape
        return shape[1] if len(shape) == 3 else _side(shape[1])

    def vector(self, subject: int, kept: NDArray[np.intp]) -> NDArray[np.float64]:
        """Upper triangle (P,) of a subject's matrix, of some images in this order."""
        matrix_nn = np.asarray(self.rdms[subject], np.float64)
        if matrix_nn.ndim == 1:
            matrix_nn = squareform(matrix_nn, checks=False)
        return np.asarray(matrix_nn[np.ix_(kept, kept)][np.triu_indices(len(kept), k=1)])


def read_rdm(path: Path) -> RDMFile:
    """The matrices of a .npy or .csv file.

    - .npy: one matrix (n, n), one upper triangle (P,) row by row, or those of several subjects, (S, n, n) or (S, P);
    - .csv: a header with the images' or concepts' names, then a row of numbers each; rows may begin with the name too.

    Raises:
        UserError: the file is missing or of another kind, or its content is no dissimilarity matrix.
    """
    with contextlib.suppress(RuntimeError):  # the home of nobody: there is no such file
        path = path.expanduser()
    regular(path)
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _read(path: Path, _changed: int, _size: int) -> RDMFile:
    found = printable(str(path))
    match path.suffix.lower():
        case ".npy":
            images, rdms = None, _stacked(plain_array(path), found)
        case ".csv" | ".tsv":
            images, rdms = _table(read_text(path), found)
        case other:
            raise UserError(f'{found}: dissimilarities come as .npy or .csv, not "{other}"')
    for subject, matrix in enumerate(rdms):
        _check(np.asarray(matrix), found + (f", subject {subject}" if len(rdms) > 1 else ""))
    name = re.sub(r"[^A-Za-z0-9]+", "_", path.stem).strip("_") or "rdm"
    return RDMFile(name, path, sha256(path), rdms, images)


def _side(pairs: int) -> int:
    """Images n of P = n (n - 1) / 2 pairs; 0 if there is no such n."""
    n = round((1 + (1 + 8 * pairs) ** 0.5) / 2)
    return n if n * (n - 1) // 2 == pairs else 0


def _stacked(array: NDArray[Any], found: str) -> NDArray[Any]:
    shape = array.shape
    if array.dtype.kind not in "fiu":
        raise UserError(f"{found} holds {array.dtype}; dissimilarities are numbers")
    if (len(shape) == 2 and shape[0] == shape[1]) or (len(shape) == 1 and _side(shape[0])):
        return array[None]
    if (len(shape) == 3 and shape[1] == shape[2]) or (len(shape) == 2 and _side(shape[1])):
        return array
    raise UserError(
        f"{found} has shape {shape}; a matrix is (n, n), its upper triangle (n (n - 1) / 2,), those of several "
        "subjects (S, n, n) or (S, n (n - 1) / 2)"
    )


def _table(text: str, found: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Names and matrix (1, n, n) of a CSV file."""
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    try:
        lines = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)
        ]
    except csv.Error as error:
        raise UserError(f"{found} cannot be read ({error}); save it as CSV") from None
    if len(lines) < 2:
        raise UserError(f"{found} has no rows; it needs a header with the images' names and a row of numbers each")
    header, *rows = lines
    titled = all(len(row) == len(header) for row in rows) and len(rows) == len(header) - 1
    names = header[1:] if titled else header
    if len(rows) != len(names):
        raise UserError(
            f"{found} names {counted(len(names), 'image')} in its header and has {counted(len(rows), 'row')}"
        )
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise UserError(f'{found} has the name "{twice[0]}" twice')
    matrix_nn = np.empty((1, len(names), len(names)))
    for place, row in enumerate(rows):
        first, cells = (row[0], row[1:]) if len(row) == len(names) + 1 else (names[place], row)
        if first != names[place]:
            raise UserError(
                f'row {place + 1} of {found} is "{first}", column {place + 1} "{names[place]}"; order them alike'
            )
        if len(cells) != len(names):
            raise UserError(
                f"row {place + 1} of {found} has {counted(len(cells), 'number')}, the header {len(names)} names"
            )
        matrix_nn[0, place] = [_number(cell, place, found) for cell in cells]
    return tuple(names), matrix_nn


def _number(cell: str, row: int, found: str) -> float:
    try:
        return float(cell)
    except ValueError:
        said = f'"{cell}"' if cell else "an empty cell"
        raise UserError(f"row {row + 1} of {found} has {said}, which is no number") from None


def _check(matrix: NDArray[Any], found: str) -> None:
    """Refuse what is no dissimilarity matrix. A diagonal of NaN is none at all, as of 0."""
    values = np.array(matrix, np.float64)
    n = len(values) if values.ndim == 2 else _side(len(values))
    if n < _LEAST:
        raise UserError(f"{found} has {counted(n, 'image')}; {_LEAST} are needed")
    if values.ndim == 2 and np.isnan(values.diagonal()).all():
        np.fill_diagonal(values, 0.0)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise UserError(f"{found} has {bad:,} numbers that are not finite; leave their images out")
    largest = float(np.abs(values).max())
    if largest > _LARGEST:
        raise UserError(f"{found} has dissimilarities up to {largest:.0e}, too large to be squared; divide them all")
    if values.ndim == 2 and values.diagonal().any():
        raise UserError(f"{found} is not 0 on its diagonal; of similarities r give 1 - r")
    if values.ndim == 2 and np.abs(values - values.T).max() > _ROUNDING * largest:
        i, j = np.unravel_index(np.abs(values - values.T).argmax(), values.shape)
        raise UserError(
            f"{found} is not symmetric: {values[i, j]:g} in row {i + 1}, column {j + 1}, and {values[j, i]:g} in row "
            f"{j + 1}, column {i + 1}"
        )
    if values.min() < -_ROUNDING * largest:
        raise UserError(f"{found} has negative entries, least {values.min():g}; dissimilarities are 0 or more")
    if np.ptp(squareform(values, checks=False) if values.ndim == 2 else values) == 0:
        raise UserError(f"{found} has the same dissimilarity for all images; there is nothing to compare")


@dataclass(frozen=True)
class Matched:
    """Which images of a store a file is about.

    Attributes:
        rows: (m,) places of images in the store.
        kept: (m,) the matrix's rows for them.
        notes: what did not match, and what was left out.
    """

    rows: NDArray[np.intp]
    kept: NDArray[np.intp]
    notes: tuple[str, ...] = ()


def match_rdm(rdm: RDMFile, store: ImageStore, most: int) -> Matched:
    """Find the images of a matrix: by name, or by their number where it has no names.

    A name is an image's id, with or without folder and suffix, or a group (THINGS: a concept), which stands for its
    rated image, else its first.

    Args:
        rdm: the file.
        store: the images.
        most: more images are thinned out at even spacing.

    Raises:
        UserError: fewer than four images match.
    """
    notes: list[str] = []
    if rdm.images is None:
        rows, kept = _by_number(rdm, store)
    else:
        rows, kept = _by_name(rdm, store, notes)
    if len(rows) < _LEAST:
        raise UserError(
            f"{printable(str(rdm.path))} is about {counted(len(rows), 'image')} of {store.name}; {_LEAST} are needed"
        )
    if len(rows) > most:
        chosen = evenly(len(rows), most)
        notes.append(f"{rdm.name}: {most:,} of its {len(rows):,} images, at even spacing (`geometry.images`)")
        rows, kept = rows[chosen], kept[chosen]
    return Matched(rows, kept, tuple(notes))


def _by_number(rdm: RDMFile, store: ImageStore) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rated = rated_rows(store)
    for rows in (np.arange(len(store)), rated):
        if len(rows) == rdm.n:
            return rows, np.arange(rdm.n)
    known = f"{store.name} has {counted(len(store), 'image')}" + (
        f", {len(rated):,} of them rated" if len(rated) else ""
    )
    raise UserError(
        f"{printable(str(rdm.path))} has {rdm.n:,} rows and {known}; a CSV with the images' names can be about some "
        "of them"
    )


def _by_name(rdm: RDMFile, store: ImageStore, notes: list[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    names, of_group = Names(store.ids), _representatives(store)
    found: dict[int, int] = {}
    strangers: list[str] = []
    doubtful: list[str] = []
    for place, name in enumerate(rdm.images or ()):
        hits = [of_group[name]] if name in of_group else names.find(name)
        if len(hits) == 1 and hits[0] not in found:
            found[hits[0]] = place
        else:
            (doubtful if hits else strangers).append(name)
    for listed, why in ((strangers, f"no image of {store.name}"), (doubtful, "of several images, or an image twice")):
        if listed:
            notes.append(f"{rdm.name}: {counted(len(listed), 'name')} left out, {why}: {first_few(listed)}")
    return np.array(list(found), np.intp), np.array(list(found.values()), np.intp)


def _representatives(store: ImageStore) -> dict[str, int]:
    """The image that stands for each group: the rated one, else the first."""
    groups: Sequence[str] = store.groups or ()
    chosen = {group: place for place, group in reversed(list(enumerate(groups)))}
    return chosen | {groups[place]: int(place) for place in reversed(rated_rows(store)) if groups}
