"""Figures of the probes, as a researcher would put them into a paper."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_TILE = 0.62


def picture_grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    labels: Sequence[str],
    scores: Sequence[Sequence[float]],
    title: str,
) -> Figure:
    """Rows of pictures (H, W, 3), each with its score beneath; one label a row."""
    columns = max(len(row) for row in rows)
    height = 0.5 + 1.25 * _TILE * len(rows)
    figure = Figure(figsize=(1.0 + _TILE * columns, height))
    figure.subplots_adjust(top=1 - 0.4 / height, bottom=0.1 / height)
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.35})
    for axis in axes.ravel():
        axis.set_axis_off()
    for row, (pictures, values, label) in enumerate(zip(rows, scores, labels, strict=True)):
        for column, (picture, value) in enumerate(zip(pictures, values, strict=True)):
            axes[row, column].imshow(picture, interpolation="nearest" if len(picture) < 96 else "antialiased")  # noqa: PLR2004
            axes[row, column].text(
                0.5,
                -0.04,
                f"{value:.3g}",
                ha="center",
                va="top",
                fontsize=5,
                transform=axes[row, column].transAxes,
            )
        axes[row, 0].text(-0.15, 0.5, label, ha="right", va="center", fontsize=8, transform=axes[row, 0].transAxes)
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / height, va="top")
    return figure


def matrix_row(
    matrices: Sequence[NDArray[np.float64]],
    titles: Sequence[str],
    names: Sequence[str],
    *,
    title: str,
    label: str,
    limits: tuple[float, float],
) -> Figure:
    """Square matrices over the same names in rows of four, with one colour bar; NaN cells are grey."""
    columns = min(4, len(matrices))
    rows = -(-len(matrices) // columns)
    side = 1.6 + 0.11 * len(names)
    figure = Figure(figsize=(columns * side + 1.2, rows * side + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel()[len(matrices) :]:
        axis.set_axis_off()
    image = None
    for number, (axis, matrix, name) in enumerate(zip(axes.ravel(), matrices, titles, strict=False)):
        axis.set_facecolor("0.85")
        image = axis.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="viridis")
        axis.set_title(name, fontsize=8)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
        axis.set_yticks(range(len(names)), names if number % columns == 0 else [], fontsize=5)
        axis.tick_params(length=0)
    if image is not None:
        figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def profiles(
    panels: Sequence[tuple[str, NDArray[np.float64]]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Coefficient matrices (experts x dimensions) one above the other, on one scale; 0 is white."""
    height = 1.0 + len(panels) * (0.5 + 0.24 * len(rows)) + 1.8
    figure = Figure(figsize=(1.8 + 0.28 * len(columns), height), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    high = max((float(np.nanmax(matrix)) for _, matrix in panels if np.isfinite(matrix).any()), default=1.0) or 1.0
    image = None
    for axis, (name, matrix) in zip(axes, panels, strict=True):
        axis.set_facecolor("0.85")
        image = axis.imshow(matrix, vmin=0, vmax=high, cmap="Purples", aspect="auto")
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
        axis.set_title(name, fontsize=8, loc="left")
        axis.tick_params(length=0)
    axes[-1].set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    if image is not None:
        figure.colorbar(image, ax=axes, label="coefficient (sd per sd)", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def clusters(
    points_N2: NDArray[np.float64],
    labels_N: NDArray[np.int64],
    names: Sequence[str],
    silhouette: dict[int, float],
) -> Figure:
    """Left: experts in two MDS dimensions, coloured by cluster. Right: silhouette for each number of clusters."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number in np.unique(labels_N):
        members = labels_N == number
        left.scatter(
            *points_N2[members].T,
            s=28,
            color=f"C{number % 10}",
            label=f"cluster {number} (n = {members.sum()})",
        )
    if len(names) <= 40:  # noqa: PLR2004
        for name, (x, y) in zip(names, points_N2, strict=True):
            left.annotate(name, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=5)
    left.set_aspect("equal", "datalim")
    left.set(xlabel="MDS 1", ylabel="MDS 2", title="experts by representational similarity")
    left.legend(fontsize=7)
    right.plot(list(silhouette), list(silhouette.values()), "o-", color="0.2")
    right.set(xlabel="number of clusters", ylabel="mean silhouette", title="choice of the number of clusters")
    right.set_xticks(list(silhouette))
    return figure
