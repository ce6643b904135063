"""Reading a user's images: a folder, a zip, or an array, with labels from folders or from a file.

Axes: N images, H height, W width, S image side.
"""

import contextlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moe.data.arrays import npz_arrays, plain_array
from moe.data.files import is_named_folder, regular
from moe.data.label_tables import Labels
from moe.data.labels import alike, array_labels, checked, classify, read_labels
from moe.data.names import natural, without_suffix
from moe.data.pictures import BadPictureError, Bombs, NeedsHeifError, decode, fitted, size_of
from moe.data.pixels import pixel_file
from moe.data.sources import Found, ImageFile, folder_files, open_zip, zip_files
from moe.data.store import Images
from moe.errors import UserError
from moe.wording import counted, first_few, printable

DEFAULT_SIZE = 96
_LARGEST_NATIVE = 1024  # pixels a side that are kept without being asked for
_LARGEST = 4096
_ZIP_START = b"PK\x03\x04"
_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")

Progress = Callable[[int, int], None]
_Listed = Callable[[Sequence[str]], None]  # called with the paths of all pictures before they are decoded


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class ReadOptions:
    """How pictures are read.

    Attributes:
        size: pixels a side; None keeps the one square size that all have up to 1,024 pixels, and else means 96.
        skip_bad: leave out pictures that cannot be read, and list them.
        password: of an encrypted zip.
        scratch: folder in which images.npy is written, so that pixels need no memory; None keeps them in memory.
        progress: called with (done, total) images.
        folders: the folders inside a folder that are read; empty means all.
    """

    size: int | None = None
    skip_bad: bool = False
    password: str | None = None
    scratch: Path | None = None
    progress: Progress = no_progress
    folders: tuple[str, ...] = ()


DEFAULTS = ReadOptions()


@dataclass
class _Read:
    """Pixels in order, the paths that they come from, and what became of the rest.

    `kept` are the places of the pictures that were read in the list of those that were found.
    """

    images_NHWC: NDArray[np.uint8]
    paths: list[str]
    kept: list[int]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    labels: Labels | None = None


def read_images(
    path: Path, options: ReadOptions = DEFAULTS, *, labels: Path | None = None, classes: Path | None = None
) -> Images:
    """Images of a folder, a zip, or a .npy/.npz array (N, H, W, 3) uint8, in natural order of their names.

    Without `labels`, the folder that an image lies in is its class, if there are at least two such folders; a .npz
    may hold "labels" beside "images".

    Args:
        path: what to read.
        options: how.
        labels: a file of labels, see `moe.data.labels.read_labels`.
        classes: a text file with one class name a line, in the order of the sorted label values.

    Raises:
        UserError: nothing there, something unreadable, or labels that do not fit.
    """
    if options.size is not None and not 1 <= options.size <= _LARGEST:
        raise UserError(f"{options.size} pixels a side are not possible; choose 1 to {_LARGEST}")
    for file in (labels, classes):
        if file is not None:
            regular(file)
    labelled: list[Labels] = []

    def listed(paths: Sequence[str]) -> None:  # before the pictures are decoded, which takes longest
        if labels:
            labelled.append(read_labels(labels, [without_suffix(path) for path in paths]))

    with contextlib.ExitStack() as scratch:
        if options.scratch is None:
            own = Path(scratch.enter_context(tempfile.TemporaryDirectory()))
            read = _read(path, replace(options, scratch=own), listed)
            read.images_NHWC = np.array(read.images_NHWC)
        else:
            read = _read(path, options, listed)
    given = Labels([labelled[0].values[n] for n in read.kept], labelled[0].notes) if labelled else read.labels
    values = given or _folder_labels(read.paths)
    named = printable(str(labels or path)) if given else None
    labels_N, names = classify(values.values, classes, file=named) if values else (None, ())
    if classes and not values:
        raise UserError(f"{classes} names classes, but the images have no labels; give --labels, or a folder a class")
    notes = read.notes + (values.notes if values else []) + alike(names)
    source, ids = (
        f"imported from {printable(path.name or path.resolve().name)}",
        [without_suffix(p) for p in read.paths],
    )
    return Images(read.images_NHWC, ids, source, labels_N, names, notes=tuple(notes), left_out=read.left_out)


