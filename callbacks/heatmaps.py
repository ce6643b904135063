"""Pictures drawn every epoch, in about a hundredth of the time that a matplotlib figure takes.

A picture is a matrix of one byte a pixel: six bits for the background's colour, two for how much of it is covered by
ink. So writing is a bitwise "or", and the bytes with their palette are a small PNG.

Axes: R rows, C columns of a matrix; H, W height and width of a picture. Lengths are pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from moe.files import replacing

Pixels = NDArray[np.uint8]

_READABLE = 60  # rows, beyond which there is room for neither names nor values
_PAD, _GAP, _BAR = 18, 8, 20
_TITLE, _TEXT, _VALUE, _SMALLEST = 20, 16, 14, 10  # sizes of type
_NAMES = 280  # the widest name of a row
_LEVELS = 60  # backgrounds 0..59 are colours from low to high
_GREY, _WHITE = 60, 61
_INK = 3  # a pixel covered altogether


@cache
def _palette() -> Pixels:
    """(62 * 4, 3): each background, covered by 0 to 3 thirds of its ink, white on dark colours and black elsewhere."""
    colours = mpl.colormaps["viridis"](np.linspace(0, 1, _LEVELS), bytes=True)[:, :3]
    backgrounds = np.concatenate([colours, [[217] * 3, [255] * 3]])
    ink = np.where(np.arange(len(backgrounds)) < _LEVELS // 2, 255, 0)[:, None]
    steps = [np.round(backgrounds + (ink - backgrounds) * cover / _INK) for cover in range(_INK + 1)]
    return np.stack(steps, axis=1).reshape(-1, 3).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    file = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _stencil(text: str, size: int) -> Pixels:
    """(H, W) ink of a line of text, 0 to 3; H is the same for all texts."""
    font = _font(size)
    image = Image.new("L", (_width(text, size), sum(font.getmetrics())))
    ImageDraw.Draw(image).text((0, 0), text, 255, font)
    return np.round(np.asarray(image) * (_INK / 255)).astype(np.uint8)


def _width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _widest(texts: Sequence[str], size: int) -> int:
    return max((_width(text, size) for text in set(texts)), default=0)


def _shortened(text: str) -> str:
    if _width(text, _TEXT) <= _NAMES:
        return text
    while _width(text + "…", _TEXT) > _NAMES:
        text = text[:-1]
    return text.rstrip() + "…"


def _print(pixels: Pixels, ink: Pixels, at: tuple[float, float], anchor: tuple[float, float]) -> None:
    """Print ink so that the point `at` (x, y) is at this fraction of its width and height; kept inside the picture."""
    ink = ink[: pixels.shape[0], : pixels.shape[1]]
    height, width = ink.shape
    left = min(max(round(at[0] - anchor[0] * width), 0), pixels.shape[1] - width)
    top = min(max(round(at[1] - anchor[1] * height), 0), pixels.shape[0] - height)
    pixels[top : top + height, left : left + width] |= ink


@dataclass(frozen=True)
class _Place:
    """Where the matrix stands: its left upper corner and the size of a cell."""

    left: int
    top: int
    cell_w: int
    cell_h: int
    rows: int
    columns: int

    @property
    def right(self) -> int:
        return self.left + self.cell_w * self.columns

    @property
    def bottom(self) -> int:
        return self.top + self.cell_h * self.rows

    def middle(self, row: int, column: int) -> tuple[float, float]:
        return self.left + (column + 0.5) * self.cell_w, self.top + (row + 0.5) * self.cell_h


def save(picture: Image.Image, path: Path) -> Path:
    """Write a picture as PNG, making its folder."""
    with replacing(path, durable=False) as partial:
        picture.save(partial, "PNG", compress_level=3)
    return path


def heatmap(
    values_RC: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str,
    limits: tuple[float, float],
    below: str = "expert",
    written: NDArray[np.float64] | None = None,
    digits: int = 2,
) -> Image.Image:
    """A labelled matrix with its values written in, where they fit, and a colour bar; NaN cells are grey.

    Beyond 60 rows there is room for neither names nor values.

    Args:
        values_RC: what the colours show.
        rows: names of the rows; long ones are cut.
        columns: names of the columns, short ones such as numbers; where there are too many, only some are written.
        title: stands above.
        label: what the colours mean.
        limits: values of the lowest and the highest colour.
        below: what the columns are.
        written: (R, C) numbers to write into the cells; default the values.
        digits: after the point.
    """
    names = [_shortened(name) for name in rows] if len(rows) <= _READABLE else []
    place = _placed(names, len(rows), len(columns))
    ticks = [f"{value:.{digits}f}" for value in np.linspace(*limits, 5)]
    bar_h = max(place.bottom - place.top, _width(label, _TEXT))
    width = place.right + _BAR + _widest(ticks, _TEXT) + 2 * _TEXT + 5 * _GAP + _PAD
    height = place.top + bar_h + 2 * _TEXT + 2 * _GAP + _PAD
    pixels = np.full((height, max(width, place.left + _width(title, _TITLE) + _PAD)), 4 * _WHITE, dtype=np.uint8)
    level_RC = (values_RC - limits[0]) / (limits[1] - limits[0])
    cells = np.repeat(np.repeat(_backgrounds(level_RC), place.cell_h, axis=0), place.cell_w, axis=1)
    pixels[place.top : place.bottom, place.left : place.right] = cells
    _print(pixels, _stencil(title, _TITLE), (place.left, _PAD), (0, 0))
    _names(pixels, names, columns, below, place)
    if names:
        _write(pixels, values_RC if written is None else written, digits, place)
    _bar(pixels, ticks, label, bar_h, place)
    picture = Image.fromarray(pixels)
    picture.putpalette(_palette().tobytes())
    return picture


def _placed(names: Sequence[str], rows: int, columns: int) -> _Place:
    """Room for the matrix; without names its rows become thin."""
    cell_w = min(max(768 // columns, 48), 80, max(1280 // columns, 10))
    cell_h = min(max(256 // rows, 32), 80) if names else max(960 // rows, 1)
    left = _PAD + (_widest(names, _TEXT) + _GAP if names else 0)
    return _Place(left, _PAD + _TITLE + 2 * _GAP, cell_w, cell_h, rows, columns)


def _backgrounds(level: NDArray[np.float64]) -> Pixels:
    """Bytes of levels 0..1, clipped; grey for NaN."""
    known = np.isfinite(level)
    numbers = np.round((_LEVELS - 1) * np.clip(np.where(known, level, 0.0), 0.0, 1.0))
    return np.where(known, 4 * numbers, 4 * _GREY).astype(np.uint8)


def _names(pixels: Pixels, rows: Sequence[str], columns: Sequence[str], below: str, place: _Place) -> None:
    for row, name in enumerate(rows):
        _print(pixels, _stencil(name, _TEXT), (place.left - _GAP, place.middle(row, 0)[1]), (1, 0.5))
    room = _widest(columns, _TEXT) + 6
    for column in range(0, len(columns), -(-room // place.cell_w)):
        at = place.middle(0, column)[0], place.bottom + _GAP
        _print(pixels, _stencil(columns[column], _TEXT), at, (0.5, 0))
    at = (place.left + place.right) / 2, place.bottom + 2 * _GAP + _TEXT
    _print(pixels, _stencil(below, _TEXT), at, (0.5, 0))


def _write(pixels: Pixels, values_RC: NDArray[np.float64], digits: int, place: _Place) -> None:
    """The values into their cells, if they fit."""
    texts = {cell: f"{value:.{digits}f}" for cell, value in np.ndenumerate(values_RC) if np.isfinite(value)}
    room = max(_widest(list(texts.values()), _VALUE), 1)
    size = min(_VALUE, _VALUE * (place.cell_w - 6) // room)
    if size >= _SMALLEST:
        for (row, column), text in texts.items():
            _print(pixels, _stencil(text, size), place.middle(row, column), (0.5, 0.5))


def _bar(pixels: Pixels, ticks: Sequence[str], label: str, height: int, place: _Place) -> None:
    """The scale of colours at the right, low below."""
    left, top = place.right + 3 * _GAP, place.top
    right = left + _BAR
    pixels[top : top + height, left:right] = _backgrounds(np.linspace(1, 0, height))[:, None]
    for step, tick in enumerate(reversed(ticks)):
        y = top + step * (height - 1) // (len(ticks) - 1)
        pixels[y, right : right + 4] |= _INK
        _print(pixels, _stencil(tick, _TEXT), (right + _GAP, y), (0, 0.5))
    upright = np.rot90(_stencil(label, _TEXT))
    _print(pixels, upright, (right + 2 * _GAP + _widest(ticks, _TEXT), top + height / 2), (0, 0.5))
