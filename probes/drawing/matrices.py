"""Matrices as colours: a heatmap with its values, separability of classes, similarity of experts, tuning profiles.

Axes: N rows and columns of a square matrix. Lengths are inches.
"""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probes.drawing.base import NOTHING

_READABLE = 60  # rows up to which there is room for names
_WRITTEN = 12  # classes up to which a cell has room for its value
_LETTERS = 13  # of a label, to an inch
_SMALLEST_CELL = 0.022  # of the side, so that names beside it stay apart


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
    height, width = max(2.4, 1.2 + 0.3 * min(len(rows), _READABLE)), max(4.0, 2.6 + 0.5 * len(columns))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(NOTHING)
    image = axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap=cmap, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=0 if max(map(len, columns)) <= 3 else 90)
    axes.set_yticks([] if many else range(len(rows)), [] if many else rows)
    axes.tick_params(length=0)
    figure.suptitle(title, fontsize=10)  # above the colour bar too, whose label is as long as few rows are high
    if annotate and not many:
        middle = (limits[0] + limits[1]) / 2
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value < middle else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label=fill(label, int(_LETTERS * (height - 0.9))))
    return figure


def separability_matrices(
    matrices: Sequence[NDArray[np.float64]],
    titles: Sequence[str],
    names: Sequence[str],
    weights_N: NDArray[np.float64],
    boundary: int | None,
    title: str,
    note: str,
) -> Figure:
    """Square matrices of balanced accuracies over the same classes, in rows of four (Figure 5).

    Args:
        matrices: (N, N) each; NaN cells are grey.
        titles: one a matrix.
        names: of the classes, in the matrices' order.
        weights_N: sides of the cells, relative to each other.
        boundary: number of classes before the dashed line; None for no line.
        title: of the figure.
        note: what the cells' sides and grey mean.
    """
    share = weights_N / weights_N.sum()
    share = np.maximum(share, _SMALLEST_CELL)
    edges = np.concatenate([[0.0], np.cumsum(share / share.sum())])
    columns = min(2 if len(names) > _WRITTEN and len(matrices) <= 4 else 4, len(matrices))
    side = 1.3 + 0.13 * len(names)
    figure, grid = _class_panels(len(matrices), columns, side, 0.2 + 0.045 * max(map(len, names)))
    image: Any = None
    for number, (axes, matrix, name) in enumerate(zip(grid, matrices, titles, strict=True)):
        axes.set_facecolor(NOTHING)
        image = axes.pcolormesh(edges, edges, np.ma.masked_invalid(matrix), vmin=0.5, vmax=1, cmap="viridis")
        axes.set(aspect="equal", ylim=(1, 0), xlim=(0, 1))
        axes.set_title(name, fontsize=8)
        middles = (edges[:-1] + edges[1:]) / 2
        below = number >= len(matrices) - columns
        axes.set_xticks(middles, names if below else [""] * len(names), rotation=90, fontsize=5.5)
        axes.set_yticks(middles, names if number % columns == 0 else [""] * len(names), fontsize=5.5)
        axes.tick_params(length=0, pad=1)
        if boundary is not None:
            axes.axhline(edges[boundary], color="white", ls="--", lw=1)
            axes.axvline(edges[boundary], color="white", ls="--", lw=1)
        if len(names) <= _WRITTEN:
            _write_values(axes, matrix, middles)
    figure.colorbar(image, ax=grid, label="balanced accuracy (chance 0.5)", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(note, fontsize=7)
    return figure


def _class_panels(count: int, columns: int, side: float, margin: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * side + margin + 0.8, rows * (side + 0.2) + margin + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def _write_values(axes: Axes, matrix: NDArray[np.float64], middles: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "white" if value < 0.75 else "black"  # the middle of the scale
            text = f"{value:.2f}".lstrip("0")
            x, y = float(middles[column]), float(middles[row])
            axes.text(x, y, text, ha="center", va="center", fontsize=4.5, color=colour)


def similarity_matrix(
    matrix_NN: NDArray[np.float64], names: Sequence[str], sizes: Sequence[int], title: str, label: str
) -> Figure:
    """A similarity matrix in cluster order, with lines between clusters.

    Args:
        matrix_NN: sorted by cluster.
        names: of its rows; written up to 60 of them.
        sizes: experts of each cluster.
        title: of the figure.
        label: of the colour bar.
    """
    written = len(names) <= _READABLE
    side = min(2.2 + 0.13 * len(names), 9.0)
    figure = Figure(figsize=(side + 1.3, side), layout="constrained")
    axes = figure.subplots()
    lowest = float(np.nanmin(matrix_NN, initial=0.0))
    image = axes.imshow(matrix_NN, vmin=min(0.0, lowest), vmax=1, cmap="viridis")
    ticks = range(len(names)) if written else []
    axes.set_xticks(ticks, names if written else [], rotation=90, fontsize=6)
    axes.set_yticks(ticks, names if written else [], fontsize=6)
    axes.tick_params(length=0)
    for edge in np.cumsum(sizes)[:-1] - 0.5:
        axes.axhline(edge, color="white", lw=1)
        axes.axvline(edge, color="white", lw=1)
    axes.set_xlabel("run / expert, in cluster order", fontsize=8)
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure


def tuning_profiles(
    panels: Sequence[tuple[str, NDArray[np.float64]]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    unit: str,
) -> Figure:
    """Coefficient matrices (experts x dimensions) one above the other, on one scale; 0 is white, NaN grey."""
    height = 1.0 + len(panels) * (0.5 + 0.24 * len(rows)) + 1.8
    figure = Figure(figsize=(1.8 + 0.28 * len(columns), height), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    high = max((float(np.nanmax(matrix)) for _, matrix in panels if np.isfinite(matrix).any()), default=1.0) or 1.0
    image: Any = None
    for axis, (name, matrix) in zip(axes, panels, strict=True):
        axis.set_facecolor(NOTHING)
        image = axis.imshow(matrix, vmin=0, vmax=high, cmap="Purples", aspect="auto")
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
        axis.set_title(name, fontsize=8, loc="left")
        axis.tick_params(length=0)
    axes[-1].set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    figure.colorbar(image, ax=list(axes), label=f"coefficient ({unit})", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure
