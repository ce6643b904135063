"""Named datasets: which stores they consist of and how those are made.

A dataset is a small object that DATASETS knows by name; any other name is a store that the user imported. Another
package brings one by an entry point of the group ``moe.datasets`` that leads to its class, which is made without
arguments; `moe.testing.DatasetContract` holds what it must keep to.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from moe.config import DataConfig
from moe.data.readers import Progress, no_progress, read_images
from moe.data.store import Images, ImageStore, data_root, store_names, write_store
from moe.data.things import is_things, read_things
from moe.errors import UserError, suggest
from moe.registry import Registry


class Dataset(Protocol):
    """A named dataset.

    Guarantees
    ----------
    Stores. `prepare` makes the stores that the dataset names, or says in one sentence why it cannot; the same
    source gives the same bytes.

    Validation. The store on which routing is watched is labelled.

    Built in. A dataset that is made on first use needs nothing from outside.
    """

    @property
    def about(self) -> str:
        """One line for `moe data list`."""
        ...

    @property
    def train(self) -> str:
        """Store used for training."""
        ...

    @property
    def validation(self) -> str:
        """Labelled store on which routing is watched."""
        ...

    @property
    def probes(self) -> tuple[str, ...]:
        """Stores that probes use by default."""
        ...

    @property
    def builtin(self) -> bool:
        """Whether it needs no file from outside, so that it is made on first use."""
        ...

    def prepare(self, root: Path, source: Path | None, progress: Progress) -> list[ImageStore]:
        """Make the stores, from files at `source` or (None) by download or computation."""
        ...


class Synthetic:
    """Procedural images with known factors (moe.data.synthetic)."""

    about = "built in: 10 kinds of procedural images, organic and geometric, with known factors"
    train, validation = "synthetic-train", "synthetic-val"
    probes = ("synthetic-val",)
    builtin = True
    sizes = ((train, 2000, 1), (validation, 500, 2))

    def prepare(self, root: Path, source: Path | None, progress: Progress) -> list[ImageStore]:
        """Draw both stores; takes seconds."""
        from moe.data import synthetic

        if source is not None:
            raise UserError("synthetic images are computed; leave out --source")
        stores = []
        total = sum(count for _, count, _ in self.sizes)
        for name, count, seed in self.sizes:
            drawn = synthetic.generate(count, seed=seed)
            content = Images(
                drawn.images_NHWC,
                [f"{name}-{number:05d}" for number in range(count)],
                f"procedural, seed {seed}",
                drawn.labels_N,
                synthetic.CLASSES,
                drawn.factors_NF,
                synthetic.FACTORS,
            )
            stores.append(write_store(name, content, root, replace=True))
            progress(sum(len(store) for store in stores), total)
        return stores


class STL10:
    """STL-10 (Coates, Lee and Ng 2011): 100,000 unlabelled, 5,000 + 8,000 labelled images of 96 x 96."""

    about = "STL-10: 100,000 unlabelled images, 5,000 and 8,000 labelled ones (2.5 GB download)"
    train, validation = "stl10-unlabeled", "stl10-train"
    probes = ("stl10-test",)
    builtin = False

    def prepare(self, root: Path, source: Path | None, progress: Progress) -> list[ImageStore]:
        """Stores of the splits whose official binaries lie at `source`; downloads them if that is None."""
        folder = self._download(root) if source is None else source
        if (folder / "stl10_binary").is_dir():
            folder = folder / "stl10_binary"
        splits = [split for split in ("train", "test", "unlabeled") if (folder / f"{split}_X.bin").exists()]
        if not splits:
            raise UserError(f"{folder} holds no train_X.bin, test_X.bin or unlabeled_X.bin of STL-10")
        stores = []
        for split in splits:
            content = read_stl10(folder, split)
            stores.append(write_store(f"stl10-{split}", content, root, replace=True))
            progress(len(stores), len(splits))
        return stores

    @staticmethod
    def _download(root: Path) -> Path:
        from torchvision.datasets import STL10 as Official  # noqa: N811

        root.mkdir(parents=True, exist_ok=True)
        try:
            Official(str(root / ".download"), split="train", download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"STL-10 could not be downloaded ({error}); fetch stl10_binary.tar.gz by other means, unpack it "
                "and run `moe data prepare stl10 --source FOLDER`"
            ) from None
        return root / ".download"


def read_stl10(folder: Path, split: str) -> Images:
    """One split of the official binaries: images as bytes (N, 3, 96, 96), each channel column by column."""
    raw = np.fromfile(folder / f"{split}_X.bin", np.uint8)
    if raw.size == 0 or raw.size % (3 * 96 * 96):
        raise UserError(f"{folder / f'{split}_X.bin'} is not a whole number of 96x96 images; fetch it again")
    images_NHWC = raw.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    ids = [f"{split}-{number:06d}" for number in range(len(images_NHWC))]
    label_file = folder / f"{split}_y.bin"
    if not label_file.exists():
        return Images(images_NHWC, ids, f"STL-10 {split}")
    if not (folder / "class_names.txt").exists():
        raise UserError(f"{folder} holds {label_file.name} but no class_names.txt; fetch it from the same archive")
    names = (folder / "class_names.txt").read_text().split()
    labels_N = np.fromfile(label_file, np.uint8).astype(np.int64) - 1
    return Images(images_NHWC, ids, f"STL-10 {split}", labels_N, tuple(names))


class Things:
    """THINGS images with their behavioural dimensions (moe.data.things)."""

    about = "THINGS: object photographs with 66 behavioural dimensions (needs your copy: --source FOLDER)"
    train, validation = "things", "things"
    probes = ("things",)
    builtin = False

    def prepare(self, root: Path, source: Path | None, progress: Progress) -> list[ImageStore]:
        """The store `things` from a folder laid out as in moe.data.things."""
        if source is None or not is_things(source):
            raise UserError(
                "THINGS cannot be downloaded without its password; pass --source FOLDER with images/, unique_id.txt "
                "and spose_embedding_66d_sorted.txt"
            )
        return [write_store("things", read_things(source, progress=progress), root, replace=True)]


def _made(loaded: Any, name: str) -> Dataset:
    if not isinstance(loaded, type):
        raise UserError("it is no class")
    missing = [attribute for attribute in ("about", *_STORES, "builtin", "prepare") if not hasattr(loaded, attribute)]
    if missing or "+" in name:
        raise UserError(f"it has no {missing[0]}" if missing else "its name has a +, which joins images")
    dataset: Dataset = loaded()
    return dataset


_STORES = ("train", "validation", "probes")
DATASETS = Registry(
    "dataset",
    "moe.datasets",
    {
        "synthetic": "moe.data.datasets:Synthetic",
        "stl10": "moe.data.datasets:STL10",
        "things": "moe.data.datasets:Things",
    },
    _made,
)


def import_images(
    name: str,
    path: Path,
    *,
    labels: Path | None = None,
    classes: Path | None = None,
    size: int | None = None,
    replace: bool = False,
    allow_unknown: bool = False,
    progress: Progress = no_progress,
) -> ImageStore:
    """Make a store of the user's own images. THINGS' layout is recognised; see `read_images` for the others.

    `allow_unknown` keeps images of concepts that THINGS does not have.

    Raises:
        UserError: the name is taken, or the images cannot be read.
    """
    root = data_root()
    if (root / name).exists() and not replace:
        raise UserError(f'images named "{name}" exist in {root} already; pass --force to replace them')
    if is_things(path) and labels is None:
        content = read_things(path, size=size, allow_unknown=allow_unknown, progress=progress)
    else:
        content = read_images(path, labels=labels, classes=classes, size=size, progress=progress)
    return write_store(name, content, root, replace=replace)


def open_store(name: str) -> ImageStore:
    """A store by name; a built-in dataset's stores are made on first use.

    Raises:
        UserError: there is none, with the command that makes it.
    """
    root = data_root()
    if not (root / name / "manifest.json").exists():
        for key, dataset in DATASETS.usable().items():
            if name in (dataset.train, dataset.validation, *dataset.probes):
                if not dataset.builtin:
                    raise UserError(f'images "{name}" are not prepared; run `moe data prepare {key}`')
                dataset.prepare(root, None, no_progress)
    return ImageStore.open(name, root)


def training_stores(config: DataConfig) -> list[ImageStore]:
    """The stores that a run trains on; `a+b` joins several."""
    return [open_store(DATASETS[part].train if part in DATASETS else part) for part in config.name.split("+")]


def validation_store(config: DataConfig) -> ImageStore:
    """The store on which routing is watched: `data.validation`, else the dataset's own, else the first store."""
    name = config.validation or config.name.split("+")[0]
    return open_store(DATASETS[name].validation if name in DATASETS else name)


