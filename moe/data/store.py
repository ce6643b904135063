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
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from moe.errors import UserError, suggest

_CHUNK = 1024


class Manifest(BaseModel):
    """What `manifest.json` holds."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    name: str
    count: int
    height: int
    width: int
    classes: list[str] = []
    factors: list[str] = []
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    source: str
    notes: list[str] = []
    sha256: dict[str, str]


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


def data_root() -> Path:
    """Where prepared stores live: `MOE_DATA`, else `./data`."""
    return Path(os.environ.get("MOE_DATA", "data")).expanduser()


class ImageStore:
    """A prepared store, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.manifest = Manifest.model_validate_json((path / "manifest.json").read_text())
        except FileNotFoundError:
            raise UserError(f"{path} is no image store (it has no manifest.json)") from None
        except ValueError as error:
            raise UserError(f"{path / 'manifest.json'} is damaged: {error}; import the images again") from None

    @classmethod
    def open(cls, name: str, root: Path | None = None) -> "ImageStore":
        """The prepared store of this name.

        Raises:
            UserError: it does not exist; says which do and how to make it.
        """
        root = root or data_root()
        if not (root / name / "manifest.json").exists():
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
        return np.load(self.path / "images.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    @cached_property
    def labels_N(self) -> NDArray[np.int64]:
        """Class index of each image, -1 where unknown."""
        return np.load(self.path / "labels.npy", allow_pickle=False)  # type: ignore[no-any-return]

    @cached_property
    def ids(self) -> list[str]:
        """Unique name of each image."""
        return list(json.loads((self.path / "ids.json").read_text()))

    @cached_property
    def groups(self) -> list[str] | None:
        """Group of each image (THINGS: its concept), if the store has any."""
        path = self.path / "groups.json"
        return list(json.loads(path.read_text())) if path.exists() else None

    @cached_property
    def labelings(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Further labels by name: class index of each image (-1 where unknown) and class names."""
        path = self.path / "labelings.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        return {name: (np.array(one["labels"], np.int64), list(one["classes"])) for name, one in stored.items()}

    @cached_property
    def factors_NF(self) -> NDArray[np.float32] | None:
        """Rated dimensions, NaN rows where an image has none; None if the store has none at all."""
        path = self.path / "factors.npy"
        return np.load(path, allow_pickle=False) if path.exists() else None

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
                raise UserError(f"{path} is missing; import the images again")
            if sha256(path) != expected:
                raise UserError(f"{path} differs from its checksum; import the images again")


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
    target = root / name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(f'"{name}" cannot name a store: use letters, digits, ".", "-" and "_"')
    if target.exists() and not replace:
        raise UserError(f"{target} exists already; pass --force to replace it")
    _check(content)
    partial = root / f".{name}-{uuid.uuid4().hex[:8]}"
    partial.mkdir(parents=True)
    try:
        _write_files(partial, name, content)
        _move_into_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ImageStore(target)


def _move_into_place(partial: Path, target: Path) -> None:
    """Rename, setting an older store aside and putting it back if that fails."""
    aside = partial.with_name(f"{partial.name}-old")
    if target.exists():
        target.rename(aside)
    try:
        partial.rename(target)
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _check(content: Images) -> None:
    images, count = content.images_NHWC, len(content.ids)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:  # noqa: PLR2004
        raise UserError(f"images must be uint8 of shape (N, H, W, 3), not {images.dtype} {images.shape}")
    if count == 0:
        raise UserError(f"no images found in {content.source}")
    for what, values in (
        ("images", images),
        ("labels", content.labels_N),
        ("factor rows", content.factors_NF),
        ("groups", content.groups),
    ):
        if values is not None and len(values) != count:
            raise UserError(f"{count} ids but {len(values)} {what}")
    columns = 0 if content.factors_NF is None else content.factors_NF.shape[1]
    if columns != len(content.factors):
        raise UserError(f"{columns} factor columns but {len(content.factors)} factor names")
    if len(set(content.ids)) != count:
        raise UserError("two images have the same id")
    if content.labels_N is not None and content.labels_N.max(initial=-1) >= len(content.classes):
        raise UserError(f"label {content.labels_N.max()} but {len(content.classes)} class names")
    for name, (labels_N, classes) in (content.labelings or {}).items():
        if len(labels_N) != count or labels_N.max(initial=-1) >= len(classes):
            raise UserError(f'labels "{name}" are not {count} numbers below the {len(classes)} class names')


def _write_files(path: Path, name: str, content: Images) -> None:
    count = len(content.ids)
    labels = content.labels_N if content.labels_N is not None else np.full(count, -1)
    np.save(path / "images.npy", content.images_NHWC)
    np.save(path / "labels.npy", labels.astype(np.int64))
    (path / "ids.json").write_text(json.dumps(content.ids))
    if content.groups is not None:
        (path / "groups.json").write_text(json.dumps(content.groups))
    if content.labelings:
        stored = {name: {"classes": classes, "labels": labels_N.tolist()}
                  for name, (labels_N, classes) in content.labelings.items()}  # fmt: skip
        (path / "labelings.json").write_text(json.dumps(stored))
    if content.factors_NF is not None:
        np.save(path / "factors.npy", content.factors_NF.astype(np.float32))
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
        sha256={file.name: sha256(file) for file in sorted(path.iterdir())},
    )
    (path / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")


def chunks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in pieces of at most 1,024 rows, so that a memory map is never read whole."""
    for start in range(0, len(array), _CHUNK):
        yield array[start : start + _CHUNK]


def channel_statistics(
    images_NHWC: NDArray[np.uint8],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and population sd of each colour channel over all pixels, on the scale 0..1."""
    total, squares, count = np.zeros(3), np.zeros(3), 0
    for chunk in chunks(images_NHWC):
        flat = chunk.reshape(-1, 3).astype(np.int64)
        total += flat.sum(axis=0)
        squares += np.square(flat).sum(axis=0)
        count += len(flat)
    mean = total / count
    sd = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    m, s = (mean / 255).tolist(), (sd / 255).tolist()
    return (m[0], m[1], m[2]), (s[0], s[1], s[2])


def open_all(root: Path | None = None) -> list[ImageStore]:
    """Every prepared store."""
    root = root or data_root()
    return [ImageStore(root / name) for name in store_names(root)]
