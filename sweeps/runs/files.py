"""The small files of runs and sweeps: replaced whole, and one that is damaged is named and hides no other.

Whoever reads a file does so within `reading`, so that whatever its content lacks comes out as DamagedFileError, which
names the file and says how to mend it. Whoever goes through many asks with `unless_damaged`: the file is named once, as
a warning, and the rest is shown.
"""

import contextlib
import csv
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from moe.errors import Notice, UserError
from moe.files import content, replacing

Read = TypeVar("Read")

# what taking a file's content apart raises where it is cut short, changed, or not a file at all
MISFITS = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, csv.Error)


class DamagedFileError(UserError):
    """A file does not hold what it should.

    Attributes:
        path: the file.
        why: in what way.
    """

    def __init__(self, path: Path, why: str, mend: str) -> None:
        super().__init__(f"{path} is damaged: {why}" + (f"; {mend}" if mend else ""))
        self.path, self.why = path, why


class DamagedFileWarning(Notice):
    """A damaged file that something went on without."""


_named: set[Path] = set()


def unless_damaged(read: Callable[[], Read], otherwise: Read) -> Read:
    """What `read` gives; `otherwise` if a file that it needs is damaged, which a warning says once a process."""
    try:
        return read()
    except DamagedFileError as damage:
        name_damage(damage)
        return otherwise


def name_damage(damage: DamagedFileError) -> None:
    """Say that a file is damaged, as a warning, once a process and file."""
    if damage.path not in _named:
        _named.add(damage.path)
        warnings.warn(DamagedFileWarning(str(damage)), stacklevel=3)


@contextlib.contextmanager
def reading(path: Path, mend: str = "") -> Iterator[None]:
    """Around all that takes a file's content apart: what goes wrong there is the file's damage.

    Args:
        path: the file.
        mend: what to do about it.

    Raises:
        DamagedFileError: it cannot be read, or does not hold what it should.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except MISFITS as error:
        raise DamagedFileError(path, _why(path, error), mend) from error


def _why(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Args:
        path: the file.
        value: its content.
        durable: through a power failure too; what is written twice a second need not be.
    """
    text = json.dumps(value, indent=2) + "\n"
    with replacing(path, durable=durable) as partial:
        partial.write_text(text)


def read_json(path: Path, mend: str = "") -> Any:
    """JSON of a file, or None if it does not exist.

    Args:
        path: the file.
        mend: what to do if it is damaged.

    Raises:
        DamagedFileError: it is no JSON.
    """
    with reading(path, mend):
        try:
            return from_json(content(path))
        except FileNotFoundError:
            return None


def from_json(text: bytes) -> Any:
    """What JSON says, whose whole numbers are such as a float holds.

    Raises:
        ValueError: it is no JSON, or has a larger number.
        RecursionError: its lists are too deep.
    """
    return json.loads(text.decode(), parse_int=_whole)


def _whole(digits: str) -> int:
    number = int(digits)
    if abs(number) > sys.float_info.max:
        raise ValueError(f"a number of {len(digits.lstrip('-')):,} digits")
    return number


def read_typed(path: Path, kind: TypeAdapter[Read], otherwise: Read, mend: str = "") -> Read:
    """JSON of a file, checked against a type.

    Args:
        path: the file.
        kind: what it holds.
        otherwise: what it counts as if it does not exist.
        mend: what to do if it is damaged.

    Raises:
        DamagedFileError: it is no JSON, or holds something else.
    """
    with reading(path, mend):
        try:
            return kind.validate_json(content(path))
        except FileNotFoundError:
            return otherwise


def read_table(path: Path, mend: str = "") -> list[dict[str, str]]:
    """Rows of a CSV file by the names of its columns; none if it does not exist.

    Raises:
        DamagedFileError: it is no table.
    """
    with reading(path, mend):
        try:
            rows = list(csv.DictReader(io.StringIO(content(path).decode(), newline="")))
        except FileNotFoundError:
            return []
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("its rows differ in length")
        return rows
