"""Pixels of many images: a file that grows image by image, pieces of an array, channel statistics.

Axes: N images, H height, W width, S image side.
"""

import contextlib
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from moe.errors import UserError

_CHUNK = 1024
_PIECE = 2**22  # bytes of images that are counted at a time


class PixelFile:
    """`images.npy`, written image by image, so that no more than one is ever in memory.

    The bytes are those of `np.save` on the whole array, so that the store's digest is the same.
    """

    def __init__(self, file: BinaryIO, count: int, side: int) -> None:
        self._file, self._side, self.written = file, side, 0
        self._header = self._head(count)
        file.write(self._header)

    def _head(self, count: int) -> bytes:
        buffer = io.BytesIO()
        shape = (count, self._side, self._side, 3)
        np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return buffer.getvalue()

    def append(self, pixels_SS3: NDArray[np.uint8]) -> None:
        """Add one image."""
        self._file.write(np.ascontiguousarray(pixels_SS3).data)
        self.written += 1

    def finish(self) -> None:
        """Correct the number of images, if some were left out; the header has room for any."""
        header = self._head(self.written)
        if len(header) != len(self._header):
            raise RuntimeError("the header of images.npy changed its length")
        self._file.seek(0)
        self._file.write(header)


@contextlib.contextmanager
def pixel_file(path: Path, count: int, side: int) -> Iterator[PixelFile]:
    """A file for `count` images or fewer of one side.

    Raises:
        UserError: the disk has no room for them.
    """
    needed, free = count * side * side * 3, shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"{count:,} images of {side}x{side} pixels take {needed / 2**30:,.1f} GB and {path.parent.parent} has "
            f"{free / 2**30:,.1f} GB left; choose a smaller --size, or another place with MOE_DATA"
        )
    with path.open("wb") as file:
        pixels = PixelFile(file, count, side)
        yield pixels
        pixels.finish()


def is_written(images_NHWC: NDArray[np.uint8], path: Path) -> bool:
    """Whether an array is the map of this file."""
    name = getattr(images_NHWC, "filename", None)
    if name is None or not path.exists() or not path.samefile(name):
        return False
    return bool(np.load(path, mmap_mode="r").shape == images_NHWC.shape)


def chunks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in pieces of at most 1,024 rows, so that a memory map is never read whole."""
    for start in range(0, len(array), _CHUNK):
        yield array[start : start + _CHUNK]


def copies(images_NHWC: NDArray[np.uint8]) -> dict[int, int]:
    """Images that equal an earlier one to the last pixel: place -> place of the first of them."""
    first: dict[bytes, int] = {}
    found = {}
    for place, image in enumerate(images_NHWC):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        if (earlier := first.setdefault(digest, place)) != place:
            found[place] = earlier
    return found


def channel_statistics(
    images_NHWC: NDArray[np.uint8],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and population sd of each colour channel over all pixels, on the scale 0..1."""
    counts = np.zeros((3, 256), np.int64)
    rows = max(1, _PIECE // max(1, images_NHWC[0].size))
    for start in range(0, len(images_NHWC), rows):
        flat = images_NHWC[start : start + rows].reshape(-1, 3)
        counts += [np.bincount(flat[:, channel], minlength=256) for channel in range(3)]
    values = np.arange(256)
    count = counts[0].sum()
    mean = (counts * values).sum(axis=1) / count
    sd = np.sqrt(np.maximum((counts * np.square(values)).sum(axis=1) / count - mean**2, 0.0))
    m, s = (mean / 255).tolist(), (sd / 255).tolist()
    return (m[0], m[1], m[2]), (s[0], s[1], s[2])
