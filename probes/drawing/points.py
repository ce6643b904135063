"""Figures of the probes: points, curves and intervals.

Axes: n images, E experts, N experts of several runs. Lengths are inches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from probes.statistics.animacy import animate_classes

_LABELLED = 40
_COLOURS = 20
_NO_CLASS = (0.55, 0.55, 0.55, 1.0)
_SHOWN_POINTS = 4000  # a panel; more only cover each other


@dataclass(frozen=True)
class Colouring:
    """Colours of images by class, or by animacy where there are more classes than colours.

    Attributes:
        names: what the colours mean.
        palette: a colour a name.
        code_n: index of each image's name.
    """

    names: list[str]
    palette: list[tuple[float, float, float, float]]
    code_n: NDArray[np.int64]

    @classmethod
    def of(cls, labels_n: NDArray[np.int64], classes: Sequence[str]) -> Self:
        """Classes up to 20, else animate and inanimate where that is known, else none; grey without a class."""
        sides = animate_classes(classes) if len(classes) > _COLOURS else None
        if len(classes) <= _COLOURS:
            colours = mpl.colormaps["tab10" if len(classes) <= 10 else "tab20"]  # noqa: PLR2004
            names, palette, code_n = list(classes), [colours(n) for n in range(len(classes))], labels_n
        elif sides is not None:
            names, palette = ["animate", "inanimate"], [mpl.colormaps["tab10"](n) for n in (1, 0)]
            code_n = np.where(labels_n < 0, -1, np.where(sides[labels_n], 0, 1))
        else:
            names, palette, code_n = [], [], np.full(len(labels_n), -1)
        if not names or (code_n < 0).any():
            code_n = np.where(code_n < 0, len(names), code_n)
            names, palette = [*names, "no class" if names else "any class"], [*palette, _NO_CLASS]
        return cls(names, palette, code_n)

    @property
    def colours(self) -> NDArray[np.float64]:
        """(n, 4)."""
        return np.asarray(self.palette)[self.code_n]

    def explain(self, figure: Figure) -> None:
        """Names with their colours, right of the panels."""
        if len(self.names) > 1:
            handles = [
                mpl.lines.Line2D([], [], marker="o", ls="", ms=4, color=colour, label=name)
                for name, colour in zip(self.names, self.palette, strict=True)
            ]
            figure.legend(handles=handles, loc="outside right center", fontsize=6, frameon=False)


def _grid(count: int, side: float, legend: float) -> tuple[Figure, list[Axes]]:
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * side + legend, rows * side + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def maps(
    points_n2: NDArray[np.float64], member_nE: NDArray[np.bool_], labels_n: NDArray[np.int64],
    classes: Sequence[str], title: str,
) -> Figure:  # fmt: skip
    """One panel an expert: the images routed to it coloured by class, all others pale (Figure 2a)."""
    figure, grid = _grid(member_nE.shape[1], 2.0, 1.3 if classes else 0.1)
    colouring = Colouring.of(labels_n, classes)
    colours = colouring.colours
    for expert, axes in enumerate(grid):
        mine = member_nE[:, expert]
        axes.scatter(points_n2[~mine][:, 0], points_n2[~mine][:, 1], s=2, color="0.9", lw=0)
        axes.scatter(points_n2[mine][:, 0], points_n2[mine][:, 1], s=3, color=colours[mine], lw=0)
        axes.set_title(f"expert {expert} ({mine.sum():,} images)", fontsize=8)
        axes.set(xticks=[], yticks=[])
    figure.supxlabel("t-SNE 1 (no unit)", fontsize=8)
    figure.supylabel("t-SNE 2 (no unit)", fontsize=8)
    figure.suptitle(title, fontsize=9)
    colouring.explain(figure)
    return figure


def coupling(
    logits_nE: NDArray[np.float64], norms_nE: NDArray[np.float64], captions: Sequence[str],
    labels_n: NDArray[np.int64], classes: Sequence[str], title: str,
) -> Figure:  # fmt: skip
    """One panel an expert: normalised logit against normalised norm, with the diagonal (Figure 4)."""
    figure, grid = _grid(logits_nE.shape[1], 2.0, 1.3 if classes else 0.1)
    rows = np.linspace(0, len(logits_nE) - 1, min(len(logits_nE), _SHOWN_POINTS)).round().astype(int)
    colouring = Colouring.of(labels_n[rows], classes)
    colours = colouring.colours
    for expert, (axes, caption) in enumerate(zip(grid, captions, strict=True)):
        axes.scatter(logits_nE[rows, expert], norms_nE[rows, expert], s=3, color=colours, lw=0, alpha=0.6)
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.2")
        axes.set_title(f"expert {expert}\n{caption}", fontsize=7)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=7)
        axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=7)
    figure.supxlabel("gate logit, min-max normalised", fontsize=8)
    figure.supylabel("readout norm, min-max normalised", fontsize=8)
    figure.suptitle(title, fontsize=9)
    colouring.explain(figure)
    return figure


def clusters(
    points_N2: NDArray[np.float64], labels_N: NDArray[np.int64], names: Sequence[str], shown: Sequence[int], title: str
) -> Figure:
    """Experts in two MDS dimensions, coloured by cluster; boxes mark those whose pictures are shown (Figure 6a)."""
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for number in np.unique(labels_N):
        members = labels_N == number
        label = f"cluster {number} (n = {members.sum()})"
        axes.scatter(points_N2[members][:, 0], points_N2[members][:, 1], s=26, color=f"C{number % 10}", label=label)
    boxed = points_N2[list(shown)]
    axes.scatter(boxed[:, 0], boxed[:, 1], s=90, marker="s", facecolors="none", edgecolors="0.2", lw=0.9)
    if len(names) <= _LABELLED:
        for name, (x, y) in zip(names, points_N2, strict=True):
            axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=5)
    axes.margins(0.12)
    axes.set_aspect("equal", "datalim")
    axes.set(xlabel="MDS 1 (1 - Spearman correlation)", ylabel="MDS 2 (1 - Spearman correlation)")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=4, frameon=False)
    return figure


def silhouettes(curves: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """Mean silhouette against the number of clusters, one panel a set of experts, the maximum marked (Figure S3)."""
    figure = Figure(figsize=(max(2.7 * len(curves), 4.2), 2.9), layout="constrained")
    grid = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, (name, curve) in zip(grid, curves.items(), strict=True):
        ks = sorted(curve)
        best = max(ks, key=lambda k: curve[k])
        axes.plot(ks, [curve[k] for k in ks], "o-", color="0.2", ms=3, lw=1)
        axes.axvline(best, ls="--", lw=0.8, color="C3")
        axes.set_title(f"{name}: {best} clusters", fontsize=8)
        axes.set_xticks(ks if len(ks) <= 8 else ks[::2])  # noqa: PLR2004
        axes.tick_params(labelsize=7)
        axes.set_xlabel("number of clusters", fontsize=8)
    grid[0].set_ylabel("mean silhouette (-1 to 1)", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def intervals(
    panels: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], labels: Sequence[str], axis: str,
    title: str, reference: float,
) -> Figure:  # fmt: skip
    """Values (E,) with intervals (E, 2), one panel a kind; a dashed line at the reference value."""
    figure = Figure(figsize=(3.0 * len(panels) + 0.8, 1.2 + 0.22 * len(labels)), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    places = np.arange(len(labels))
    for axes, (name, (values_E, bounds_E2)) in zip(grid, panels.items(), strict=True):
        axes.axvline(reference, ls="--", lw=0.8, color="0.4")
        axes.hlines(places, bounds_E2[:, 0], bounds_E2[:, 1], color="C0", lw=1.2)
        axes.plot(values_E, places, "o", color="C0", ms=4)
        axes.set_title(name, fontsize=8)
        axes.set_yticks(places, labels, fontsize=7)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(axis, fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def over_epochs(numbers: Mapping[str, Sequence[float | None]], epochs: Sequence[int], title: str) -> Figure:
    """One small panel a headline number, against epochs trained; `x_low` and `x_high` are a band around `x`."""
    bands = {name for name in numbers if name.removesuffix("_low").removesuffix("_high") in numbers.keys() - {name}}
    shown = {name: _floats(values) for name, values in numbers.items() if name not in bands}
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.7 * columns, 1.8 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(grid, shown.items(), strict=False):
        axes.plot(epochs, values, "o-", ms=3, lw=1, color="0.2")
        if {f"{name}_low", f"{name}_high"} <= bands:
            low, high = (_floats(numbers[f"{name}_{end}"]) for end in ("low", "high"))
            axes.fill_between(epochs, low, high, color="0.85", lw=0)
        axes.set_title(name, fontsize=7)
        axes.tick_params(labelsize=6)
        axes.set_xticks(epochs)
        axes.ticklabel_format(axis="y", useOffset=False)
    for axes in grid[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("epochs trained", fontsize=7)
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.suptitle(title, fontsize=9)
    return figure


def _floats(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]
