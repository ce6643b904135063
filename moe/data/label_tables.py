"""A table of labels as people write them: which delimiter, whether a header, which column names the image.

What decides is the images: the column whose cells name them holds the names. What stays undecided is refused.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from moe.data.files import read_text
from moe.data.label_numbers import number
from moe.data.names import Names, looks_like_a_file
from moe.errors import UserError
from moe.wording import counted, first_few, printable

_DELIMITERS = (",", ";", "\t", "|")
_EXCELS = re.compile(r"\A\"?sep=.\"?\n")  # a first line that tells Excel the delimiter
_SAMPLE = 1000  # rows on which delimiter and columns are decided
_NAME_WORDS = frozenset(
    ("file", "files", "filename", "file_name", "filepath", "file_path", "path", "image", "images", "image_id",
     "imageid", "image_name", "image_path", "img", "img_id", "img_path", "name", "id", "picture", "photo", "stimulus")
)  # fmt: skip
_LABEL_WORDS = frozenset(
    ("label", "labels", "class", "classes", "class_name", "classname", "class_id", "category", "categories", "target",
     "targets", "y", "label_id", "label_name", "species", "diagnosis", "concept")
)  # fmt: skip
_INDEX_WORDS = frozenset(("", "unnamed: 0", "index", "idx", "row", "id", "number", "nr", "no"))
_TRUE_FALSE = {"true": True, "false": False}


@dataclass
class Labels:
    """Labels in image order, "" where unknown, and what a reader of the result should know."""

    values: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]


@dataclass(frozen=True)
class _Layout:
    """Columns of a table; `header` is empty where it has none, `label` None where each class has a column."""

    header: list[str]
    name: int
    label: int | None
    classes: tuple[int, ...] = ()


def read_table(path: Path, ids: Sequence[str]) -> Labels:
    """The labels of a .csv or .tsv file.

    Raises:
        UserError: no row names an image, two rows contradict each other, or the columns are not clear.
    """
    text, names = _EXCELS.sub("\\n", read_text(path)), Names(ids)
    found = printable(str(path))
    delimiter = _delimiter(found, text, names)
    rows = _rows(found, text, delimiter, names)
    if not rows:
        raise UserError(f"{found} has no rows; it needs two columns: image name, label")
    layout = _layout(found, rows, names)
    return _join(found, rows[1:] if layout.header else rows, layout, names)


def table_in_lines(path: Path, ids: Sequence[str]) -> Labels | None:
    """The labels of a text file whose lines name the images too ("red/0.png 3"), or None if they do not.

    Raises:
        UserError: they do, but are no table.
    """
    text, names, found = read_text(path), Names(ids), printable(str(path))
    for delimiter in (*_DELIMITERS, " "):
        try:
            lines = _parsed(found, text, delimiter)
        except UserError:
            continue
        both = [line for line in lines if len(line.cells) > 1 and any(names.find(cell) for cell in line.cells)]
        if len(both) > len(lines) / 2:
            rows = _rows(found, text, delimiter, names)
            layout = _layout(found, rows, names)
            return _join(found, rows[1:] if layout.header else rows, layout, names)
    return None


def _parsed(found: str, text: str, delimiter: str, most: int | None = None) -> list[_Row]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows = []
    try:
        for cells in islice(reader, most):
            row = _Row(reader.line_num, [cell.strip() for cell in cells])
            if any("\n" in cell for cell in row.cells):
                raise UserError(
                    f'a cell that ends in line {row.line} of {found} runs over several lines; a " is missing'
                )
            if any(row.cells):
                rows.append(row)
    except csv.Error as error:
        raise UserError(
            f'line {reader.line_num} of {found} cannot be read ({error}); a " is missing or too much'
        ) from None
    return rows


def _rows(found: str, text: str, delimiter: str, names: Names) -> list[_Row]:
    """Rows that are neither empty nor a comment, all of one width."""
    rows = [r for r in _parsed(found, text, delimiter) if not r.cells[0].startswith("#") or names.find(r.cells[0])]
    if not rows:
        return rows
    filled = [max((n for n, cell in enumerate(row.cells, 1) if cell), default=0) for row in rows]
    width = max(
        filled[0], Counter(max(n, min(2, len(r.cells))) for n, r in zip(filled, rows, strict=True)).most_common(1)[0][0]
    )
    for row, used in zip(rows, filled, strict=True):
        if used > width:
            raise UserError(
                f"line {row.line} of {found} has {used} columns, others {width}; quote a label with a {delimiter!r}"
            )
        if len(row.cells) < min(2, width) or len(row.cells) < width - 1:
            raise UserError(
                f"line {row.line} of {found} has {counted(len(row.cells), 'column')}, others {width}; "
                "it needs image name, label"
            )
        row.cells[used:] = [""] * (width - used)
    return rows


def _delimiter(found: str, text: str, names: Names) -> str:
    """The delimiter by which most images are found; with equal finds, the one that gives every row as many columns."""
    best, chosen, problem = (0, 0), "", None
    for delimiter in _DELIMITERS:
        if delimiter not in text:
            continue
        try:
            rows = _parsed(found, text, delimiter, _SAMPLE)
        except UserError as error:
            problem = problem or error
            continue
        hits = sum(any(names.find(cell) for cell in row.cells) for row in rows if len(row.cells) > 1)
        widths = [len(row.cells) for row in rows if len(row.cells) > 1]
        score = (hits, max(map(widths.count, set(widths)), default=0))
        if score > best:
            best, chosen = score, delimiter
    if not chosen:
        raise problem or UserError(f"{found} needs two columns, image name and label, with a comma between them")
    return chosen


def _layout(found: str, rows: list[_Row], names: Names) -> _Layout:
    sample, width = rows[:_SAMPLE], len(rows[0].cells)
    first = rows[0].cells
    if width < 2:
        raise UserError(f"{found} needs two columns: image name, label")
    name = _name_column(found, sample, names)
    if name is None and len(rows) == 1 and not any(looks_like_a_file(cell) for cell in first):
        raise UserError(f"{found} has a header and no rows; it needs two columns: image name, label")
    if name is None:
        shown = rows[min(1, len(rows) - 1)].cells[0]
        known = f'the images are called like "{names.ids[0]}"' if names.ids else "there are no images"
        raise UserError(f'{found} names no image that was imported (it has "{shown:.100}", {known})')
    body = rows[1:] if _is_header(rows, name, names) else rows
    header = _header(found, first, body) if body is not rows else []
    rest = [c for c in range(width) if c != name]
    others = [c for c in rest if not _is_index(body, c, header)] or rest
    if len(others) == 1:
        return _Layout(header, name, others[0])
    named = [c for c in others if header and header[c].casefold() in _LABEL_WORDS]
    if len(named) == 1:
        return _Layout(header, name, named[0])
    if header and all(_flag(row.cells[c]) is not None for row in body for c in others):
        return _Layout(header, name, None, tuple(others))
    listed = first_few([header[c] or f"column {c + 1}" for c in others]) if header else f"{len(others)} columns"
    raise UserError(
        f"{found} has {listed} beside the images' names; keep one of them, or call the one with the classes label"
    )


def _name_column(found: str, sample: list[_Row], names: Names) -> int | None:
    """The column that names most different images; between near equals, what the header and the suffixes say.

    Raises:
        UserError: two columns name different images, and nothing says which is meant.
    """
    width = len(sample[0].cells)
    hits = [{names.find(row.cells[c])[0] for row in sample if names.find(row.cells[c])} for c in range(width)]
    most = max(len(places) for places in hits)
    if not most:
        return None
    files = [sum(looks_like_a_file(row.cells[c]) for row in sample) > len(sample) / 2 for c in range(width)]
    header = [cell.casefold() for cell in sample[0].cells]
    speaks = [(files[c], header[c] in _NAME_WORDS, header[c] not in _LABEL_WORDS) for c in range(width)]
    close = [c for c in range(width) if len(hits[c]) * 2 >= most]
    first, *others = [c for c in close if speaks[c] == max(speaks[c] for c in close)]
    for row in sample:
        one = names.find(row.cells[first])
        for c in others:
            if one and (two := names.find(row.cells[c])) and set(one).isdisjoint(two):
                both = f'"{row.cells[first]:.200}" and "{row.cells[c]:.200}"'
                raise UserError(
                    f"line {row.line} of {found} names two images, {both}; keep one column of names, or call it image"
                )
    return first


def _is_header(rows: list[_Row], name: int, names: Names) -> bool:
    """Whether the first row is no data: it names no image and could not, or says what the columns are."""
    first = [cell.casefold() for cell in rows[0].cells]
    if first[name] in _NAME_WORDS and any(c in _LABEL_WORDS for n, c in enumerate(first) if n != name):
        return True
    if names.find(rows[0].cells[name]) or looks_like_a_file(first[name]):
        return False
    if first[name] in _NAME_WORDS:
        return True
    # a row of data whose image does not exist has labels like those of the others
    others = [c for c in range(len(first)) if c != name]
    below = rows[1:_SAMPLE]
    repeats = bool(below) and all(any(first[c] == row.cells[c].casefold() for row in below) for c in others)
    cells = [first[c] for c in others] + [row.cells[c] for row in below for c in others]
    return not (repeats or (bool(below) and all(number(cell) is not None for cell in cells)))


def _header(found: str, first: list[str], body: list[_Row]) -> list[str]:
    """The names of the columns; moved by one where that of the row numbers lacks, as R writes tables.

    Raises:
        UserError: rows have more columns than the header.
    """
    named = max((n for n, cell in enumerate(first, 1) if cell), default=0)
    longer = next((row for row in body if any(row.cells[named:])), None)
    if longer is None:
        return first
    if named == len(first) - 1 and _is_index(body, 0, []):
        return ["", *first[:-1]]
    used = max(n for n, cell in enumerate(longer.cells, 1) if cell)
    raise UserError(
        f"line {longer.line} of {found} has {used} columns, its header {named}; name the last column, or quote a label "
        "that has a comma"
    )


def _is_index(body: list[_Row], column: int, header: list[str]) -> bool:
    """Whether a column counts the rows, as pandas writes it."""
    if header and header[column].casefold() not in _INDEX_WORDS:
        return False
    cells = [row.cells[column] for row in body]
    return any(all(cell == str(n) for n, cell in enumerate(cells, start)) for start in (0, 1))


def _flag(cell: str) -> bool | None:
    """What a cell says of a class that has a column of its own: yes, no, or None if it is no such cell."""
    if (value := number(cell)) in (0, 1):
        return value == 1
    return _TRUE_FALSE.get(cell.casefold())


def _label_of(row: _Row, layout: _Layout, found: str) -> str:
    if layout.label is not None:
        return row.cells[layout.label]
    chosen = [layout.header[c] for c in layout.classes if _flag(row.cells[c])]
    if len(chosen) != 1:
        says = f"several classes ({first_few(chosen)})" if chosen else "no class"
        raise UserError(f"line {row.line} of {found} marks {says}; an image has one class, give it in one column")
    return chosen[0]


def _join(found: str, rows: list[_Row], layout: _Layout, names: Names) -> Labels:
    """Rows to images, with the counts of what did not match."""
    table: dict[int, tuple[str, int]] = {}
    unmatched, repeats = [], 0
    for row in rows:
        cell, value = row.cells[layout.name], _label_of(row, layout, found)
        if not cell:
            raise UserError(f"line {row.line} of {found} has no image name")
        hits = names.find(cell)
        if len(hits) > 1:
            several = first_few([names.ids[place] for place in hits])
            raise UserError(f'line {row.line} of {found}: "{cell:.200}" can be {several}; write the folder too')
        if not hits:
            unmatched.append(cell)
            continue
        before, line = table.setdefault(hits[0], (value, row.line))
        if line != row.line and value != before:
            raise UserError(
                f"lines {line} and {row.line} of {found} contradict each other: {names.ids[hits[0]]} is "
                f'"{before:.100}" and "{value:.100}"; remove one'
            )
        repeats += line != row.line
    without = [name for place, name in enumerate(names.ids) if place not in table]
    values = [table[place][0] if place in table else "" for place in range(len(names.ids))]
    return Labels(values, _notes(found, rows, layout, unmatched, without, repeats))


def _notes(
    found: str, rows: list[_Row], layout: _Layout, unmatched: list[str], without: list[str], repeats: int
) -> list[str]:
    file = Path(found).name
    notes = []
    if layout.label is None:
        notes.append(f"the columns {first_few([layout.header[c] for c in layout.classes])} of {file} are the classes")
    elif layout.header and len(layout.header) > 2:
        notes.append(f'the labels are column "{layout.header[layout.label]}" of {file}')
    if not layout.header:
        notes.append(f"{file} has no header; its first row is data")
    if unmatched:
        notes.append(
            f"{len(unmatched):,} of {counted(len(rows), 'row')} of {file} without image: {first_few(unmatched)}"
        )
    if without:
        notes.append(f"{counted(len(without), 'image')} without a row in {file}: {first_few(without)}")
    if repeats:
        notes.append(f"{counted(repeats, 'row')} of {file} said twice")
    return notes
