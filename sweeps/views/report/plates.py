"""A figure or a table that someone else made, as the page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.views.compare import Gap


@dataclass(frozen=True)
class Rows:
    """A table.

    Attributes:
        title: what it is; "" where the plate says it.
        header: names of the columns.
        sections: heading ("" for none) and rows.
    """

    title: str
    header: Sequence[str]
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]]


@dataclass(frozen=True)
class Plate:
    """One figure or table.

    Attributes:
        name: its id in the page.
        title: ``Figure 2``.
        caption: what is shown, and how to read it.
        source: the picture as a data URI; "" for a table, or where nothing could be drawn.
        tables: the plate itself, if it has no picture; else numbers behind the picture, for those who cannot see it.
        gaps: what is missing.
    """

    name: str
    title: str
    caption: str
    source: str = ""
    tables: Sequence[Rows] = ()
    gaps: Sequence[Gap] = ()
