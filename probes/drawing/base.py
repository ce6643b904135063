"""What all figures share: saving without a display, grids of panels, colours of images.

Axes: n images. Lengths are inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probes.statistics.animacy import animate_classes

DPI = 150
NOTHING = "0.85"  # the grey of cells without a value
_COLOURS = 20
# Tol's "muted" (personal.sron.nl/~pault), told apart with any colour vision, and black
_FEW = ("#cc6677", "#332288", "#ddcc77", "#117733", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499", "#000000")
_SIDES = ("#d55e00", "#0072b2")  # Okabe and Ito's vermillion and blue: animate, inanimate
_MANY = mpl.colormaps["tab20"]
_NO_CLASS = (0.55, 0.55, 0.55, 1.0)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    return path


def expert_panels(count: int, side: float, legend: float) -> tuple[Figure, list[Axes]]:
    """One square panel an expert, four in a row, on common axes; room for a legend on the right."""
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * side + legend, rows * side + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


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
            palette = [to_rgba(_FEW[n]) if len(classes) <= len(_FEW) else _MANY(n) for n in range(len(classes))]
            names, code_n = list(classes), labels_n
        elif sides is not None:
            names, palette = ["animate", "inanimate"], [to_rgba(colour) for colour in _SIDES]
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
