"""The paper's Figures 6, S3 and S4 in its layout: clusters of experts, with the pictures that excite their experts.

Draw within `printed.print_style`. Axes: N experts of all runs. Lengths are inches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probes.drawing.printed import FONT, INNER, SMALL, Sheet, show_montage

# Okabe and Ito 2008, told apart with any colour vision; shapes beside them, as there may be fifteen clusters
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
_MAP = 2.1  # side
_PICTURES = 10
_LINE = 0.15


@dataclass(frozen=True)
class Shown:
    """An expert whose pictures stand for its cluster: its place among the experts, and the pictures."""

    place: int
    pictures: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class ClusterMap:
    """The experts of all runs with one number of experts.

    Attributes:
        title: of the models.
        points_N2: experts in the plane (MDS).
        labels_N: cluster of each.
        names: of the clusters, each beginning with its number.
        shown: experts whose pictures are shown, cluster by cluster; empty where there are none.
    """

    title: str
    points_N2: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    names: Sequence[str]
    shown: Sequence[Shown]


def look(cluster: int) -> tuple[str, str]:
    """Colour and shape of a cluster."""
    return COLOURS[cluster % len(COLOURS)], SHAPES[(cluster // len(COLOURS) + cluster) % len(SHAPES)]


def clusters(maps: Sequence[ClusterMap], *, letters: bool) -> Figure:
    """Figures 6 and S4: left the experts in the plane, right the pictures of the boxed ones.

    Args:
        maps: one above the other.
        letters: whether the maps are (a), (b), ... (Figure S4); else map and pictures are (a) and (b) (Figure 6).
    """
    tile = (INNER - _MAP - 0.75) / _PICTURES
    heights = [0.22 + max(_map_height(one), _picture_height(one, tile)) for one in maps]
    sheet, top = Sheet(sum(heights) + 0.12 * (len(maps) - 1)), 0.0
    for number, (one, height) in enumerate(zip(maps, heights, strict=True)):
        if letters:
            sheet.letter(top, "abcdefgh"[number % 8])
        else:
            sheet.letter(top, "a")
            if one.shown:
                sheet.text(_MAP + 0.45, top, "b", weight="bold", fontsize=FONT + 2)
        sheet.text(0.28, top, one.title)
        axes = sheet.axes(0.28, top + 0.22, _MAP - 0.28, _MAP - 0.28)
        _points(axes, one)
        below = top + 0.22 + _MAP - 0.28 + 0.24
        for place, name in enumerate(_legend(one)):
            _legend_line(sheet, place, name, below)
            below += _LINE * len(name)
        _pictures(sheet, one, (_MAP + 0.7, top + 0.22), tile)
        top += height + 0.12
    return sheet.figure


def _map_height(one: ClusterMap) -> float:
    return _MAP - 0.28 + 0.24 + _LINE * sum(map(len, _legend(one)))


def _picture_height(one: ClusterMap, tile: float) -> float:
    return len(one.shown) * tile + 0.1 * len(one.names) if one.shown else 0.0


def _legend(one: ClusterMap) -> list[list[str]]:
    """Lines of each cluster's name."""
    counts = np.bincount(one.labels_N, minlength=len(one.names))
    return [wrap(f"{name} (n = {count})", 36) for name, count in zip(one.names, counts, strict=True)]


def _legend_line(sheet: Sheet, cluster: int, lines: Sequence[str], top: float) -> None:
    colour, shape = look(cluster)
    axes = sheet.axes(0.28, top, 0.12, 0.12)
    axes.plot([0], [0], marker=shape, color=colour, ms=4)
    axes.set_axis_off()
    sheet.text(0.43, top - 0.005, "\n".join(lines), fontsize=SMALL)


def _points(axes: Axes, one: ClusterMap) -> None:
    for cluster in range(len(one.names)):
        mine = one.labels_N == cluster
        colour, shape = look(cluster)
        axes.scatter(one.points_N2[mine, 0], one.points_N2[mine, 1], s=13, color=colour, marker=shape, lw=0)
    boxed = one.points_N2[[shown.place for shown in one.shown]]
    axes.scatter(boxed[:, 0], boxed[:, 1], s=45, marker="s", facecolors="none", edgecolors="0.15", lw=0.7)
    axes.set_aspect("equal", "datalim")
    axes.margins(0.1)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("MDS 1", labelpad=2)
    axes.set_ylabel("MDS 2", labelpad=2)


def _pictures(sheet: Sheet, one: ClusterMap, corner: tuple[float, float], tile: float) -> None:
    left, top = corner
    for cluster in range(len(one.names)):
        rows = [shown.pictures for shown in one.shown if one.labels_N[shown.place] == cluster]
        if not rows:
            continue
        colour, _ = look(cluster)
        height = len(rows) * tile
        show_montage(sheet.axes(left, top, _PICTURES * tile, height), rows, _PICTURES)
        bar = sheet.axes(left - 0.07, top, 0.035, height)
        bar.set_facecolor(colour)
        bar.set(xticks=[], yticks=[])
        sheet.text(left - 0.1, top + height / 2, str(cluster), ha="right", va="center")
        top += height + 0.1


def silhouettes(curves: Mapping[str, Mapping[int, float]]) -> Figure:
    """Figure S3: mean silhouette by number of clusters, a panel each; the dashed line is at the number chosen."""
    gap, left = 0.15, 0.45
    columns = min(3, len(curves))
    width = min(2.4, (INNER - left - gap * (columns - 1)) / columns)
    rows = -(-len(curves) // columns)
    height = 1.35
    sheet = Sheet(rows * (height + 0.55) + 0.05)
    values = [value for curve in curves.values() for value in curve.values()]
    low, high = min([0.0, *values]), max(values)
    for place, (title, curve) in enumerate(curves.items()):
        row, column = divmod(place, columns)
        axes = sheet.axes(left + column * (width + gap), 0.2 + row * (height + 0.55), width, height)
        ks = sorted(curve)
        best = max(ks, key=lambda k: curve[k])
        axes.plot(ks, [curve[k] for k in ks], "o-", color=COLOURS[0], ms=2.5, lw=0.9)
        axes.axvline(best, ls="--", lw=0.8, color="0.3")
        axes.set_title(f"{title}: {best} clusters", pad=3)
        axes.set_xticks(ks if len(ks) <= 8 else ks[::2])
        axes.set_ylim(low - 0.03, high + 0.05)
        axes.set_xlabel("number of clusters", labelpad=2)
        if column == 0:
            axes.set_ylabel("mean silhouette", labelpad=2)
        else:
            axes.set_yticklabels([])
        axes.tick_params(length=2, pad=1.5)
    return sheet.figure
