"""The paper's Figures 2 to 5, S1 and S2 in its layout: parts that belong together on one sheet.

Draw within `printed.print_style`. Axes: n images, E experts, C classes. Lengths are inches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probes.drawing.base import NOTHING, Colouring
from probes.drawing.printed import INNER, SMALL, Sheet, legend_height, show_montage

Pictures = Sequence[Sequence[NDArray[np.uint8]]]  # a list an expert
_LEGEND_COLUMNS = 5
_LEAST_CELL = 0.028  # of a matrix's side, so that names beside it stay apart


@dataclass(frozen=True)
class GateMap:
    """The gate of one model over images (Figure 2a).

    Attributes:
        points_n2: images in the plane.
        member_nE: whether each is routed to each expert.
        labels_n: class of each, -1 where it has none.
    """

    points_n2: NDArray[np.float64]
    member_nE: NDArray[np.bool_]
    labels_n: NDArray[np.int64]


@dataclass(frozen=True)
class Routed:
    """What one model's gate sends where (Figure 2b), and what it sends most decidedly (Figure 2c).

    Attributes:
        title: of the model.
        share_CE: proportion of each class's images that is routed to each expert.
        pictures: images with the highest gate logits, an expert; None where there are none to show.
    """

    title: str
    share_CE: NDArray[np.float64]
    pictures: Pictures | None


def gating(gate: GateMap | None, models: Sequence[Routed], classes: Sequence[str]) -> Figure:
    """Figure 2: (a) a map an expert, (b) class x expert for every model, (c) the images of the highest gate logits."""
    labels = np.zeros(0, np.int64) if gate is None else gate.labels_n
    colouring = Colouring.of(labels, classes)
    side, columns = 0.0, 0
    if gate is not None:
        columns = min(8, gate.member_nE.shape[1])
        side = min(1.3, (INNER - 0.2 - 0.06 * columns) / columns)
        rows_a = -(-gate.member_nE.shape[1] // columns)
        height_a = rows_a * (side + 0.22) + legend_height(colouring.names, _LEGEND_COLUMNS) + 0.15
    else:
        height_a = 0.0
    left, bar = 0.9, 0.55
    total = sum(model.share_CE.shape[1] for model in models)
    gaps = 0.12 * (len(models) - 1)
    tile = min(0.28, (INNER - left - bar - gaps) / max(1, total))
    cells = max(0.12, min(0.17, 2.2 / max(1, len(classes))))
    deepest = max((len(row) for m in models for row in m.pictures or ()), default=0)
    height_b = (0.2 + cells * len(classes) + 0.35) if models else 0.0
    height_c = deepest * tile + 0.1 if deepest else 0.0
    sheet = Sheet(height_a + height_b + height_c + 0.05)
    if gate is not None:
        _gate_maps(sheet, gate, colouring, side, columns)
    _routed(sheet, models, classes, (left, height_a), (tile, cells), height_a + height_b)
    return sheet.figure


def _gate_maps(sheet: Sheet, gate: GateMap, colouring: Colouring, side: float, columns: int) -> None:
    sheet.letter(0.0, "a")
    colours = colouring.colours
    experts = gate.member_nE.shape[1]
    x_n, y_n = gate.points_n2.T
    for expert in range(experts):
        row, column = divmod(expert, columns)
        axes = sheet.axes(0.2 + column * (side + 0.06), 0.2 + row * (side + 0.22), side, side)
        mine = gate.member_nE[:, expert]
        size = _point(len(x_n))
        axes.scatter(x_n[~mine], y_n[~mine], s=size, color="0.92", lw=0, rasterized=True)
        axes.scatter(x_n[mine], y_n[mine], s=size, color=colours[mine], lw=0, rasterized=True)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"expert {expert}" if columns <= 4 else str(expert), pad=2)
    if len(colouring.names) > 1:
        top = 0.2 + -(-experts // columns) * (side + 0.22) - 0.15
        sheet.legend(top, colouring.names, colouring.palette, _LEGEND_COLUMNS)


def _point(count: int) -> float:
    """Area of one of so many points, in square points: the fewer, the larger."""
    return float(np.clip(6000 / max(1, count), 1.5, 6.0))


def _routed(
    sheet: Sheet, models: Sequence[Routed], classes: Sequence[str], corner: tuple[float, float],
    size: tuple[float, float], below: float,
) -> None:  # fmt: skip
    (left, top), (tile, cells) = corner, size
    if not models:
        return
    sheet.letter(top, "b")
    if any(model.pictures for model in models):
        sheet.letter(below, "c")
    at = left
    for number, model in enumerate(models):
        experts = model.share_CE.shape[1]
        axes = sheet.axes(at, top + 0.2, experts * tile, cells * len(classes))
        axes.set_facecolor(NOTHING)
        axes.imshow(model.share_CE, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(experts), [str(expert) for expert in range(experts)])
        axes.set_yticks(range(len(classes)), classes if number == 0 else [])
        axes.tick_params(length=0, pad=1.5, labelsize=SMALL if tile > 0.13 else SMALL - 1)
        axes.set_title(model.title, pad=3)
        axes.set_xlabel("expert", labelpad=1)
        if model.pictures:
            deepest = max(len(row) for row in model.pictures)
            shown = sheet.axes(at, below, experts * tile, deepest * tile)
            show_montage(shown, _turned(model.pictures, deepest), experts)
        at += experts * tile + 0.12
    bar = sheet.axes(at, top + 0.2, 0.1, cells * len(classes))
    scale = ScalarMappable(Normalize(0, 1), "viridis")
    sheet.figure.colorbar(scale, cax=bar, label="proportion", ticks=[0, 0.5, 1]).set_ticklabels(["0", ".5", "1"])


def _turned(pictures: Pictures, deepest: int) -> list[list[NDArray[np.uint8]]]:
    """From a list an expert to a list a rank; white where an expert has fewer."""
    white = np.full((1, 1, 3), 255, np.uint8)
    return [[mine[rank] if rank < len(mine) else white for mine in pictures] for rank in range(deepest)]


def exciting(models: Mapping[str, Mapping[str, Pictures]], count: int) -> Figure:
    """Figures 3 and S2: model by model, the sets of images one above the other; a block of pictures an expert.

    Args:
        models: title -> set of images -> the pictures of each expert, most exciting first.
        count: pictures of each expert, in two rows.
    """
    wide, deep = -(-count // 2), min(2, count)
    left, gap = 0.25, 0.35  # the gap between blocks in tiles
    most = max(len(pictures) for sets in models.values() for pictures in sets.values())
    columns = min(most, 8 if wide <= 2 else 4)
    tile = min(0.45, (INNER - left) / (columns * wide + (columns - 1) * gap))
    row_height = deep * tile + 0.19
    heights = {
        (model, name): -(-len(pictures) // columns) * row_height
        for model, sets in models.items() for name, pictures in sets.items()
    }  # fmt: skip
    sheet = Sheet(sum(heights.values()) + len(models) * 0.22 + 0.06 * len(heights))
    top = 0.0
    for model, sets in models.items():
        sheet.text(left, top, model, weight="bold")
        top += 0.2
        for name, pictures in sets.items():
            height = heights[model, name]
            sheet.text(0.0, top + height / 2, name, rotation=90, va="center")
            for expert, mine in enumerate(pictures):
                row, column = divmod(expert, columns)
                x = left + column * (wide + gap) * tile
                y = top + row * row_height
                sheet.text(x + wide * tile / 2, y, f"expert {expert}", ha="center", fontsize=SMALL)
                axes = sheet.axes(x, y + 0.14, wide * tile, deep * tile)
                show_montage(axes, [mine[:wide], mine[wide:]][:deep], wide)
            top += height + 0.06
        top += 0.02
    return sheet.figure


@dataclass(frozen=True)
class Cloud:
    """Gate against readout of one expert (Figure 4).

    Attributes:
        title: of the expert.
        logits_n: gate logits, from 0 to 1.
        norms_n: readout norms, from 0 to 1.
        line: intercept and slope of the least-squares line; None where there is none.
        r: Pearson's correlation.
    """

    title: str
    logits_n: NDArray[np.floating[Any]]
    norms_n: NDArray[np.floating[Any]]
    line: tuple[float, float] | None
    r: float


def clouds(models: Mapping[str, Sequence[Cloud]], labels_n: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Figures 4 and S1: every image a point; dashed the diagonal, solid the linear fit."""
    colouring = Colouring.of(labels_n, classes)
    colours, order_n = colouring.colours, np.random.default_rng(0).permutation(len(labels_n))  # no class lies on top
    columns, left, gap = 4, 0.42, 0.1
    side = (INNER - left - gap * (columns - 1)) / columns
    rows = {title: -(-len(experts) // columns) for title, experts in models.items()}
    legend = legend_height(colouring.names, _LEGEND_COLUMNS)
    sheet = Sheet(sum(0.3 + count * (side + 0.2) for count in rows.values()) + 0.27 + legend)
    top = 0.0
    for title, experts in models.items():
        sheet.text(left, top, title, weight="bold")
        top += 0.2
        for place, cloud in enumerate(experts):
            row, column = divmod(place, columns)
            axes = sheet.axes(left + column * (side + gap), top + 0.16 + row * (side + 0.2), side, side)
            axes.scatter(
                cloud.logits_n[order_n],
                cloud.norms_n[order_n],
                s=_point(len(order_n)),
                color=colours[order_n],
                lw=0,
                alpha=0.5,
                rasterized=True,
            )
            _lines(axes, cloud)
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"] if column == 0 else [])
            last = place + columns >= len(experts)
            axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"] if last else [])
            axes.tick_params(length=2, pad=1.5)
        top += rows[title] * (side + 0.2) + 0.1
    sheet.text(left + (INNER - left) / 2, top + 0.05, "normalised gate logit", ha="center")
    sheet.text(0.0, top / 2, "normalised readout norm", rotation=90, va="center")
    if len(colouring.names) > 1:
        sheet.legend(top + 0.25, colouring.names, colouring.palette, _LEGEND_COLUMNS)
    return sheet.figure


def _lines(axes: Axes, cloud: Cloud) -> None:
    axes.plot([0, 1], [0, 1], ls="--", lw=0.8, color="0.2")
    if cloud.line is not None:
        intercept, slope = cloud.line
        axes.plot([0, 1], [intercept, intercept + slope], lw=1.1, color="white")
        axes.plot([0, 1], [intercept, intercept + slope], lw=0.8, color="k")
    fit = "" if not np.isfinite(cloud.r) else f", r = {round(cloud.r, 2) + 0.0:.2f}".replace("0.", ".", 1)  # no -.00
    axes.set_title(f"{cloud.title}{fit}", pad=2, fontsize=SMALL + 0.5)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


@dataclass(frozen=True)
class Separable:
    """Separability of classes on one set of images (Figure 5).

    Attributes:
        title: the set.
        accuracy_ECC: balanced accuracies; NaN where undefined.
        names: of the classes, animate ones first where that is known.
        boundary: how many are animate; None: not known.
        sizes_C: sides of the cells, relative to each other.
    """

    title: str
    accuracy_ECC: NDArray[np.float64]
    names: Sequence[str]
    boundary: int | None
    sizes_C: NDArray[np.float64]


def separability(sets: Sequence[Separable]) -> Figure:
    """Figure 5: the sets one above the other, a matrix an expert; dashed: animate | inanimate."""
    right, gap = 0.6, 0.12
    places, top = [], 0.0
    for one in sets:
        experts, classes = len(one.accuracy_ECC), len(one.names)
        columns = min(experts, 4 if classes <= 12 else 2)
        margin = 0.08 + 0.055 * max(map(len, one.names))
        side = min((INNER - margin - right - gap * (columns - 1)) / columns, 2.2)
        rows = -(-experts // columns)
        places.append((one, columns, margin, side, top))
        top += 0.2 + rows * (side + 0.2) + margin + 0.06
    sheet = Sheet(top)
    for one, columns, margin, side, start in places:
        sheet.text(0.0, start, one.title, weight="bold")
        edges = _edges(one.sizes_C)
        for expert, accuracy_CC in enumerate(one.accuracy_ECC):
            row, column = divmod(expert, columns)
            axes = sheet.axes(margin + column * (side + gap), start + 0.36 + row * (side + 0.2), side, side)
            below = expert + columns >= len(one.accuracy_ECC)
            _matrix(axes, accuracy_CC, one, edges, (below, column == 0))
            axes.set_title(f"expert {expert}", pad=2)
        bar = sheet.axes(margin + columns * (side + gap), start + 0.36, 0.1, side)
        scale = ScalarMappable(Normalize(0.5, 1), "viridis")
        drawn = sheet.figure.colorbar(scale, cax=bar, label="balanced accuracy", ticks=[0.5, 0.75, 1])
        drawn.set_ticklabels([".5", ".75", "1"])
    return sheet.figure


def _edges(sizes_C: NDArray[np.float64]) -> NDArray[np.float64]:
    share_C = np.maximum(sizes_C / sizes_C.sum(), min(_LEAST_CELL, 1 / len(sizes_C)))
    return np.concatenate([[0.0], np.cumsum(share_C / share_C.sum())])


def _matrix(
    axes: Axes, accuracy_CC: NDArray[np.float64], one: Separable, edges: NDArray[np.float64], named: tuple[bool, bool]
) -> None:
    axes.set_facecolor(NOTHING)
    image = axes.pcolormesh(edges, edges, np.ma.masked_invalid(accuracy_CC), vmin=0.5, vmax=1, cmap="viridis")
    image.set_rasterized(False)
    axes.set(xlim=(0, 1), ylim=(1, 0))
    middles = (edges[:-1] + edges[1:]) / 2
    size = SMALL if len(one.names) <= 12 else SMALL - 2
    axes.set_xticks(middles, one.names if named[0] else [], rotation=90, fontsize=size)
    axes.set_yticks(middles, one.names if named[1] else [], fontsize=size)
    axes.tick_params(length=0, pad=1.5)
    if one.boundary is not None:
        for line in (axes.axhline, axes.axvline):
            line(edges[one.boundary], color="white", ls="--", lw=0.9)
