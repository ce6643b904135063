"""Which image a name in somebody's table means: with or without folder and suffix, from another system, in any case."""

import re
import unicodedata
from collections.abc import Sequence

# suffixes of picture formats that are read; see moe.data.pictures
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".jpx", ".heic", ".heif",
)  # fmt: skip
_SUFFIX = re.compile("|".join(re.escape(suffix) + "$" for suffix in SUFFIXES), re.IGNORECASE)


def without_suffix(name: str) -> str:
    """The name without the suffix of a picture format, if it has one; other dots stay."""
    stem = _SUFFIX.sub("", name)
    return name if not stem or stem.endswith("/") else stem


def natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key under which 10.jpg follows 9.jpg; numbers come after text, as in "a" before "1"."""
    parts = re.split(r"([0-9]+)", path)  # every second part is digits
    return [_number(part) if place % 2 else (0, 0, part) for place, part in enumerate(parts)]


def _number(digits: str) -> tuple[int, int, str]:
    digits = digits.lstrip("0")
    return 1, len(digits), digits  # the order of the numbers, however long


def looks_like_a_file(name: str) -> bool:
    """Whether a cell has a folder or the suffix of a picture."""
    return bool(_SUFFIX.search(name)) or "/" in name or "\\" in name


def _parts(name: str) -> list[str]:
    plain = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


class Names:
    """The ids of images, for looking up what a table calls them.

    Args:
        ids: one an image: its path without the suffix, parts joined by "/".
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self._depth = 1
        self._exact: tuple[dict[str, list[int]], dict[str, list[int]]] = {}, {}
        self._folded: tuple[dict[str, list[int]], dict[str, list[int]]] = {}, {}
        for place, name in enumerate(ids):
            parts = _parts(name) or [name]
            self._depth = max(self._depth, len(parts))
            self._add(self._exact, parts, place)
            self._add(self._folded, [part.casefold() for part in parts], place)

    @staticmethod
    def _add(index: tuple[dict[str, list[int]], dict[str, list[int]]], parts: list[str], place: int) -> None:
        whole, ends = index
        whole.setdefault("/".join(parts), []).append(place)
        for start in range(1, len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(place)

    def find(self, name: str) -> list[int]:
        """Places of the images that a name can mean: none, one, or several among which nothing decides.

        In order: the id itself; an id at the end of a longer path (/home/me/pics/red/0 for red/0); the end of an id (0
        for red/0); the same without the suffix of a picture (0.png); then all that without regard to case.
        """
        whole = _parts(name)[-self._depth :]
        bare = _parts(without_suffix("/".join(whole)))
        for index, fold in ((self._exact, False), (self._folded, True)):
            for parts in (whole, bare) if bare != whole else (whole,):
                if hits := _among(index, [part.casefold() for part in parts] if fold else parts):
                    return hits
        return []


def _among(index: tuple[dict[str, list[int]], dict[str, list[int]]], wanted: list[str]) -> list[int]:
    whole, ends = index
    for start in range(len(wanted)):
        if hits := whole.get("/".join(wanted[start:])):
            return hits
    return ends.get("/".join(wanted), [])
