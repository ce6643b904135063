"""A figure or a table of the paper, made from a sweep, and what it could not show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from sweeps.views.compare import Gap


@dataclass(frozen=True)
class Table:
    """Numbers behind a figure, or a table of the paper.

    Attributes:
        header: names of the columns.
        rows: cells.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Piece:
    """One figure or table.

    Attributes:
        name: of its files: ``figure_2``.
        title: ``Figure 2``.
        caption: what is shown, and how to read it.
        figure: None for a table, or where nothing could be drawn.
        data: the numbers behind it, by part ("" for a single one).
        latex: of a table.
        gaps: what is missing.
    """

    name: str
    title: str
    caption: str
    figure: Figure | None = None
    data: Mapping[str, Table] = field(default_factory=dict)
    latex: str = ""
    gaps: Sequence[Gap] = ()
