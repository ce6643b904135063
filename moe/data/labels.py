"""Label files of every kind, and from label values to class indices.

Numbers sort as numbers, also where they are written 3.0; whatever can be understood in two ways is refused.

Axes: N images, C classes.
"""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe.data.arrays import plain_array
from moe.data.files import read_lines, regular
from moe.data.label_numbers import can_be_thousands, is_whole, number, whole_name
from moe.data.label_tables import Labels, read_table, table_in_lines
from moe.errors import UserError
from moe.wording import counted, first_few, printable

_UNKNOWN = frozenset(("", "nan", "<na>", "nat", "#n/a"))  # as pandas and spreadsheets write a missing value
# as R, SQL, JSON, Python and people write a missing value, and what comes of errors; all of them can be classes
_MISSING_OR_CLASS = re.compile(r"(?i:NA|N/A|NULL|[-+]?inf(inity)?)|None|[?]+|-+|[.]+|#[A-Z/0]+[!?]")
_SIGNS = {"+", "-"}
_BETWEEN_NUMBERS = re.compile(r"[\s,;]+")
_LABEL_AND_NAME = re.compile(r"(?P<label>[^\s,;:]+)[\s,;:]+(?P<name>.+)")
_MOST_LABELS = 16 * 2**20  # bytes or numbers of a label file in image order


def read_labels(path: Path, ids: Sequence[str]) -> Labels:
    """One label for each image, "" where unknown.

    - .csv/.tsv: a column with the images' names (with or without folder and suffix) and one with labels;
    - .txt: one label a line, in image order, or lines of image name and label;
    - .npy: numbers or text in image order, or one-hot rows (N, C);
    - .bin: bytes in image order (STL-10's official label files).

    Raises:
        UserError: the file is missing, of another kind, has another number of labels than images, or can be
            understood in two ways.
    """
    regular(path)
    match path.suffix.lower():
        case ".csv" | ".tsv":
            read = read_table(path, ids)
        case ".txt":
            read = table_in_lines(path, ids) or Labels(_lines(path, len(ids)))
        case ".npy":
            read = Labels(array_labels(plain_array(path), str(path)))
        case ".bin":
            if (size := regular(path)) > _MOST_LABELS:
                raise _other_number(printable(str(path)), size, len(ids))
            read = Labels([str(value) for value in path.read_bytes()])
        case other:
            raise UserError(f'{printable(str(path))}: labels come as .csv, .tsv, .txt, .npy or .bin, not "{other}"')
    return checked(read, len(ids), printable(path.name), printable(str(path)))


def _lines(path: Path, count: int) -> list[str]:
    values = read_lines(path)
    _check_one_each(values, printable(str(path)))
    return values + [""] * (count - len(values)) if _blank_end(path, len(values), count) else values


def _check_one_each(lines: list[str], found: str) -> None:
    """Numbered lines, one-hot rows and all labels in one line are no names of classes.

    Raises:
        UserError: a line holds several numbers.
    """
    for place, line in enumerate(lines, 1):
        cells = _BETWEEN_NUMBERS.split(line.strip("[](){} ,;"))
        if number(line) is None and len(cells) > 1 and all(number(cell) is not None for cell in cells):
            raise UserError(
                f"line {place} of {found} has {len(cells):,} numbers; write one label a line, in the order of the "
                "images, or a .csv of image name and label"
            )


def _blank_end(path: Path, lines: int, count: int) -> bool:
    """Whether the lines that lack are there and empty: the last images have no label."""
    return lines < count <= path.read_bytes().count(b"\n")


def array_labels(array: NDArray[Any], found: str) -> list[str]:
    """Labels of an array: numbers or text (N,) or (N, 1), or one-hot rows (N, C).

    Raises:
        UserError: it has another shape or other values.
    """
    if array.size > _MOST_LABELS or array.dtype.kind not in "biufUS" or array.ndim not in (1, 2):
        raise UserError(f"{found} holds {array.dtype} {array.shape}; labels must be one number or name an image")
    if array.ndim == 2 and array.shape[1] != 1:
        return _from_one_hot(array, found)
    flat = array.reshape(-1)
    if flat.dtype.kind == "S":
        try:
            return [value.decode() for value in flat.tolist()]
        except UnicodeDecodeError:
            raise UserError(f"{found} holds text that is not UTF-8") from None
    if flat.dtype.kind == "b":
        flat = flat.astype(np.uint8)
    try:
        return [str(value) for value in flat.tolist()]
    except (ValueError, SystemError):  # the latter is what CPython says of code points that do not exist
        raise UserError(f"{found} holds text that is not Unicode") from None


def _from_one_hot(array: NDArray[Any], found: str) -> list[str]:
    if array.dtype.kind in "US" or not np.isin(array, (0, 1)).all() or (array.sum(axis=1) != 1).any():
        raise UserError(f"{found} has shape {array.shape}, but its rows are not one-hot; give one label an image")
    return [str(place) for place in array.argmax(axis=1).tolist()]