def _read(path: Path, options: ReadOptions, listed: _Listed) -> _Read:
    shown = printable(str(path))
    if is_named_folder(path):
        return _read_files(folder_files(path, options.folders), shown, options, listed)
    regular(path)
    if path.suffix.lower() == ".npy":
        return _read_array(plain_array(path), shown, options, listed)
    if path.suffix.lower() == ".npz":
        return _read_npz(path, shown, options, listed)
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP_START))
    except OSError as error:
        raise UserError(f"{shown} cannot be read ({error.strerror})") from None
    if start == _ZIP_START or path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        with open_zip(path, options.password) as archive:
            return _read_files(zip_files(archive, shown), shown, options, listed)
    unpack = "; unpack it and import the folder" if path.suffix.lower() in _ARCHIVES else ""
    raise UserError(f"{shown} is neither a folder, a zip, nor a .npy/.npz array of images{unpack}")


def _read_files(found: Found, source: str, options: ReadOptions, listed: _Listed) -> _Read:
    bad = _BadPictures(source, options.skip_bad)
    scratch, files = options.scratch or Path(), found.files
    listed([file.path for file in files])
    bombs = Bombs(files)
    side = options.size or _common_side(files, bombs, bad, found.notes)
    transparent, frames = 0, 0
    kept: list[int] = []
    with pixel_file(scratch / "images.npy", len(files), side) as pixels:
        for place, file in enumerate(files):
            try:
                one = decode(file, side, bombs)
            except BadPictureError as error:
                bad.add(error)
            else:
                pixels.append(one.pixels_SS3)
                kept.append(place)
                transparent, frames = transparent + one.transparent, frames + one.frames
            options.progress(place + 1, len(files))
        bad.judge(len(kept))
    notes = [*found.notes, *bad.notes()]
    paths = [files[place].path for place in kept]
    if empty := found.empty_folders(paths):
        notes.append(f"{counted(len(empty), 'folder')} without a picture that was read: {first_few(empty)}")
    if transparent:
        notes.append(f"{counted(transparent, 'picture')} with transparency laid on white")
    if frames:
        notes.append(f"{counted(frames, 'picture')} with several frames, of which the first was read")
    return _Read(np.load(scratch / "images.npy", mmap_mode="r"), paths, kept, notes, bad.reasons)


class _BadPictures:
    """Pictures that cannot be read: all are named; they end the import unless they may be skipped."""

    def __init__(self, source: str, skip: bool) -> None:
        self._source, self._skip = source, skip
        self._found: dict[str, BadPictureError] = {}

    def add(self, error: BadPictureError) -> None:
        """Note one picture."""
        self._found.setdefault(error.path, error)

    @property
    def reasons(self) -> dict[str, str]:
        """The reason of each, in natural order of their names."""
        return {path: self._found[path].reason for path in sorted(self._found, key=natural)}

    def _split(self) -> tuple[list[str], list[str]]:
        """Those that lack only their decoder, and the others."""
        needs = [path for path in self.reasons if isinstance(self._found[path], NeedsHeifError)]
        return needs, [path for path in self.reasons if path not in set(needs)]

    def judge(self, kept: int) -> None:
        """End the import if there is reason to.

        Raises:
            UserError: pictures are damaged and may not be skipped, or none is left.
        """
        needs, other = self._split()
        named = other or needs
        if not named or (kept and (self._skip or not other)):
            return
        more = f", and {len(named) - 1:,} more: {first_few(named[1:])}" if len(named) > 1 else ""
        them = "it" if len(named) == 1 else "them"
        way = f"mend or remove {them}, or pass --skip-bad to leave {them} out"
        if not kept:
            way = f"none of the pictures in {self._source} can be read"
        raise UserError(f"{named[0]} is {self.reasons[named[0]]}{more}; {way}")

    def notes(self) -> list[str]:
        """What was left out."""
        needs, other = self._split()
        notes = []
        if needs:
            count = counted(len(needs), "HEIC picture")
            notes.append(f"{count} left out (`pip install 'moe-experts[heic]'` reads HEIC): {first_few(needs)}")
        if other:
            notes.append(f"{counted(len(other), 'picture')} left out, not readable: {first_few(other)}")
        return notes


