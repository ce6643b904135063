"""Image stores: one directory of plain files that any tool can read, with checksums.

    images.npy     (N, H, W, 3) uint8, read as a memory map
    labels.npy     (N,) int64, class index, -1 where unknown
    ids.json       N strings, unique
    groups.json    optional N strings (THINGS: the concept of each image)
    labelings.json optional further labels: name -> {"classes": [...], "labels": [N class indices]}
    factors.npy    optional (N, F) float32: known or rated dimensions, NaN rows where an image has none
    manifest.json  counts, class and factor names, channel statistics, origin, SHA-256 of each file

Axes: N images, H height, W width, F factors.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from moe.data.arrays import plain_array, save_array
from moe.data.files import regular
from moe.data.manifest import Manifest
from moe.data.pixels import channel_statistics, is_written
from moe.data.staging import FILES, clear_leftovers, staged
from moe.errors import UserError, suggest
from moe.files import is_file
from moe.wording import printable

_MOST_TEXT = 512 * 2**20  # bytes of a manifest or of ids


@dataclass(frozen=True)
class Images:
    """Images in memory with everything a store keeps about them.

    Attributes:
        images_NHWC: uint8.
        ids: unique names, one an image.
        labels_N: class indices, -1 where unknown; None when no image has a label.
        classes: class names in index order.
        factors_NF: rated dimensions, NaN rows where unrated; None when there are none.
        factors: names of the dimensions.
        groups: one string an image (THINGS: its concept), for grouped folds; None when there are none.
        labelings: further labels by name, (labels_N, classes) as above; None when there are none.
        source: where the images came from, in words.
        notes: what happened on import that a reader of results should know.
        left_out: pictures that could not be read and were left out by request, with the reason of each.
    """

    images_NHWC: NDArray[np.uint8]
    ids: list[str]
    source: str
    labels_N: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    factors_NF: NDArray[np.float32] | None = None
    factors: tuple[str, ...] = ()
    groups: list[str] | None = None
    labelings: dict[str, tuple[NDArray[np.int64], tuple[str, ...]]] | None = None
    notes: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def data_root() -> Path:
    """Where prepared stores live: `MOE_DATA`, else `./data`."""
    return Path(os.environ.get("MOE_DATA", "data")).expanduser()


class ImageStore:
    """A prepared store, opened for reading.

    Raises:
        UserError: from every attribute: a file is missing or damaged; names it and says how to mend it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / "manifest.json"
        if not file.exists():
            raise UserError(f"{printable(str(path))} is no image store (it has no manifest.json)")
        try:
            self.manifest = Manifest.model_validate_json(_text(file))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:100]
            raise self._damaged("manifest.json", f"{where}: {first['msg']}" if where else first["msg"]) from None
        except ValueError as error:
            raise self._damaged("manifest.json", str(error)) from None
        if unknown := sorted(set(self.manifest.sha256) - FILES):
            raise self._damaged("manifest.json", f'it lists "{unknown[0]:.100}", which no store has')

    @classmethod
    def open(cls, name: str, root: Path | None = None) -> "ImageStore":
        """The prepared store of this name.

        Raises:
            UserError: it does not exist; says which do and how to make it.
        """
        root = root or data_root()
        clear_leftovers(root)
        if not is_prepared(name, root):
            known = store_names(root)
            raise UserError(
                f'no images named "{name}" in {root} ({suggest(name, known)}); make them with '
                f"`moe data prepare {name}` or `moe data import {name} PATH`"
            )
        return cls(root / name)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def name(self) -> str:
        """The store's name."""
        return self.manifest.name

    @cached_property
    def images_NHWC(self) -> NDArray[np.uint8]:
        """All images, memory-mapped."""
        return self._array("images.npy", np.uint8, (len(self), self.manifest.height, self.manifest.width, 3))

    @cached_property
    def labels_N(self) -> NDArray[np.int64]:
        """Class index of each image, -1 where unknown."""
        labels_N = np.array(self._array("labels.npy", np.int64, (len(self),)))
        if labels_N.min() < -1 or labels_N.max() >= len(self.manifest.classes):
            raise self._damaged("labels.npy", f"label {labels_N.max()} of {len(self.manifest.classes)} classes")
        return labels_N

    @cached_property
    def ids(self) -> list[str]:
        """Unique name of each image."""
        return self._strings("ids.json")

    @cached_property
    def groups(self) -> list[str] | None:
        """Group of each image (THINGS: its concept), if the store has any."""
        return self._strings("groups.json") if (self.path / "groups.json").exists() else None

    @cached_property
    def labelings(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Further labels by name: class index of each image (-1 where unknown) and class names."""
        if not (self.path / "labelings.json").exists():
            return {}
        stored = self._json("labelings.json")
        try:
            return {name: (np.array(one["labels"], np.int64), list(one["classes"])) for name, one in stored.items()}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise self._damaged("labelings.json", "it is no table of labels") from None

    @cached_property
    def factors_NF(self) -> NDArray[np.float32] | None:
        """Rated dimensions, NaN rows where an image has none; None if the store has none at all."""
        if not (self.path / "factors.npy").exists():
            return None
        return np.array(self._array("factors.npy", np.float32, (len(self), len(self.manifest.factors))))

    def digest(self) -> str:
        """One checksum for the whole store: SHA-256 over its files' checksums."""
        return hashlib.sha256(json.dumps(self.manifest.sha256, sort_keys=True).encode()).hexdigest()

    def verify(self) -> None:
        """Read every file and compare it with its checksum.

        Raises:
            UserError: names the file that is missing or differs.
        """
        for file, expected in self.manifest.sha256.items():
            path = self.path / file
            if not path.exists():
                raise UserError(f"{path} is missing; {self._mend()}")
            regular(path)
            if sha256(path) != expected:
                raise UserError(f"{path} differs from its checksum; {self._mend()}")
        self.check()

    def check(self) -> None:
        """Open every file and compare it with the manifest, without reading the pixels.

        Raises:
            UserError: names the file that does not fit.
        """
        if not {"images.npy", "labels.npy", "ids.json"} <= set(self.manifest.sha256):
            raise self._damaged("manifest.json", "it lacks the checksum of images.npy, labels.npy or ids.json")
        _ = (self.images_NHWC, self.labels_N, self.ids, self.groups, self.factors_NF)
        for name, (labels_N, classes) in self.labelings.items():
            if labels_N.shape != (len(self),) or labels_N.max() >= len(classes):
                raise self._damaged("labelings.json", f'"{name}" does not fit the {len(self)} images')

    def _mend(self) -> str:
        return "import the images again with --force, or prepare them again"

    def _damaged(self, file: str, reason: str) -> UserError:
        line = (reason.splitlines() or [""])[0][:300].encode("utf-8", "backslashreplace").decode()
        return UserError(f"{printable(str(self.path / file))} is damaged ({line}); {self._mend()}")

    def _read(self, file: str, read: Callable[[Path], Any]) -> Any:
        path = self.path / file
        if not path.exists():
            raise UserError(f"{path} is missing; {self._mend()}")
        try:
            return read(path)
        except (ValueError, RecursionError) as error:
            raise self._damaged(file, str(error)) from None

    def _array(self, file: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        array = self._read(file, lambda path: _loaded(path, self._damaged))
        if array.dtype != dtype or array.shape != shape:
            raise self._damaged(file, f"{array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}")
        return np.asanyarray(array)

    def _json(self, file: str) -> Any:
        return self._read(file, lambda path: json.loads(_text(path)))

    def _strings(self, file: str) -> list[str]:
        read = self._json(file)
        if not isinstance(read, list) or len(read) != len(self) or not all(isinstance(one, str) for one in read):
            raise self._damaged(file, f"it is no list of {len(self)} names")
        return read


def _text(path: Path) -> str:
    if regular(path) > _MOST_TEXT:
        raise ValueError(f"it has {regular(path):,} bytes")
    return path.read_text(encoding="utf-8")


def _loaded(path: Path, damaged: Callable[[str, str], UserError]) -> NDArray[Any]:
    try:
        return plain_array(path)
    except UserError as error:
        raise damaged(path.name, str(error)) from None


def is_prepared(name: str, root: Path) -> bool:
    """Whether there is a store of this name; one that no folder can have names none."""
    return name not in ("", ".", "..") and "/" not in name and is_file(root / name / "manifest.json")


def store_names(root: Path | None = None) -> list[str]:
    """Names of the prepared stores."""
    found = (path.parent.name for path in (root or data_root()).glob("*/manifest.json"))
    return sorted(name for name in found if not name.startswith("."))


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_store(name: str, content: Images, root: Path | None = None, *, replace: bool = False) -> ImageStore:
    """Write a store; it appears under its name complete or not at all.

    Raises:
        UserError: the name is taken and `replace` is false, or the content contradicts itself.
    """
    root = root or data_root()
    check(content)
    with staged(name, root, replace=replace) as partial:
        fill(partial, name, content)
    return ImageStore(root / name)


def fill(folder: Path, name: str, content: Images) -> None:
    """Write the files of a store into a folder; its pixels may be there already.

    Raises:
        UserError: the content contradicts itself.
    """
    check(content)
    _write_files(folder, name, content)
    ImageStore(folder).check()


def check(content: Images) -> None:
    """Refuse images that contradict what is said about them.

    Raises:
        UserError: says in which point.
    """
    images, count = content.images_NHWC, len(content.ids)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"images must be uint8 of shape (N, H, W, 3), not {images.dtype} {images.shape}")
    if count == 0:
        raise UserError(f"no images found in {content.source}")
    if 0 in images.shape[1:3]:
        raise UserError(f"images of {images.shape[1]}x{images.shape[2]} pixels in {content.source} show nothing")
    for what, values in (
        ("images", images),
        ("labels", content.labels_N),
        ("factor rows", content.factors_NF),
        ("groups", content.groups),
    ):
        if values is not None and len(values) != count:
            raise UserError(f"{count} ids but {len(values)} {what}")
    twice = next((name for name, number in Counter(content.ids).items() if number > 1), None)
    if twice is not None:
        raise UserError(f'two images have the same id "{twice}"; rename one')
    _check_labels(content)
    _check_factors(content)


def _check_labels(content: Images) -> None:
    labels_N, count = content.labels_N, len(content.ids)
    if twice := [name for name, number in Counter(content.classes).items() if number > 1]:
        raise UserError(f'two classes of {content.source} have the name "{twice[0]:.200}"; rename one')
    if labels_N is not None and labels_N.max(initial=-1) >= len(content.classes):
        raise UserError(f"label {labels_N.max()} but {len(content.classes)} class names")
    if labels_N is not None and labels_N.min(initial=0) < -1:
        raise UserError(f"label {labels_N.min()}: class indices start at 0, and -1 means unknown")
    for name, (further_N, classes) in (content.labelings or {}).items():
        if len(further_N) != count or further_N.max(initial=-1) >= len(classes):
            raise UserError(f'labels "{name}" are not {count} numbers below the {len(classes)} class names')


def _check_factors(content: Images) -> None:
    factors_NF = content.factors_NF
    columns = 0 if factors_NF is None else factors_NF.shape[1]
    if columns != len(content.factors):
        raise UserError(f"{columns} factor columns but {len(content.factors)} factor names")
    if factors_NF is not None and np.isinf(factors_NF).any():
        raise UserError(f"{content.source} has infinite factors; give numbers, or NaN where an image has none")


def _write_files(path: Path, name: str, content: Images) -> None:
    count = len(content.ids)
    labels = content.labels_N if content.labels_N is not None else np.full(count, -1)
    if not is_written(content.images_NHWC, path / "images.npy"):
        save_array(path / "images.npy", content.images_NHWC)
    save_array(path / "labels.npy", labels.astype(np.int64))
    (path / "ids.json").write_text(json.dumps(content.ids))
    if content.groups is not None:
        (path / "groups.json").write_text(json.dumps(content.groups))
    if content.labelings:
        stored = {name: {"classes": classes, "labels": labels_N.tolist()}
                  for name, (labels_N, classes) in content.labelings.items()}  # fmt: skip
        (path / "labelings.json").write_text(json.dumps(stored))
    if content.factors_NF is not None:
        save_array(path / "factors.npy", content.factors_NF.astype(np.float32))
    mean, sd = channel_statistics(content.images_NHWC)
    manifest = Manifest(
        name=name,
        count=count,
        height=content.images_NHWC.shape[1],
        width=content.images_NHWC.shape[2],
        classes=list(content.classes),
        factors=list(content.factors),
        mean=mean,
        sd=sd,
        source=content.source,
        notes=list(content.notes),
        left_out=content.left_out,
        sha256={file.name: sha256(file) for file in sorted(path.iterdir())},
    )
    unused = None if content.left_out else {"left_out"}  # so that earlier versions read it
    (path / "manifest.json").write_text(manifest.model_dump_json(indent=2, exclude=unused) + "\n")


@dataclass(frozen=True)
class Damaged:
    """A store that cannot be read, and the sentence that says why and how to mend it."""

    name: str
    problem: str


def open_all(root: Path | None = None) -> tuple[list[ImageStore], list[Damaged]]:
    """Every prepared store, and those that are damaged; what killed imports left is cleared away."""
    root = root or data_root()
    clear_leftovers(root)
    stores, damaged = [], []
    for name in store_names(root):
        try:
            store = ImageStore(root / name)
            store.check()
        except UserError as error:
            damaged.append(Damaged(printable(name), str(error)))
        else:
            stores.append(store)
    return stores, damaged
