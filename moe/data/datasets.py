"""Named datasets: which stores they consist of and how those are made.

A dataset is a small object that DATASETS knows by name; any other name is a store that the user imported. Another
package brings one by an entry point of the group ``moe.datasets`` that leads to its class, which is made without
arguments; `moe.testing.DatasetContract` holds what it must keep to.
"""

import dataclasses
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from moe.config import DataConfig
from moe.data.files import is_named_folder
from moe.data.pixels import copies
from moe.data.readers import Progress, ReadOptions, no_progress, read_images
from moe.data.staging import check_name, staged
from moe.data.stl10 import is_stl10
from moe.data.store import Images, ImageStore, data_root, fill, is_prepared, store_names, write_store
from moe.data.things import is_things, read_things, refuse_zipped
from moe.errors import Notice, UserError, suggest
from moe.registry import Registry
from moe.wording import counted, first_few


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


@runtime_checkable
class Versioned(Protocol):
    """A dataset whose images have changed with a version of it."""

    def outdated(self, store: ImageStore) -> bool:
        """Whether an earlier version made the store."""
        ...


class Synthetic:
    """Procedural images with known factors (moe.data.synthetic)."""

    about = "built in: 10 kinds of procedural images, organic and geometric, with known factors"
    train, validation = "synthetic-train", "synthetic-val"
    probes = ("synthetic-val",)
    builtin = True
    sizes = ((train, 2000, 1), (validation, 1000, 2))

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
                f"{_drawing(synthetic.DRAWING)}{seed}",
                drawn.labels_N,
                synthetic.CLASSES,
                drawn.factors_NF,
                synthetic.FACTORS,
            )
            stores.append(write_store(name, content, root, replace=True))
            progress(sum(len(store) for store in stores), total)
        return stores

    def outdated(self, store: ImageStore) -> bool:
        """Whether the pictures are an earlier version's."""
        from moe.data import synthetic

        return not store.manifest.source.startswith(_drawing(synthetic.DRAWING))


def _drawing(version: int) -> str:
    return f"procedural {version}, seed "


class Things:
    """THINGS images with their behavioural dimensions (moe.data.things)."""

    about = "THINGS: object photographs with 66 behavioural dimensions (needs your copy: --source FOLDER)"
    train, validation = "things", "things"
    probes = ("things",)
    builtin = False

    def prepare(self, root: Path, source: Path | None, progress: Progress) -> list[ImageStore]:
        """The store `things` from a folder laid out as in moe.data.things."""
        if source is None or not (is_named_folder(source) and is_things(source)):
            raise UserError(
                "THINGS cannot be downloaded without its password; pass --source FOLDER with images/, unique_id.txt "
                "and spose_embedding_66d_sorted.txt"
            )
        with staged("things", root, replace=True) as partial:
            fill(partial, "things", read_things(source, ReadOptions(progress=progress, scratch=partial)))
        return [ImageStore(root / "things")]


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
        "stl10": "moe.data.stl10:STL10",
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
    skip_bad: bool = False,
    password: str | None = None,
    progress: Progress = no_progress,
) -> ImageStore:
    """Make a store of the user's own images. THINGS' layout is recognised; see `read_images` for the others.

    Args:
        name: the store's; names of known datasets are theirs.
        path: what to read.
        labels: a label file.
        classes: a file of class names.
        size: pixels a side; see `ReadOptions`.
        replace: an older store of this name.
        allow_unknown: keep images of concepts that THINGS does not have.
        skip_bad: leave out pictures that cannot be read, and list them.
        password: of an encrypted zip.
        progress: called with (done, total) images.

    Raises:
        UserError: the name is taken, or the images cannot be read; a store of that name stays as it was.
    """
    root = data_root()
    check_name(name, root, replace=replace)
    is_named_folder(path)  # or says that nothing is there
    recognised = is_things(path)
    things = recognised and labels is None
    _check_own_name(name, path, things=things)
    if is_stl10(path):
        raise UserError(
            f"{path} is STL-10 as it is downloaded; run `moe data prepare stl10 --source {shlex.quote(str(path))}`"
        )
    if path.suffix.lower() == ".zip":
        refuse_zipped(path)
    with staged(name, root, replace=replace) as partial:
        options = ReadOptions(size, skip_bad, password, partial, progress)
        if things:
            content = read_things(path, options, allow_unknown=allow_unknown)
        else:
            content = read_images(path, options, labels=labels, classes=classes)
        if recognised and not things:
            left = "THINGS' dimensions and categories left out: --labels gives others"
            content = dataclasses.replace(content, notes=(*content.notes, left))
        fill(partial, name, dataclasses.replace(content, notes=(*content.notes, *_copies_note(content))))
    return ImageStore(root / name)


