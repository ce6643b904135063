"""Reading files that somebody else wrote: regular ones only, of a bounded size, as text in a known encoding."""

import os
import stat
from pathlib import Path

from moe.errors import UserError
from moe.wording import printable

_MOST_TEXT = 64 * 2**20  # bytes; a million labelled images fit
_OFFICE = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def is_named_folder(path: Path) -> bool:
    """Whether what a user named is a folder.

    Raises:
        UserError: nothing is there, or it cannot be reached.
    """
    return stat.S_ISDIR(_status(path).st_mode)


def regular(path: Path) -> int:
    """The size in bytes of a regular file.

    Raises:
        UserError: it does not exist, cannot be reached, or is a folder, device or pipe.
    """
    found = _status(path)
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{printable(str(path))} is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{printable(str(path))} is a device or a pipe, not a file")
    return found.st_size


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise UserError(f"{printable(str(path))} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{printable(str(path))!r:.300} cannot be read ({reason})") from None


def read_text(path: Path) -> str:
    """A text file: UTF-8, with or without byte order mark, or UTF-16 with one. Line ends become newlines.

    Raises:
        UserError: no regular file, too large, or of another encoding.
    """
    name = printable(str(path))
    size = regular(path)
    if size > _MOST_TEXT:
        raise UserError(f"{name} has {size / 2**20:,.0f} MB, too much for a text file of names or labels")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror})") from None
    if data.startswith(_OFFICE):
        raise UserError(f"{name} is an Excel workbook or another archive; save it as CSV in UTF-8")
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} of {name} is not {encoding.upper()} text; save the file as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{name} holds zero bytes, so it is no text in UTF-8; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without the spaces around them; those that are empty at its end are left out."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
