"""Reading a user's images: a folder, a zip, or an array, with labels from folders or from a file."""

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from moe.data.store import Images
from moe.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
DEFAULT_SIZE = 96

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class ImageFile:
    """One encoded image: its path inside the folder or zip, and how to read its bytes."""

    path: PurePosixPath
    read: Callable[[], bytes]


def _natural(path: PurePosixPath) -> list[tuple[int, int, str]]:
    """Sort key under which 10.jpg follows 9.jpg."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _folder(path: Path) -> Iterator[ImageFile]:
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.suffix.lower() in SUFFIXES and not hidden:
            yield ImageFile(PurePosixPath(file.relative_to(path).as_posix()), file.read_bytes)


def _zip(archive: zipfile.ZipFile) -> Iterator[ImageFile]:
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        hidden = path.name.startswith(".") or "__MACOSX" in path.parts
        if path.suffix.lower() in SUFFIXES and not hidden:
            yield ImageFile(path, lambda info=info: archive.read(info))  # type: ignore[misc]


def decode(files: Sequence[ImageFile], size: int | None, progress: Progress) -> NDArray[np.uint8]:
    """Decode images to (N, size, size, 3) uint8.

    With `size` None, images that all have one square size keep it; otherwise 96 pixels. Others are scaled with
    antialiasing so that the shorter side fits, and cropped at the centre.

    Raises:
        UserError: names the first image that cannot be read.
    """
    side = size or _common_size(files)
    result = np.empty((len(files), side, side, 3), np.uint8)
    for number, file in enumerate(files):
        result[number] = _decode_one(file, side)
        progress(number + 1, len(files))
    return result


def _common_size(files: Sequence[ImageFile]) -> int:
    sizes = set()
    for file in files:
        with _opened(file) as image:
            sizes.add(image.size)
        if len(sizes) > 1:
            return DEFAULT_SIZE
    width, height = sizes.pop()
    return width if width == height else DEFAULT_SIZE


def _opened(file: ImageFile) -> Image.Image:
    try:
        return Image.open(io.BytesIO(file.read()))
    except (UnidentifiedImageError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file.path} is not a readable image ({error}); mend or remove it") from None


def _decode_one(file: ImageFile, side: int) -> NDArray[np.uint8]:
    with _opened(file) as image:
        try:
            picture = _rgb(ImageOps.exif_transpose(image))
        except OSError as error:
            raise UserError(f"{file.path} is a damaged image ({error}); mend or remove it") from None
    return _fitted(picture, side)


def _fitted(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    if picture.size != (side, side):
        picture = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit colour; 16-bit grey is scaled, which Pillow's own conversion would clip to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise OSError(f"32-bit pixels of no known range, mode {image.mode}")
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_images(
    path: Path,
    *,
    labels: Path | None = None,
    classes: Path | None = None,
    size: int | None = None,
    progress: Progress = no_progress,
) -> Images:
    """Images of a folder, a zip, or a .npy/.npz array (N, H, W, 3) uint8, in natural order of their names.

    Without `labels`, the folder that an image lies in is its class, if there are at least two such folders.

    Args:
        path: what to read.
        labels: a file of labels, see `read_labels`.
        classes: a text file with one class name a line, in the order of the sorted label values.
        size: pixels a side; see `decode` for the default.
        progress: called with (done, total) images.

    Raises:
        UserError: nothing there, something unreadable, or labels that do not fit.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix in (".npy", ".npz"):
        array = _read_array(path, size, progress)
        names = [PurePosixPath(f"{number:06d}") for number in range(len(array))]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names, array = _read_files(_zip(archive), path, size, progress)
    elif path.is_dir():
        names, array = _read_files(_folder(path), path, size, progress)
    else:
        raise UserError(f"{path} is neither a folder, a zip, nor a .npy/.npz array of images")
    ids = [str(name.with_suffix("")) for name in names]
    values = read_labels(labels, ids) if labels else _folder_labels(names)
    labels_N, class_names = _indexed(values, classes) if values else (None, ())
    return Images(array, ids, f"imported from {path.name}", labels_N, class_names)


