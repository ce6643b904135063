"""Words of messages: counts, lists that are cut short, names and errors as text."""

import re
from collections.abc import Sequence

_MANY = {"is": "are", "was": "were"}
_NUMBER = re.compile(r"\[Errno -?\d+\] ")
_LONGEST = 200  # characters of a name in a list


def printable(name: str) -> str:
    r"""A file's name as text that can be printed and stored: bytes that are no UTF-8 are written as \xe4."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(text: str) -> str:
    r"""Text as a line of a terminal can show it: what moves its cursor or shows nothing is written as \x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: BaseException) -> str:
    """The first line of an error as part of a sentence, without the system's number, or its kind if it says nothing."""
    said = getattr(error, "strerror", None) or str(error)
    line = next((line for line in str(said).splitlines() if line.strip()), type(error).__name__)
    return _NUMBER.sub("", line).strip().rstrip(":;").encode("utf-8", "backslashreplace").decode()[:200]


def counted(count: int, what: str, verb: str = "") -> str:
    """A count, its noun and the verb of one: "1 image", "2,000 images"; "1 run was", "3 runs were"."""
    one = count == 1
    noun = f"{count:,} {what}" if one else f"{count:,} {what}s"
    return f"{noun} {verb if one else _MANY[verb]}" if verb else noun


def numbered(what: str, numbers: Sequence[int]) -> str:
    """Things by their numbers: "expert 3", "experts 0, 2"."""
    return f"{what}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def first_few(names: Sequence[str]) -> str:
    """Up to five names, as a terminal can show them, and how many more there are."""
    shown = ", ".join(visible(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 2]}..") for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5:,} more"