def _copies_note(content: Images) -> list[str]:
    """What a reader of p-values should know of images that are there more than once."""
    found = copies(content.images_NHWC)
    if not found:
        return []
    named = first_few([f"{content.ids[place]} of {content.ids[first]}" for place, first in found.items()])
    many = counted(len(found), "image") + (" copies another" if len(found) == 1 else " copy others")
    return [f"{many} to the last pixel: {named}; probes' p-values and intervals take images for independent"]


def _check_own_name(name: str, path: Path, *, things: bool) -> None:
    """Refuse the name of a known dataset or of its stores, except THINGS for a copy of it."""
    for key, dataset in DATASETS.usable().items():
        own = {one.casefold() for one in (key, dataset.train, dataset.validation, *dataset.probes)}
        if name.casefold() in own and not (things and name == key == "things"):  # Things is things on some disks
            command = f"moe data prepare {key}" + ("" if dataset.builtin else f" --source {shlex.quote(str(path))}")
            raise UserError(f'"{name}" belongs to the known dataset {key} (`{command}`); give your images another name')


_outdated: set[Path] = set()  # said once a process


def open_store(name: str) -> ImageStore:
    """A store by name; a built-in dataset's stores are made on first use.

    Raises:
        UserError: there is none, with the command that makes it.
    """
    root = data_root()
    of = {key: d for key, d in DATASETS.usable().items() if name in (d.train, d.validation, *d.probes)}
    if not is_prepared(name, root):
        for key, dataset in of.items():
            if not dataset.builtin:
                raise UserError(f'images "{name}" are not prepared; run `moe data prepare {key}`')
            dataset.prepare(root, None, no_progress)
    store = ImageStore.open(name, root)
    for key, dataset in of.items():
        if isinstance(dataset, Versioned) and dataset.outdated(store) and store.path not in _outdated:
            _outdated.add(store.path)
            warnings.warn(
                Notice(f"{name} is of an earlier version; `moe data prepare {key}` makes today's"), stacklevel=2
            )
    return store


def training_names(config: DataConfig) -> list[str]:
    """Names of the stores that a run trains on; `a+b` joins several."""
    return [DATASETS[part].train if part in DATASETS else part for part in config.name.split("+")]


def validation_name(config: DataConfig) -> str:
    """Name of the store to watch routing on: `data.validation`, else the dataset's own, else the first store."""
    name = config.validation or config.name.split("+")[0]
    return DATASETS[name].validation if name in DATASETS else name


def training_stores(config: DataConfig) -> list[ImageStore]:
    """The stores that a run trains on."""
    return [open_store(name) for name in training_names(config)]


def validation_store(config: DataConfig) -> ImageStore:
    """The store on which routing is watched."""
    return open_store(validation_name(config))


def named_stores(names: Sequence[str]) -> list[ImageStore]:
    """Stores by their own names, or those of a dataset that probes use."""
    chosen = [part for name in names for part in (DATASETS[name].probes if name in DATASETS else (name,))]
    return [open_store(name) for name in dict.fromkeys(chosen)]


def probe_stores(names: list[str], config: DataConfig) -> list[ImageStore]:
    """The stores that probes use: those named (datasets or stores), else what is at hand for the run.

    That is: the dataset's own probe images where they are prepared, otherwise the validation images; for STL-10,
    the paper's training set, THINGS too where it is prepared.
    """
    if names:
        return named_stores(names)
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
