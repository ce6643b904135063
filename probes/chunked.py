"""Arrays over many images on disk, written chunk by chunk, with a ledger of the chunks that are whole.

A folder of .npy files, which any tool can map into memory, and `ledger.jsonl`: a first line that says what the arrays
are, then one line a finished chunk with its checksum. A chunk is in the ledger only after its bytes are on the disk,
so whatever interrupts the writing, it goes on where it was.

Axes: n images.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from moe.data.arrays import DAMAGE, plain_array
from moe.errors import UserError
from moe.files import content, remove

_LEDGER = "ledger.jsonl"


class Layout(NamedTuple):
    """An array's shape, type and the axis that images run along."""

    shape: tuple[int, ...]
    dtype: str
    axis: int = 0


class ChunkedArrays:
    """The arrays of one folder.

    Attributes:
        folder: where they lie.
        layouts: name -> Layout; all have n images.
        chunk: images of a chunk; the last one has the rest.
        done: first image of every chunk that is written whole.
    """

    def __init__(self, folder: Path, layouts: Mapping[str, Layout], chunk: int, done: set[int]) -> None:
        self.folder, self.layouts, self.chunk, self.done = folder, dict(layouts), chunk, done

    @classmethod
    def resume(cls, folder: Path, key: str, layouts: Mapping[str, Layout], chunk: int) -> Self:
        """What the folder holds for this key and these layouts, damaged chunks left out; else a new, empty set.

        Args:
            folder: made if absent; emptied if it holds anything else.
            key: what the content depends on; another key never answers.
            layouts: name -> Layout.
            chunk: images of a chunk.
        """
        head = {"key": key, "chunk": chunk, "arrays": {name: list(layout) for name, layout in layouts.items()}}
        head = json.loads(json.dumps(head))  # tuples as lists, as they come back
        arrays = cls(folder, layouts, chunk, set())
        if not arrays._read_ledger(head):
            arrays._begin(head)
        return arrays

    @classmethod
    def whole(cls, folder: Path, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a folder, mapped into memory, if their key begins so and every chunk is whole; else None."""
        try:
            head = json.loads(content(folder / _LEDGER).splitlines()[0])
            layouts = {name: Layout(tuple(shape), kind, axis) for name, (shape, kind, axis) in head["arrays"].items()}
            arrays = cls(folder, layouts, head["chunk"], set())
            if not head["key"].startswith(key) or not arrays._read_ledger(head) or list(arrays.missing()):
                return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # absent, or no ledger
            return None
        return arrays.open()

    @property
    def images(self) -> int:
        """Number of images n."""
        layout = next(iter(self.layouts.values()))
        return layout.shape[layout.axis]

    def missing(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of every chunk that is not there yet."""
        for start in range(0, self.images, self.chunk):
            if start not in self.done:
                yield start, min(start + self.chunk, self.images)

    def write(self, start: int, blocks: Mapping[str, NDArray[Any]]) -> None:
        """Put one chunk on the disk, then into the ledger.

        Args:
            start: its first image.
            blocks: name -> the array's part for the chunk's images.
        """
        crc = 0
        for name, layout in self.layouts.items():
            block = np.ascontiguousarray(blocks[name], dtype=layout.dtype)
            crc = zlib.crc32(block.tobytes(), crc)
            self._write_block(name, layout, start, block)
        with (self.folder / _LEDGER).open("a") as file:
            # the line break comes first: a line that was cut off does not spoil the next
            file.write("\n" + json.dumps({"start": start, "crc32": crc}))
            _sync(file)
        self.done.add(start)

    def open(self) -> dict[str, NDArray[Any]]:
        """The arrays, mapped into memory read-only."""
        return {name: plain_array(self._path(name)) for name in self.layouts}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _begin(self, head: dict[str, Any]) -> None:
        remove(self.folder)
        self.folder.mkdir(parents=True)
        for name, layout in self.layouts.items():
            with self._path(name).open("wb") as file:
                described = {"descr": np.dtype(layout.dtype).str, "fortran_order": False, "shape": layout.shape}
                np.lib.format.write_array_header_1_0(file, described)
                file.truncate(file.tell() + int(np.prod(layout.shape)) * np.dtype(layout.dtype).itemsize)
        with (self.folder / _LEDGER).open("w") as file:
            file.write(json.dumps(head))
            _sync(file)

    def _write_block(self, name: str, layout: Layout, start: int, block: NDArray[Any]) -> None:
        """Write through the file, not through a memory map: a full disk is then an error, not a killed process."""
        n = layout.shape[layout.axis]
        outer = int(np.prod(layout.shape[: layout.axis]))
        row = int(np.prod(layout.shape[layout.axis + 1 :])) * block.itemsize  # bytes of an image
        with self._path(name).open("r+b") as file:
            base = os.fstat(file.fileno()).st_size - outer * n * row
            for number, part in enumerate(block.reshape(outer, -1)):
                file.seek(base + (number * n + start) * row)
                file.write(part.tobytes())
            _sync(file)

    def _read_ledger(self, head: dict[str, Any]) -> bool:
        """Whether the folder is for this head; takes over its chunks that match their checksum."""
        try:
            first, *lines = content(self.folder / _LEDGER).splitlines()
            if json.loads(first) != head:
                return False
            arrays = self.open()
        except (*DAMAGE, UserError):  # absent, not ours, or cut off
            return False
        kinds = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if kinds != {name: (layout.shape, np.dtype(layout.dtype)) for name, layout in self.layouts.items()}:
            return False
        for line in lines:
            try:
                start, crc = (json.loads(line)[key] for key in ("start", "crc32"))
                whole = crc == self._checksum(arrays, start)
            except (ValueError, LookupError, TypeError):
                continue  # the last line of a process that was killed while writing it, or a damaged one
            if whole:
                self.done.add(start)
        return True

    def _checksum(self, arrays: Mapping[str, NDArray[Any]], start: int) -> int:
        crc = 0
        for name, layout in self.layouts.items():
            part = (slice(None),) * layout.axis + (slice(start, start + self.chunk),)
            crc = zlib.crc32(arrays[name][part].tobytes(), crc)
        return crc


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