def checked(read: Labels, count: int, name: str, found: str) -> Labels:
    """Labels that fit the images: values stripped, unknown ones empty and counted.

    Raises:
        UserError: their number is another, or a value can be a class or mean that there is none.
    """
    if len(read.values) != count:
        raise _other_number(found, len(read.values), count)
    values = ["" if value.strip().casefold() in _UNKNOWN else value.strip() for value in read.values]
    read.values = ["" if _is_minus_one(value) else value for value in values]
    known = {value for value in values if value}
    signs = _SIGNS if known >= _SIGNS else set[str]()
    if doubtful := sorted(value for value in known - signs if _MISSING_OR_CLASS.fullmatch(value)):
        raise UserError(
            f'{found} has the label "{doubtful[0]}", which can be a class or mean that there is none; leave the label '
            "empty, or give the class another name"
        )
    _check_minus_one(known, found)
    if unknown := sum(not value for value in read.values):
        read.notes.append(f"{unknown:,} of {counted(count, 'image')} without a label")
    if not any(read.values):
        raise UserError(f"{found} has no label for any image")
    distinct = len({value for value in read.values if value})
    if distinct == count - unknown and distinct > 20:
        read.notes.append(f"every label of {name} occurs once: no class has two images")
    return read


def _other_number(found: str, labels: int, images: int) -> UserError:
    return UserError(f"{found} has {counted(labels, 'label')} for {counted(images, 'image')}; it needs one each")


def _is_minus_one(value: str) -> bool:
    return number(value) == -1


def _check_minus_one(known: set[str], found: str) -> None:
    """-1 means unknown, unless the other labels let it look like a class."""
    numbers = [value for text in known if (value := number(text)) is not None]
    if -1 not in numbers:
        return
    rest = set(numbers) - {Decimal(-1)}
    if len(numbers) == len(known) and (rest == {Decimal(1)} or any(value < 0 for value in rest)):
        raise UserError(
            f"{found} has -1 beside {', '.join(str(value) for value in sorted(rest)[:3])}: -1 means unknown here; if "
            "it is a class, number the classes from 0"
        )


def classify(
    values: Sequence[str], classes: Path | None, *, file: str | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class index of each image, -1 where the value is "", and the class names.

    Classes are sorted: by value if all are numbers, else as text.

    Args:
        values: one an image.
        classes: a text file with one class name a line, in that order; or with label and name ("3 cat"); or with the
            labels themselves, in the order that the classes are to have.
        file: the label file of the values, in which 1 and 1.0 are one class; None for folder names, which stay apart.

    Raises:
        UserError: two spellings of one number, or a class file that does not fit.
    """
    known = set(values) - {""}
    numbers = {value: found for value in known if (found := number(value)) is not None}
    numeric = len(numbers) == len(known)
    spelled = _spellings(numbers, file) if numeric and file else {value: value for value in known}
    by_name = {spelled[value]: found for value, found in numbers.items()}
    order = sorted(by_name, key=lambda name: (by_name[name], name)) if numeric else sorted(known)
    order, names = _named_classes(classes, order) if classes else (order, order)
    index = {name: number for number, name in enumerate(order)}
    labels_N = np.array([index[spelled[value]] if value else -1 for value in values], np.int64)
    return labels_N, tuple(names)


def alike(names: Sequence[str]) -> list[str]:
    """A note on classes that may be one: they differ in case, spaces or characters that look the same; else none."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        groups.setdefault("".join(c for c in plain if unicodedata.category(c)[0] not in "CZ"), []).append(name)
    found = [name for group in groups.values() if len(group) > 1 for name in group]
    return [f"classes that differ in case, spaces or look-alikes alone: {first_few(found)}"] if found else []


def _spellings(numbers: dict[str, Decimal], file: str) -> dict[str, str]:
    """What each number is called: whole ones without their ".0"."""
    if unclear := sorted(filter(can_be_thousands, numbers)):
        raise UserError(f'{file}: the label "{unclear[0]}" can be a thousand or a fraction; write it without the comma')
    whole = all(map(is_whole, numbers.values()))
    called = {text: whole_name(text) if whole else text for text in numbers}
    of: dict[Decimal, str] = {}
    for text in sorted(numbers):
        before = of.setdefault(numbers[text], called[text])
        if before != called[text]:
            both = f'"{before}" and "{called[text]}"'
            raise UserError(f"{file}: the labels {both} are the same number; write it in one way")
    return called


def _named_classes(path: Path, order: list[str]) -> tuple[list[str], list[str]]:
    """The labels in the order of the classes, and the classes' names."""
    names = [line for line in read_lines(path) if line]
    found = printable(str(path))
    if len(names) != len(order):
        raise UserError(
            f"{found} has {counted(len(names), 'class name')} for {counted(len(order), 'different label')} "
            f"({first_few(order)}); it needs one each"
        )
    by_meaning = {_meaning(label): label for label in order}
    told_apart = len(by_meaning) == len(order)  # unlike the folders 1 and 01
    cells = [_LABEL_AND_NAME.fullmatch(name) for name in names]
    numbered = {_meaning(cell["label"]): cell["name"] for cell in cells if cell}
    if told_apart and {_meaning(name) for name in names} == by_meaning.keys():
        order = [by_meaning[_meaning(name)] for name in names]
    elif told_apart and numbered.keys() == by_meaning.keys():
        names = [numbered[_meaning(label)] for label in order]
    elif named := [name for name in names if number(name) is None and _meaning(name) in by_meaning]:
        raise UserError(f'{found} names "{named[0]}", which is a label, but not every label; name all or none of them')
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise UserError(f'{found} has the class name "{twice[0]}" twice; give each class its own')
    return order, names


def _meaning(label: str) -> Decimal | str:
    """What two spellings of a label have in common."""
    value = number(label)
    return label.casefold() if value is None else value
