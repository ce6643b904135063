"""Claims one below the other: effect, interval, where the claim says that it lies, what the paper has.

Axes: R runs. Lengths are inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

COLOURS = {"holds": "#0072B2", "does not hold": "#D55E00"}  # told apart by everyone; others grey
_GREY = "0.45"
_MARGIN = 0.12  # of an axis, beyond what is shown


@dataclass(frozen=True)
class Line:
    """One claim.

    Attributes:
        name: in few words.
        effect: what is measured, with its unit.
        value: the effect; NaN if there is none.
        low: lower end of its interval, NaN if unknown.
        high: upper end.
        region: where the claim says that the effect lies, ends may be infinite.
        runs_R: the effect of each run, NaN or empty if it has none.
        published: the paper's, None if it gives no number.
        verdict: in words.
    """

    name: str
    effect: str
    value: float
    low: float
    high: float
    region: tuple[float, float]
    runs_R: NDArray[np.float64]
    published: float | None
    verdict: str


def forest(lines: Sequence[Line], title: str) -> Figure:
    """A row a claim, each on an axis of its own, since effects have different units.

    Shaded: where the claim says that the effect lies. Bar and dot: effect with its 95% interval. Ticks: runs. Diamond:
    the paper's value.
    """
    figure = Figure(figsize=(8.6, 0.62 * len(lines) + 1.0), layout="constrained")
    grid = figure.subplots(len(lines), 1, squeeze=False)[:, 0]
    for axes, line in zip(grid, lines, strict=True):
        colour = COLOURS.get(line.verdict, _GREY)
        low, high = _range(line)
        axes.axvspan(max(line.region[0], low), min(line.region[1], high), color="0.92", lw=0)
        for end in line.region:
            if np.isfinite(end):
                axes.axvline(end, color="0.6", lw=0.8, ls="--")
        axes.plot(line.runs_R, np.full(len(line.runs_R), -0.45), "|", color="0.55", ms=6)
        if np.isfinite(line.low):
            axes.hlines(0, line.low, line.high, color=colour, lw=2)
        axes.plot([line.value], [0], "o", color=colour, ms=6)
        if line.published is not None:
            axes.plot([line.published], [0.4], "D", mfc="none", mec="0.1", ms=5)
        axes.set(ylim=(-0.8, 0.8), xlim=(low, high))
        axes.set_yticks([0], [line.name], fontsize=7)
        axes.tick_params(axis="x", labelsize=6, length=2, pad=1)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.text(1.01, 0.5, line.verdict, transform=axes.transAxes, fontsize=7, color=colour, va="center")
        axes.set_title(line.effect, fontsize=6, color="0.35", loc="left", pad=1)
    figure.suptitle(title, fontsize=9)
    figure.supxlabel(
        "shaded: where the claim says that the effect lies; bar: 95% interval; ticks: runs; diamond: the paper",
        fontsize=7,
    )
    return figure


def _range(line: Line) -> tuple[float, float]:
    """Both ends of an axis that shows everything finite, and some of the region."""
    shown = [line.value, line.low, line.high, *line.region, *line.runs_R]
    if line.published is not None:
        shown.append(line.published)
    known = [value for value in shown if np.isfinite(value)]
    low, high = min(known), max(known)
    reach = (high - low) * _MARGIN or 0.1
    return low - reach, high + reach
