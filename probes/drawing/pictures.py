"""Images with their scores, in rows.

Lengths are inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_TILE = 0.62
_FEW_PIXELS = 96


@dataclass(frozen=True)
class Block:
    """Pictures from one source: one row an expert.

    Attributes:
        title: the source.
        pictures: (H, W, 3) uint8 each.
        scores: one a picture.
    """

    title: str
    pictures: Sequence[Sequence[NDArray[np.uint8]]]
    scores: Sequence[Sequence[float]]


def picture_grid(blocks: Sequence[Block], labels: Sequence[str], title: str, unit: str) -> Figure:
    """Rows of pictures, each with its score beneath; the blocks stand side by side.

    Args:
        blocks: all with as many rows as there are labels.
        labels: one a row.
        title: of the figure.
        unit: what the scores are.
    """
    row_height, gap = 1.24, 0.5  # tiles
    widths = [max(len(row) for row in block.pictures) for block in blocks]
    width, height = sum(widths) + gap * (len(blocks) - 1), row_height * len(labels)
    top, bottom, left = 0.62, 0.3, 0.35 + 0.062 * max(map(len, labels))
    size = (left + _TILE * width + 0.1, top + _TILE * height + bottom)
    figure = Figure(figsize=size)
    axes = figure.add_axes((left / size[0], bottom / size[1], _TILE * width / size[0], _TILE * height / size[1]))
    offset = 0.0
    for block, columns in zip(blocks, widths, strict=True):
        axes.text(offset + columns / 2, -0.12, block.title, ha="center", va="bottom", fontsize=8)
        for row, (pictures, scores) in enumerate(zip(block.pictures, block.scores, strict=True)):
            for column, (picture, score) in enumerate(zip(pictures, scores, strict=True)):
                x, y = offset + column, row * row_height
                interpolation = "nearest" if len(picture) < _FEW_PIXELS else "antialiased"
                axes.imshow(picture, extent=(x + 0.03, x + 0.97, y + 0.94, y), interpolation=interpolation)
                axes.text(x + 0.5, y + 0.97, f"{score:.3g}", ha="center", va="top", fontsize=5)
        offset += columns + gap
    for row, label in enumerate(labels):
        axes.text(-0.12, row * row_height + 0.47, label, ha="right", va="center", fontsize=8)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / size[1], va="top")
    figure.text(0.5, 0.08 / size[1], f"beneath each picture: {unit}", ha="center", va="bottom", fontsize=6)
    return figure
