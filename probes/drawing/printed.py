"""Figures as a paper prints them: as wide as a one-column text, 8 pt, fonts embedded.

Axes: H height, W width. Lengths are inches.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

WIDTH = 5.5  # of the text in the paper's template
_MARGIN = 0.05
INNER = WIDTH - 2 * _MARGIN
FONT = 8.0  # pt
SMALL = 6.5  # pt, of class names along a matrix
FORMATS = ("pdf", "svg", "png")
DPI = 300
_STYLE: dict[Any, Any] = {
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": FONT,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType, which publishers take; the default, type 3, they refuse
    "svg.fonttype": "path",
    "svg.hashsalt": "moe",  # equal figures are equal files
}
_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
_GAP = 0.06  # between tiles, of a tile
_TILE = 96  # pixels


@contextlib.contextmanager
def print_style() -> Iterator[None]:
    """Within it, figures are drawn as a paper has them."""
    with mpl.rc_context(_STYLE):
        yield


def save_print(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF, SVG and PNG; the folder is made.

    Args:
        figure: drawn within `print_style`.
        stem: path without the ending.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in FORMATS]
    with print_style():
        for file, ending in zip(files, FORMATS, strict=True):
            figure.savefig(file, dpi=DPI, metadata=_UNDATED[ending])
    return files


def montage(rows: Sequence[Sequence[NDArray[np.uint8]]], columns: int) -> NDArray[np.uint8]:
    """Pictures in rows, as one picture with white between them and where a row is short.

    Args:
        rows: pictures (H, W, 3), of any sizes; each is shown as a square.
        columns: tiles of a row.

    Returns:
        (len(rows) * side, columns * side, 3), where a tile's side holds its gap.
    """
    gap = round(_TILE * _GAP)
    side = _TILE + gap
    sheet = np.full((max(1, len(rows)) * side, columns * side, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures[:columns]):
            top, left = row * side + gap // 2, column * side + gap // 2
            sheet[top : top + _TILE, left : left + _TILE] = _square(picture)
    return sheet


def _square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.shape[:2] == (_TILE, _TILE):
        return picture
    small = min(picture.shape[:2]) < _TILE
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS  # few pixels are shown as they are
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((_TILE, _TILE), how))


def show_montage(axes: Axes, rows: Sequence[Sequence[NDArray[np.uint8]]], columns: int) -> None:
    """A montage that fills its axes, in units of tiles: (0, 0) at the top left."""
    axes.imshow(montage(rows, columns), extent=(0, columns, max(1, len(rows)), 0), interpolation="antialiased")
    axes.set(aspect="auto", xlim=(0, columns), ylim=(max(1, len(rows)), 0))
    axes.set_axis_off()


class Sheet:
    """A figure whose parts are placed by hand, in inches from the top left corner within a narrow margin.

    Attributes:
        figure: as wide as the text.
        height: of the figure, margins included.
    """

    def __init__(self, height: float) -> None:
        self.height = height + 2 * _MARGIN
        self.figure = Figure(figsize=(WIDTH, self.height))

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """New axes."""
        left, top = left + _MARGIN, top + _MARGIN
        place = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(place, **options)

    def text(self, left: float, top: float, text: str, **options: Any) -> None:
        """Text whose anchor, its left top corner unless told otherwise, lies there."""
        place = ((left + _MARGIN) / WIDTH, 1 - (top + _MARGIN) / self.height)
        self.figure.text(*place, text, **{"va": "top", "ha": "left", **options})

    def letter(self, top: float, text: str) -> None:
        """The letter of a part, bold, at the left edge."""
        self.text(0.0, top, text, weight="bold", fontsize=FONT + 2)

    def legend(self, top: float, names: Sequence[str], colours: Sequence[Any], columns: int) -> None:
        """Names with their colours, in columns across the text."""
        handles = [
            Line2D([], [], marker="o", ls="", ms=4, color=colour, label=name)
            for name, colour in zip(names, colours, strict=True)
        ]
        self.figure.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1 - (top + _MARGIN) / self.height), ncols=columns,
            frameon=False, handletextpad=0.1, columnspacing=1.0, borderpad=0.0, fontsize=SMALL + 0.5,
        )  # fmt: skip


def legend_height(names: Sequence[str], columns: int) -> float:
    """Of `Sheet.legend`."""
    return 0.15 * -(-len(names) // columns) if len(names) > 1 else 0.0
