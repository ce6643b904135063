"""Figures that need no display: built on matplotlib's Figure, saved as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

DPI = 150
_READABLE = 60


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    return path


def heatmap(
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str,
    limits: tuple[float, float],
    cmap: str = "viridis",
    annotate: bool = True,
) -> Figure:
    """A labelled matrix (R, C) with its values written in and a colour bar; NaN cells stay grey.

    Beyond 60 rows there is room for neither names nor values.
    """
    many = len(rows) > _READABLE
    height, width = 1.2 + 0.3 * min(len(rows), _READABLE), 2.6 + 0.5 * len(columns)
    figure = Figure(figsize=(max(width, 4.0), max(height, 2.4)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    image = axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap=cmap, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=0 if max(map(len, columns)) <= 3 else 90)  # noqa: PLR2004
    axes.set_yticks([] if many else range(len(rows)), [] if many else rows)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)
    if annotate and not many:
        middle = (limits[0] + limits[1]) / 2
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value < middle else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label=label)
    return figure