def _read_files(
    files: Iterator[ImageFile], path: Path, size: int | None, progress: Progress
) -> tuple[list[PurePosixPath], NDArray[np.uint8]]:
    found = sorted(files, key=lambda file: _natural(file.path))
    if not found:
        raise UserError(f"no images in {path} (looked for {', '.join(SUFFIXES)})")
    return [file.path for file in found], decode(found, size, progress)


def _plain_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, or the one named "images" (or the only one) of a .npz file."""
    try:
        if path.suffix == ".npy":
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1 and "images" not in archive.files:
                raise UserError(f'{path} holds {", ".join(archive.files)}; name the one with the images "images"')
            return np.asarray(archive["images" if "images" in archive.files else archive.files[0]])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a plain array ({error})") from None


def _read_array(path: Path, size: int | None, progress: Progress) -> NDArray[np.uint8]:
    loaded = _plain_array(path)
    if loaded.dtype != np.uint8 or loaded.ndim != 4 or loaded.shape[3] != 3:  # noqa: PLR2004
        raise UserError(f"{path} holds {loaded.dtype} {loaded.shape}; images must be uint8 (N, H, W, 3)")
    if loaded.shape[1] != loaded.shape[2]:
        raise UserError(f"{path} holds images of {loaded.shape[1]}x{loaded.shape[2]} pixels; make them square")
    if size is None or loaded.shape[1] == size:
        return loaded
    result = np.empty((len(loaded), size, size, 3), np.uint8)
    for number, picture in enumerate(loaded):
        result[number] = _fitted(Image.fromarray(picture), size)
        progress(number + 1, len(loaded))
    return result


def _folder_labels(names: Sequence[PurePosixPath]) -> list[str] | None:
    parents = [name.parent.name for name in names]
    return parents if len(set(parents) - {""}) > 1 else None


def read_labels(path: Path, ids: Sequence[str]) -> list[str]:
    """One label for each image; an empty string or -1 where unknown.

    - .csv/.tsv with a header: the first column is an image's name (with or without folder and suffix), the second
      its label; images that are not listed stay unlabelled;
    - .txt: one label a line, in image order;
    - .npy: an integer array in image order;
    - .bin: bytes in image order (STL-10's official label files).

    Raises:
        UserError: the file is missing, of another kind, or has another number of labels than images.
    """
    if not path.exists():
        raise UserError(f"the label file {path} does not exist")
    match path.suffix:
        case ".csv" | ".tsv":
            return _joined(path, ids)
        case ".txt":
            values = [line.strip() for line in path.read_text().splitlines()]
        case ".npy":
            values = [str(value) for value in _plain_array(path).ravel().tolist()]
        case ".bin":
            values = [str(value) for value in path.read_bytes()]
        case other:
            raise UserError(f'{path}: labels come as .csv, .tsv, .txt, .npy or .bin, not "{other}"')
    if len(values) != len(ids):
        raise UserError(f"{path} has {len(values)} labels for {len(ids)} images")
    return values


def _without_image_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name


def _joined(path: Path, ids: Sequence[str]) -> list[str]:
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") if row][1:]
    short = any(len(row) < 2 or not row[0] for row in rows)  # noqa: PLR2004
    if short or not rows:
        raise UserError(f"{path} needs a header and two columns: image name, label")
    table = {_without_image_suffix(row[0]): row[1] for row in rows}
    labels = [table.get(name, table.get(PurePosixPath(name).name, "")) for name in ids]
    if not any(labels):
        raise UserError(f'{path} names no image that was imported (it has "{rows[0][0]}", images "{ids[0]}")')
    return labels


def _indexed(values: Sequence[str], classes: Path | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Label values to class indices in sorted order (numbers by value)."""
    known = set(values) - {"", "-1"}
    numeric = all(value.lstrip("-").isdigit() for value in known)
    order = sorted(known, key=int) if numeric else sorted(known)
    if classes and not classes.exists():
        raise UserError(f"the class file {classes} does not exist")
    names = [line.strip() for line in classes.read_text().splitlines() if line.strip()] if classes else order
    if len(names) != len(order):
        raise UserError(f"{classes} has {len(names)} class names for {len(order)} different labels")
    index = {value: number for number, value in enumerate(order)}
    return np.array([index.get(value, -1) for value in values], np.int64), tuple(names)
