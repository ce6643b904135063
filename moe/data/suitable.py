"""Whether a run's images are enough for it, and labelled where it needs that: asked before anything starts."""

from collections.abc import Sequence

import numpy as np

from moe.config import DataConfig, RunConfig
from moe.data.datasets import DATASETS, training_names, validation_name
from moe.data.store import ImageStore, data_root, is_prepared
from moe.errors import UserError
from moe.section import Options
from moe.wording import first_few


class UnsuitableError(UserError):
    """Images on which a run cannot be trained.

    Args:
        setting: dotted path of the setting that asks for more than they have.
        problem: what it asks for, what they lack and how to mend it.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(problem)
        self.setting = setting


def check_images(config: RunConfig) -> None:
    """Refuse a run whose batches hold more images than there are, or whose images lack labels that it needs.

    Nothing is known of images that are not prepared yet, and nothing is refused.

    Raises:
        UnsuitableError: names the images, what they lack and how to mend it.
    """
    stores = prepared(config.data)
    if not stores:
        return
    *training, validation = stores
    count, size = sum(len(store) for store in training), config.train.batch_size
    if count < size:
        raise UnsuitableError(
            "train.batch_size",
            f"train.batch_size={size} exceeds the {count:,} images of {config.data.name}; choose a smaller one",
        )
    for options in (config.loss, config.gate):
        if options.needs_labels:
            _check_labels(options, training, validation)


def prepared(data: DataConfig) -> list[ImageStore]:
    """The stores of training and, last, that of validation; none if one of them is still to be made."""
    names, root = [*training_names(data), validation_name(data)], data_root()
    return [ImageStore(root / name) for name in names] if all(is_prepared(name, root) for name in names) else []


def _check_labels(options: Options, training: Sequence[ImageStore], validation: ImageStore) -> None:
    """Refuse images without a class, and images whose classes are not those of the others."""
    setting = f"{options.section}.{options.choice}"
    needs = f"{setting}={options.named()} needs a class for every image"
    for store in [*training, validation]:
        if lacking := np.flatnonzero(store.labels_N < 0).tolist():
            of = first_few([store.ids[place] for place in lacking])
            where = "data.validation" if store is validation else "data.name"
            raise UnsuitableError(
                setting,
                f"{needs}, which {len(lacking):,} of {len(store):,} images of {store.name} lack ({of}); "
                f"{_mend(store.name)}choose other images with {where}",
            )
    first = training[0]
    for store, where in [*((store, "data.name") for store in training[1:]), (validation, "data.validation")]:
        if store.manifest.classes != first.manifest.classes:
            raise UnsuitableError(
                setting,
                f"{needs} out of the same classes, and those of {store.name} ({first_few(store.manifest.classes)}) are "
                f"not those of {first.name} ({first_few(first.manifest.classes)}), in this order; choose images with "
                f"the same ones with {where}",
            )


def _mend(name: str) -> str:
    """The command that gives images of the user's own their labels; a known dataset's are what they are."""
    known = {store for one in DATASETS.usable().values() for store in (one.train, one.validation, *one.probes)}
    return "" if name in known else f"`moe data import {name} PATH --labels FILE --force` gives them one, or "
