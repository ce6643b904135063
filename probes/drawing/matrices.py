"""Figures of the probes, as a researcher would put them into a paper: pictures and matrices.

Axes: N rows and columns of a matrix. Lengths are inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

_TILE = 0.62
_FEW_PIXELS = 96
_WRITTEN = 12  # classes up to which a cell has room for its value
_SMALLEST_CELL = 0.022  # of the side, so that names beside it stay apart
_GREY = "0.85"


@dataclass(frozen=True)
class Block:
    """Pictures from one source: one row an expert.

    Attributes:
        title: the source.
        pictures: (H, W, 3) uint8 each.
        scores: one a picture.
    """

    title: str
    pictures: Sequence[Sequence[NDArray[np.uint8]]]
    scores: Sequence[Sequence[float]]


def picture_grid(blocks: Sequence[Block], labels: Sequence[str], title: str, unit: str) -> Figure:
    """Rows of pictures, each with its score beneath; the blocks stand side by side.

    Args:
        blocks: all with as many rows as there are labels.
        labels: one a row.
        title: of the figure.
        unit: what the scores are.
    """
    row_height, gap = 1.24, 0.5  # tiles
    widths = [max(len(row) for row in block.pictures) for block in blocks]
    width, height = sum(widths) + gap * (len(blocks) - 1), row_height * len(labels)
    top, bottom, left = 0.62, 0.3, 0.35 + 0.062 * max(map(len, labels))
    size = (left + _TILE * width + 0.1, top + _TILE * height + bottom)
    figure = Figure(figsize=size)
    axes = figure.add_axes((left / size[0], bottom / size[1], _TILE * width / size[0], _TILE * height / size[1]))
    offset = 0.0
    for block, columns in zip(blocks, widths, strict=True):
        axes.text(offset + columns / 2, -0.12, block.title, ha="center", va="bottom", fontsize=8)
        for row, (pictures, scores) in enumerate(zip(block.pictures, block.scores, strict=True)):
            for column, (picture, score) in enumerate(zip(pictures, scores, strict=True)):
                x, y = offset + column, row * row_height
                interpolation = "nearest" if len(picture) < _FEW_PIXELS else "antialiased"
                axes.imshow(picture, extent=(x + 0.03, x + 0.97, y + 0.94, y), interpolation=interpolation)
                axes.text(x + 0.5, y + 0.97, f"{score:.3g}", ha="center", va="top", fontsize=5)
        offset += columns + gap
    for row, label in enumerate(labels):
        axes.text(-0.12, row * row_height + 0.47, label, ha="right", va="center", fontsize=8)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / size[1], va="top")
    figure.text(0.5, 0.08 / size[1], f"beneath each picture: {unit}", ha="center", va="bottom", fontsize=6)
    return figure


def separability(
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
    columns = min(2 if len(names) > _WRITTEN and len(matrices) <= 4 else 4, len(matrices))  # noqa: PLR2004
    side = 1.3 + 0.13 * len(names)
    figure, grid = _panels(len(matrices), columns, side, 0.2 + 0.045 * max(map(len, names)))
    image: Any = None
    for number, (axes, matrix, name) in enumerate(zip(grid, matrices, titles, strict=True)):
        axes.set_facecolor(_GREY)
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


def _panels(count: int, columns: int, side: float, margin: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * side + margin + 0.8, rows * (side + 0.2) + margin + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def _write_values(axes: Axes, matrix: NDArray[np.float64], middles: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "white" if value < 0.75 else "black"  # noqa: PLR2004 - the middle of the scale
            text = f"{value:.2f}".lstrip("0")
            x, y = float(middles[column]), float(middles[row])
            axes.text(x, y, text, ha="center", va="center", fontsize=4.5, color=colour)


def similarity(
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
    written = len(names) <= 60  # noqa: PLR2004
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


def profiles(
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
        axis.set_facecolor(_GREY)
        image = axis.imshow(matrix, vmin=0, vmax=high, cmap="Purples", aspect="auto")
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
        axis.set_title(name, fontsize=8, loc="left")
        axis.tick_params(length=0)
    axes[-1].set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    figure.colorbar(image, ax=list(axes), label=f"coefficient ({unit})", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure
