"""Images that are too few for a batch, or that lack the labels that an objective or a gate needs."""

import json

import numpy as np
import pytest

from moe.config import from_flat
from moe.data.loading import load_run_data
from moe.data.store import Images, write_store
from moe.data.suitable import UnsuitableError, check_images
from tests.conftest import TINY

ANIMALS = ("cat", "dog")
BARE = "(bare-0, bare-1, bare-2, bare-3, bare-4); `moe data import bare PATH --labels FILE --force` gives them one"
MEALS = "a class for every image out of the same classes, and those of meals (fish, fowl) are not those of pets (cat"


@pytest.fixture(autouse=True)
def stores():
    """Five images each: all labelled, none, some, all with other classes."""
    images = np.zeros((5, 16, 16, 3), np.uint8)

    def store(name, labels=None, classes=()):
        ids = [f"{name}-{number}" for number in range(5)]
        write_store(name, Images(images, ids, "black", None if labels is None else np.array(labels), classes))

    store("pets", [0, 1, 0, 1, 0], ANIMALS)
    store("bare")
    store("some", [0, -1, 1, -1, 0], ANIMALS)
    store("meals", [0, 1, 0, 1, 0], ("fish", "fowl"))


def config(**changes):
    few = {"data.name": "pets", "data.validation": "pets", "train.batch_size": 4}
    return from_flat(TINY | few | {path.replace("__", "."): value for path, value in changes.items()})


NEEDY = [{"loss__objective": "supervised"}, {"gate__kind": "fixed"}]


@pytest.mark.parametrize("chosen", NEEDY, ids=["objective", "gate"])
@pytest.mark.parametrize(
    ("images", "lacking"),
    [
        ({"data__name": "bare"}, f"which 5 of 5 images of bare lack {BARE}, or choose other images with data.name"),
        ({"data__name": "pets+some"}, "which 2 of 5 images of some lack (some-1, some-3); "),
        ({"data__validation": "bare"}, f"{BARE}, or choose other images with data.validation"),
        ({"data__name": "pets+meals"}, f"{MEALS}, dog), in this order; choose images with the same ones with data"),
        ({"data__validation": "meals"}, "choose images with the same ones with data.validation"),
    ],
)  # fmt: skip
def test_images_without_the_labels_that_are_needed(chosen, images, lacking):
    check_images(config(**chosen))
    (setting, name) = next(iter(chosen.items()))
    with pytest.raises(UnsuitableError) as refused:
        check_images(config(**chosen, **images))
    assert str(refused.value).startswith(f"{setting.replace('__', '.')}={name} needs a class for every image")
    assert lacking in str(refused.value)
    assert refused.value.setting == setting.replace("__", ".")


@pytest.mark.parametrize("images", [{"data__name": "bare"}, {"data__validation": "some"}, {"data__name": "pets+meals"}])
def test_nobody_asks_for_labels_that_nothing_needs(images):
    check_images(config(**images, gate__kind="random"))
    assert len(load_run_data(config(**images)).validation.images_NCSS) == 5


def test_batches_of_more_images_than_there_are():
    check_images(config(data__name="pets+some", train__batch_size=10))
    with pytest.raises(UnsuitableError, match=r"train\.batch_size=6 exceeds the 5 images of pets; choose") as refused:
        check_images(config(train__batch_size=6))
    assert refused.value.setting == "train.batch_size"


def test_nothing_is_known_of_images_that_are_not_prepared():
    for name in ("stl10", "synthetic", "pets+nobody"):
        check_images(config(data__name=name, train__batch_size=10**6, loss__objective="supervised"))


def test_images_of_a_known_dataset_are_what_they_are(stores, isolated):
    write_store("stl10-unlabeled", Images(np.zeros((5, 16, 16, 3), np.uint8), list("abcde"), "black"))
    with pytest.raises(UnsuitableError, match=r"5 of 5 images of stl10-unlabeled lack \(a, b, c, d, e\); choose other"):
        check_images(config(data__name="stl10-unlabeled", loss__objective="supervised"))


def test_a_run_is_not_begun_on_images_that_do_not_suit_it(moe, tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(config(data__name="bare", loss__objective="supervised").model_dump(mode="json")))
    code, _, err = moe("train", "--config", file)
    assert code == 2
    assert err.startswith("error: loss.objective=supervised needs a class for every image, which 5 of 5 images of bare")
    assert not (tmp_path / "runs").exists()
