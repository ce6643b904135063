"""Numbers along an axis: silhouettes by number of clusters, intervals by expert, headline numbers by epoch.

Axes: E experts. Lengths are inches.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray


def silhouettes(curves: Mapping[str, Mapping[int, float]], clear: Mapping[str, float], title: str) -> Figure:
    """Mean silhouette against the number of clusters, one panel a set of experts, the maximum marked (Figure S3).

    Args:
        curves: silhouette by number of clusters, by name of the set.
        clear: by name, above what 5% of experts without clusters have; drawn as a line where it is there.
        title: of the figure.
    """
    figure = Figure(figsize=(max(2.7 * len(curves), 4.2), 2.9), layout="constrained")
    grid = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, (name, curve) in zip(grid, curves.items(), strict=True):
        ks = sorted(curve)
        best = max(ks, key=lambda k: curve[k])
        axes.plot(ks, [curve[k] for k in ks], "o-", color="0.2", ms=3, lw=1)
        axes.axvline(best, ls="--", lw=0.8, color="C3")
        if name in clear:
            axes.axhline(clear[name], ls=":", lw=0.8, color="0.5", label="5% of experts without clusters are above")
            axes.legend(fontsize=6, frameon=False, loc="lower right")
        axes.set_title(f"{name}: {best} clusters", fontsize=8)
        axes.set_xticks(ks if len(ks) <= 8 else ks[::2])
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


def beside_baselines(
    panels: Mapping[str, Mapping[str, tuple[float | None, float | None, float | None]]], title: str
) -> Figure:
    """One small panel a headline number: the run's own first, then each baseline's, with their intervals, if any.

    Args:
        panels: number -> whose it is -> (value, low, high).
        title: of the figure.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.9 * columns, 1.7 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, found) in zip(grid, panels.items(), strict=False):
        places = np.arange(len(found))
        values, lows, highs = (np.array(_floats(part)) for part in zip(*found.values(), strict=True))
        axes.axvline(values[0], ls="--", lw=0.8, color="0.6")
        axes.hlines(places, lows, highs, color="0.6", lw=1.2)
        axes.scatter(values, places, s=18, color=["C3", *["0.3"] * (len(values) - 1)], zorder=2)
        axes.set_yticks(places, [which.replace("_", " ") for which in found], fontsize=6)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_title(name, fontsize=7)
        axes.tick_params(axis="x", labelsize=6)
        axes.xaxis.set_major_locator(MaxNLocator(4))
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