def probe_stores(names: list[str], config: DataConfig) -> list[ImageStore]:
    """The stores that probes use: those named (datasets or stores), else what is at hand for the run.

    That is: the dataset's own probe images where they are prepared, otherwise the validation images; for STL-10,
    the paper's training set, THINGS too where it is prepared.
    """
    if names:
        chosen = [part for name in names for part in (DATASETS[name].probes if name in DATASETS else (name,))]
        return [open_store(name) for name in dict.fromkeys(chosen)]
    dataset = DATASETS.usable().get(config.name)
    prepared = store_names()
    own = [name for name in dataset.probes if dataset.builtin or name in prepared] if dataset else []
    first = [open_store(name) for name in own] or [validation_store(config)]
    things = [open_store("things")] if "things" in prepared and config.name == "stl10" else []
    return first + [store for store in things if store.name not in {s.name for s in first}]


def check_available(config: DataConfig) -> None:
    """Refuse a run whose images are not there, before anything starts.

    Raises:
        UserError: names the images and the command that makes them.
    """
    known = (
        set(store_names()) | {s for d in DATASETS.usable().values() for s in (d.train, d.validation)} | set(DATASETS)
    )
    for name in [*config.name.split("+"), *([config.validation] if config.validation else [])]:
        if name not in known:
            raise UserError(
                f'unknown images "{name}": {suggest(name, known)} (`moe data import {name} PATH` makes them)'
            )
    training_stores(config)
    validation_store(config)
