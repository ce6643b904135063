"""Experts beside references with noise ceilings, and clusters of experts by several measures.

Axes: N experts, M measures. Lengths are inches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

_READABLE = 60  # rows up to which there is room for names
_COLOURS = 10


@dataclass(frozen=True)
class Bar:
    """One reference in a panel.

    Attributes:
        name: of the reference.
        values: of each expert.
        mean: over the experts.
        low: lower end of the mean's interval; NaN without one.
        high: its upper end.
        chance: mean over permutations; NaN without any.
        ceiling: lower and upper noise ceiling; NaN where there is none.
    """

    name: str
    values: NDArray[np.float64]
    mean: float
    low: float
    high: float
    chance: float
    ceiling: tuple[float, float]


def beside_references(panels: Mapping[str, Mapping[str, Sequence[Bar]]], title: str) -> Figure:
    """Similarity with each reference, a row of panels a set of experts, a column a measure.

    Args:
        panels: set of experts -> measure -> references.
        title: of the figure.
    """
    sets, measures = list(panels), list(next(iter(panels.values())))
    count = max(len(bars) for of_set in panels.values() for bars in of_set.values())
    figure = Figure(figsize=(1.4 + 2.5 * len(measures), 1.3 + (0.5 + 0.3 * count) * len(sets)), layout="constrained")
    grid = figure.subplots(len(sets), len(measures), squeeze=False, sharex="col")
    names = [bar.name for bar in max((bars for of in panels.values() for bars in of.values()), key=len)]
    for row, of_set in zip(grid, panels.values(), strict=True):
        for axes, (measure, bars) in zip(row, of_set.items(), strict=True):
            _bars(axes, bars, names)
            if axes in grid[0]:
                axes.set_title(measure, fontsize=8)
            axes.set_yticks(range(len(names)), names if axes is row[0] else [""] * len(names), fontsize=7)
    for axes, name in zip(grid[:, 0], sets, strict=True):
        axes.set_ylabel(name, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("similarity", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.legend(handles=_KEY, loc="outside lower center", ncols=4, fontsize=6.5, frameon=False)
    return figure


_KEY = [
    Line2D([], [], marker="o", ls="", ms=3, color="C0", alpha=0.5, label="an expert"),
    Line2D([], [], marker="o", ms=5, color="C3", label="mean, 95% interval"),
    Line2D([], [], marker="|", ls="", ms=9, color="0.2", label="chance (images permuted)"),
    Patch(color="0.85", label="noise ceiling, where it is known"),
]


def _bars(axes: Axes, bars: Sequence[Bar], names: Sequence[str]) -> None:
    axes.axvline(0, lw=0.6, color="0.7")
    for bar in bars:
        y = names.index(bar.name)
        if np.isfinite(bar.ceiling).all():
            low, high = bar.ceiling
            axes.add_patch(_band(low, high, y))
        axes.plot(bar.values, np.full(len(bar.values), y + 0.2), "o", ms=3, color="C0", alpha=0.5, mew=0)
        axes.plot([bar.chance], [y], "|", ms=9, color="0.2")
        axes.hlines([y - 0.15], [bar.low], [bar.high], color="C3", lw=1.4)
        axes.plot([bar.mean], [y - 0.15], "o", ms=4.5, color="C3")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.autoscale_view(scaley=False)
    axes.tick_params(axis="x", labelsize=7)


def _band(low: float, high: float, y: int) -> Rectangle:
    # a band without width would not be seen
    return Rectangle((low, y - 0.4), max(high - low, 0.002), 0.8, color="0.85", lw=0, zorder=0)


def clusters_across(
    labels: Mapping[str, NDArray[np.int64]], rand_MM: NDArray[np.float64], experts: Sequence[str], title: str
) -> Figure:
    """Left, the cluster of every expert by every measure; right, how alike every two clusterings are.

    Args:
        labels: (N,) by measure; experts are in the order of the first one's clusters, and colours of the others are
            those of the clusters they share most experts with.
        rand_MM: adjusted Rand index of every two.
        experts: their names, written up to 60 of them.
        title: of the figure.
    """
    names, first = list(labels), next(iter(labels.values()))
    order = np.argsort(first, kind="stable")
    codes_NM = np.stack([matched_codes(first, other) for other in labels.values()], axis=1)[order]
    height = max(2.6 + 0.13 * min(len(experts), _READABLE), 2.4 + 0.25 * len(names))
    figure = Figure(figsize=(3.2 + 0.55 * len(names), height), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(codes_NM % _COLOURS, cmap="tab10", vmin=-0.5, vmax=_COLOURS - 0.5, aspect="auto", interpolation="none")
    written = len(experts) <= _READABLE
    left.set_yticks(
        range(len(experts)) if written else [], [experts[i] for i in order] if written else [], fontsize=5.5
    )
    left.set_title("cluster (colours matched to the first column's)", fontsize=7)
    image = right.imshow(rand_MM, vmin=0, vmax=1, cmap="viridis")
    for (row, column), value in np.ndenumerate(rand_MM):
        colour = "white" if value < 0.5 else "black"
        right.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color=colour)
    right.set_title("adjusted Rand index", fontsize=7)
    right.set_yticks(range(len(names)), names, fontsize=6)
    for axes in (left, right):
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=right, shrink=0.7)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("1: the same, 0: as random ones", fontsize=6)
    figure.suptitle(title, fontsize=9)
    return figure


def matched_codes(first_N: NDArray[np.int64], other_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """`other_N` renumbered: each cluster has the number of one of the first's that it shares most experts with.

    A number is given once, to the pair with the most experts first; clusters left over have numbers of their own.
    """
    shared = np.zeros((first_N.max() + 1, other_N.max() + 1), np.int64)
    np.add.at(shared, (first_N, other_N), 1)
    code: dict[int, int] = {}
    for place in np.argsort(-shared, axis=None, kind="stable"):
        mine, theirs = (int(index) for index in np.unravel_index(place, shared.shape))
        if shared[mine, theirs] and theirs not in code and mine not in code.values():
            code[theirs] = mine
    spare = iter(range(len(shared), len(shared) + shared.shape[1]))
    return np.array(
        [code[label] if label in code else code.setdefault(label, next(spare)) for label in other_N.tolist()]
    )