def _common_side(files: Sequence[ImageFile], bombs: Bombs, bad: _BadPictures, notes: list[str]) -> int:
    """The side of all pictures, if they are squares of one size that is not too large to keep; else 96."""
    sizes: set[tuple[int, int]] = set()
    for file in files:
        try:
            sizes.add(size_of(file, bombs))
        except BadPictureError as error:
            bad.add(error)
        if len(sizes) > 1:
            return DEFAULT_SIZE
    width, height = sizes.pop() if sizes else (0, 0)
    if width == height > _LARGEST_NATIVE:
        notes.append(f"pictures of {width}x{height} pixels scaled to {DEFAULT_SIZE} (--size chooses another side)")
    return width if width == height and 0 < width <= _LARGEST_NATIVE else DEFAULT_SIZE


def _read_npz(path: Path, shown: str, options: ReadOptions, listed: _Listed) -> _Read:
    images, labels, notes = npz_arrays(path, options.scratch or Path())
    read = _read_array(images, shown, options, listed)
    read.notes += notes
    if labels is not None:
        where = f"labels in {shown}"
        read.labels = checked(Labels(array_labels(labels, where)), len(read.paths), where, where)
    return read


def _read_array(loaded: NDArray[np.uint8], shown: str, options: ReadOptions, listed: _Listed) -> _Read:
    if loaded.dtype != np.uint8 or loaded.ndim != 4 or loaded.shape[3] != 3:
        raise UserError(f"{shown} holds {loaded.dtype} {loaded.shape}; images must be uint8 (N, H, W, 3)")
    if 0 in loaded.shape:
        raise UserError(f"{shown} holds no pixels: its shape is {loaded.shape}")
    if loaded.shape[1] != loaded.shape[2]:
        raise UserError(f"{shown} holds images of {loaded.shape[1]}x{loaded.shape[2]} pixels; make them square")
    side = options.size or loaded.shape[1]
    if side > _LARGEST:
        raise UserError(f"{shown} holds images of {side}x{side} pixels; choose a --size up to {_LARGEST}")
    paths = [f"{number:06d}" for number in range(len(loaded))]
    listed(paths)
    target = (options.scratch or Path()) / "images.npy"
    with pixel_file(target, len(loaded), side) as pixels:
        for number, picture in enumerate(loaded, 1):
            pixels.append(picture if loaded.shape[1] == side else fitted(Image.fromarray(np.array(picture)), side))
            options.progress(number, len(loaded))
    return _Read(np.load(target, mmap_mode="r"), paths, list(range(len(loaded))))


def _folder_labels(paths: Sequence[str]) -> Labels | None:
    """The folder of each image, or the one above it where all images lie in folders of one name (red/images/0.png)."""
    folders = [PurePosixPath(path).parent.parts[::-1] for path in paths]
    deepest = max(len(parts) for parts in folders)
    for level in range(deepest):
        values = [parts[level] if level < len(parts) else "" for parts in folders]
        if len(set(values) - {""}) > 1:
            notes = [f"the classes are the folders {level} above the images' own"] if level else []
            if without := [path for path, value in zip(paths, values, strict=True) if not value]:
                notes.append(f"{counted(len(without), 'image')} in no class folder: {first_few(without)}")
            examples = {len(parts): path for path, parts in zip(paths, folders, strict=True) if parts}
            if len(examples) > 1:
                shown = first_few([examples[depth] for depth in sorted(examples)])
                notes.append(f"images lie in folders of different depth, as {shown}; the nearest folder is the class")
            return Labels(values, notes)
    return None
