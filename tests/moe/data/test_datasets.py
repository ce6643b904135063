"""Named datasets: how their stores come to be, which of them a run or a probe uses, and what to do when they lack."""

import errno
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moe.config import DataConfig
from moe.data.datasets import (
    DATASETS,
    Dataset,
    check_available,
    import_images,
    open_store,
    probe_stores,
    training_stores,
    validation_store,
)
from moe.data.readers import no_progress
from moe.data.stl10 import read_stl10
from moe.data.store import Images, store_names, write_store
from moe.data.things import EMBEDDING
from moe.errors import Notice, UserError
from moe.testing import DatasetContract

NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def make(*names: str) -> None:
    for number, name in enumerate(names):
        images = np.full((3, 16, 16, 3), number, np.uint8)
        write_store(name, Images(images, ["a", "b", "c"], "test"))


def names(stores: list) -> list[str]:
    return [store.name for store in stores]


@pytest.fixture
def small_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS["synthetic"], "sizes", (("synthetic-train", 12, 1), ("synthetic-val", 10, 2)))


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("torchvision.datasets.STL10", refuse)


def stl10_folder(path: Path, splits: tuple[str, ...] = ("train", "test", "unlabeled"), count: int = 2) -> np.ndarray:
    """Official binaries of `count` images a split; returns the images as (N, 96, 96, 3), the same in all splits."""
    path.mkdir(parents=True, exist_ok=True)
    images_NHWC = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
    data = bytearray()
    for image in images_NHWC:  # channel after channel, in each column after column
        for channel in range(3):
            for column in range(96):
                data += image[:, column, channel].tobytes()
    for split in splits:
        (path / f"{split}_X.bin").write_bytes(data)
        if split != "unlabeled":
            (path / f"{split}_y.bin").write_bytes(bytes([10, 1] * count)[:count])
    (path / "class_names.txt").write_text("\n".join(NAMES) + "\n")
    return images_NHWC


def things_folder(path: Path) -> Path:
    for concept in ("apple", "drum"):
        (path / "images" / concept).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(path / "images" / concept / f"{concept}_01.png")
    (path / "unique_id.txt").write_text("apple\ndrum\n")
    np.savetxt(path / EMBEDDING, np.eye(2))
    return path


@pytest.mark.usefixtures("small_synthetic")
class TestSyntheticContract(DatasetContract):
    def dataset(self) -> Dataset:
        return DATASETS["synthetic"]


class TestSTL10Contract(DatasetContract):
    def dataset(self) -> Dataset:
        return DATASETS["stl10"]

    def source(self, folder: Path) -> Path:
        stl10_folder(folder)
        return folder


class TestThingsContract(DatasetContract):
    def dataset(self) -> Dataset:
        return DATASETS["things"]

    def source(self, folder: Path) -> Path:
        return things_folder(folder)


class TestSynthetic:
    def test_is_made_on_first_use(self, small_synthetic: None) -> None:
        assert store_names() == []
        (store,) = training_stores(DataConfig(name="synthetic"))
        assert (store.name, len(store)) == ("synthetic-train", 12)
        assert store_names() == ["synthetic-train", "synthetic-val"]
        assert len(store.manifest.classes) == 10
        assert store.factors_NF is not None
        assert store.factors_NF.shape == (12, len(store.manifest.factors))

    def test_is_not_made_twice(self, small_synthetic: None, monkeypatch: pytest.MonkeyPatch) -> None:
        open_store("synthetic-val")
        monkeypatch.setattr(DATASETS["synthetic"], "sizes", ())
        assert len(open_store("synthetic-val")) == 10

    def test_pictures_of_an_earlier_version_are_said_once_and_kept(self, small_synthetic: None) -> None:
        store = open_store("synthetic-val")
        manifest = store.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace("procedural 2, seed 2", "procedural, seed 2"))
        with pytest.warns(Notice, match=r"synthetic-val is of an earlier version; `moe data prepare synthetic`"):
            again = open_store("synthetic-val")
        assert again.manifest.source == "procedural, seed 2"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            open_store("synthetic-val")

    def test_training_and_validation_images_differ(self, small_synthetic: None) -> None:
        train, validation = open_store("synthetic-train"), open_store("synthetic-val")
        both = np.concatenate([train.images_NHWC, validation.images_NHWC]).reshape(22, -1)
        assert len(np.unique(both, axis=0)) == 22

    def test_takes_no_source(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="leave out --source"):
            DATASETS["synthetic"].prepare(tmp_path / "data", tmp_path, no_progress)


class TestSTL10:
    def test_official_bytes_are_read_column_by_column(self, tmp_path: Path) -> None:
        images = stl10_folder(tmp_path / "stl10")
        read = read_stl10(tmp_path / "stl10", "train")
        np.testing.assert_array_equal(read.images_NHWC, images)
        assert read.ids == ["train-000000", "train-000001"]
        assert read.classes == tuple(NAMES)
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [9, 0]  # official labels count from 1

    def test_the_unlabelled_split_has_no_labels(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "stl10")
        read = read_stl10(tmp_path / "stl10", "unlabeled")
        assert read.labels_N is None
        assert read.classes == ()

    @pytest.mark.parametrize("inside", ["", "stl10_binary"])
    def test_the_splits_that_are_there_become_stores(self, tmp_path: Path, inside: str) -> None:
        images = stl10_folder(tmp_path / "stl10" / inside, ("train", "unlabeled"))
        stores = DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10", no_progress)
        assert names(stores) == ["stl10-train", "stl10-unlabeled"] == store_names()
        for store in stores:
            np.testing.assert_array_equal(store.images_NHWC, images)
        assert names(training_stores(DataConfig(name="stl10"))) == ["stl10-unlabeled"]
        assert validation_store(DataConfig(name="stl10")).name == "stl10-train"

    @pytest.mark.parametrize("size", [0, 96 * 96 * 3 - 1, 96 * 96 * 3 + 1])
    def test_a_file_cut_short_is_named(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "train_X.bin").write_bytes(bytes(size))
        with pytest.raises(UserError, match=r"train_X\.bin is not a whole number of 96x96 images"):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path, no_progress)

    def test_labels_for_other_images(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "stl10")
        (tmp_path / "stl10" / "train_y.bin").write_bytes(bytes([1, 2, 3]))
        with pytest.raises(UserError, match="2 ids but 3 labels"):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10", no_progress)

    def test_missing_class_names_are_a_users_mistake(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "stl10")
        (tmp_path / "stl10" / "class_names.txt").unlink()
        with pytest.raises(UserError, match=r"class_names\.txt"):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10", no_progress)

    def test_missing_labels_are_no_split_without_classes(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "stl10")
        (tmp_path / "stl10" / "test_y.bin").unlink()
        with pytest.raises(UserError, match=r"test_y\.bin is missing; fetch it from the same archive"):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10", no_progress)

    def test_two_classes_of_one_name(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "stl10")
        (tmp_path / "stl10" / "class_names.txt").write_text("bird\n" * 10)
        with pytest.raises(UserError, match='two classes of STL-10 train have the name "bird"'):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10", no_progress)

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [("twice", r"class_names\.txt in .* is there twice; fetch it again"), ("short", r"gz/train_y\.bin: ")],
    )
    def test_a_spoilt_archive_is_named_and_no_hidden_place(self, tmp_path: Path, spoil: str, says: str) -> None:
        stl10_folder(tmp_path / "stl10")
        if spoil == "short":
            (tmp_path / "stl10" / "train_y.bin").write_bytes(b"\1")
        with tarfile.open(tmp_path / "stl10_binary.tar.gz", "w:gz") as archive:
            for place in ("a", "b") if spoil == "twice" else ("a",):
                archive.add(tmp_path / "stl10", place)
        with pytest.raises(UserError, match=says):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10_binary.tar.gz", no_progress)

    def test_an_archive_on_a_failing_disk_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stl10_folder(tmp_path / "made" / "stl10_binary")
        archive = Path(shutil.make_archive(str(tmp_path / "stl10_binary"), "gztar", tmp_path / "made"))

        read = gzip.GzipFile.read

        def fail(file: gzip.GzipFile, size: int = -1) -> bytes:
            if file.tell() > 2**15:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(file, size)

        monkeypatch.setattr(gzip.GzipFile, "read", fail)
        with pytest.raises(UserError, match=r"tar\.gz cannot be read \(Input/output error\); check the disk"):
            DATASETS["stl10"].prepare(tmp_path / "data", archive, no_progress)

    def test_without_a_network_the_way_round_is_named(self, tmp_path: Path, no_download: None) -> None:
        with pytest.raises(UserError, match=r"no network here.*`moe data prepare stl10 --source FOLDER`"):
            DATASETS["stl10"].prepare(tmp_path / "data", None, no_progress)
        assert store_names() == []

    def test_the_archive_is_read_as_it_is_downloaded(self, tmp_path: Path) -> None:
        """Given itself, and in the folder into which torchvision loads it."""
        images = stl10_folder(tmp_path / "made" / "stl10_binary")
        shutil.make_archive(str(tmp_path / "stl10_binary"), "gztar", tmp_path / "made")
        for source in (tmp_path / "stl10_binary.tar.gz", tmp_path):
            stores = DATASETS["stl10"].prepare(tmp_path / "data", source, no_progress)
            assert names(stores) == ["stl10-train", "stl10-test", "stl10-unlabeled"]
            np.testing.assert_array_equal(stores[0].images_NHWC, images)
            assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(names(stores))

    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
    def test_half_an_archive_is_named(self, tmp_path: Path, kept: float) -> None:
        stl10_folder(tmp_path / "made" / "stl10_binary")
        archive = Path(shutil.make_archive(str(tmp_path / "stl10_binary"), "gztar", tmp_path / "made"))
        data = archive.read_bytes()
        archive.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(UserError, match=r"stl10_binary\.tar\.gz is damaged .*; fetch it again"):
            DATASETS["stl10"].prepare(tmp_path / "data", archive, no_progress)
        assert list((tmp_path / "data").iterdir()) == []

    def test_an_import_of_it_names_the_right_command(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "my stl10" / "stl10_binary")
        with pytest.raises(UserError, match=r"run `moe data prepare stl10 --source '.*/my stl10'`"):
            import_images("mine", tmp_path / "my stl10")

    def test_one_damaged_split_leaves_all_as_they_were(self, tmp_path: Path) -> None:
        stl10_folder(tmp_path / "stl10")
        (tmp_path / "stl10" / "unlabeled_X.bin").write_bytes(b"short")
        with pytest.raises(UserError, match=r"unlabeled_X\.bin"):
            DATASETS["stl10"].prepare(tmp_path / "data", tmp_path / "stl10", no_progress)
        assert store_names() == []

    @pytest.mark.slow
    def test_real_images_have_the_official_checksum(self, shared_data: Path) -> None:
        """Imported from the zip and laid out again as official bytes, column by column."""
        folder = shared_data / "stl10"
        store = import_images("real", folder / "train5000_lossless_webp.zip", labels=folder / "train_y.bin",
                              classes=folder / "class_names.txt", size=96)  # fmt: skip
        assert store.images_NHWC.shape == (5000, 96, 96, 3)
        checksum = hashlib.md5(usedforsecurity=False)
        for image_HWC in store.images_NHWC:
            checksum.update(np.ascontiguousarray(image_HWC.transpose(2, 1, 0)))
        assert checksum.hexdigest() == "918c2871b30a85fa023e0c44e0bee87f"
        assert np.bincount(store.labels_N).tolist() == [500] * 10
        assert store.manifest.classes == NAMES
        np.testing.assert_array_equal(store.labels_N + 1, np.frombuffer((folder / "train_y.bin").read_bytes(), "u1"))


class TestThings:
    def test_cannot_be_downloaded(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="pass --source FOLDER with images/"):
            DATASETS["things"].prepare(tmp_path / "data", None, no_progress)

    def test_import_recognises_the_layout(self, tmp_path: Path) -> None:
        store = import_images("objects", things_folder(tmp_path / "things"))
        assert store.groups == ["apple", "drum"]
        np.testing.assert_array_equal(store.factors_NF, np.eye(2))


class TestImport:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        encoded = io.BytesIO()
        Image.new("RGB", (20, 20), (9, 8, 7)).save(encoded, "png")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("cat/a.png", encoded.getvalue())
            file.writestr("dog/b.png", encoded.getvalue())
        return tmp_path / "a.zip"

    def test_makes_a_store_that_is_found_by_name(self, archive: Path) -> None:
        import_images("mine", archive, size=16)
        store = open_store("mine")
        assert store.images_NHWC.shape == (2, 16, 16, 3)
        assert store.manifest.classes == ["cat", "dog"]
        assert names(training_stores(DataConfig(name="mine"))) == ["mine"]

    def test_a_taken_name_is_refused_before_anything_is_read(self, archive: Path) -> None:
        make("mine")
        with pytest.raises(UserError, match=r'images named "mine" exist in .* already; pass --force'):
            import_images("mine", Path("nowhere"))
        assert len(import_images("mine", archive, replace=True)) == 2

    @pytest.mark.parametrize(
        "name",
        [
            "synthetic",
            "synthetic-train",
            "synthetic-val",
            "stl10",
            "stl10-train",
            "stl10-test",
            "stl10-unlabeled",
            "things",
            "STL10-Train",
            "Things",
        ],
    )
    def test_names_of_known_datasets_are_refused(self, archive: Path, name: str) -> None:
        key = name.casefold().split("-", maxsplit=1)[0]
        with pytest.raises(UserError, match=f'"{name}" belongs to the known dataset {key} .`moe data prepare {key}'):
            import_images(name, archive, replace=True)
        assert store_names() == []

    def test_things_may_be_imported_under_its_own_name(self, tmp_path: Path) -> None:
        assert import_images("things", things_folder(tmp_path / "copy")).groups == ["apple", "drum"]

    def test_a_failed_import_keeps_the_old_images(self, tmp_path: Path) -> None:
        make("mine")
        (tmp_path / "a.png").write_text("no image")
        with pytest.raises(UserError):
            import_images("mine", tmp_path, replace=True)
        assert len(open_store("mine")) == 3


class TestChoice:
    @pytest.mark.parametrize(
        ("name", "stores"),
        [
            ("mine", ["mine"]),
            ("mine+other", ["mine", "other"]),
            ("other+mine", ["other", "mine"]),
            ("things", ["things"]),
            ("stl10+mine", ["stl10-unlabeled", "mine"]),
            ("stl10-train+stl10-unlabeled", ["stl10-train", "stl10-unlabeled"]),
        ],
    )
    def test_training(self, name: str, stores: list[str]) -> None:
        make("mine", "other", "things", "stl10-unlabeled", "stl10-train")
        assert names(training_stores(DataConfig(name=name))) == stores

    @pytest.mark.parametrize(
        ("name", "validation", "store"),
        [
            ("mine", None, "mine"),
            ("mine+other", None, "mine"),
            ("stl10", None, "stl10-train"),
            ("stl10+mine", None, "stl10-train"),
            ("things", None, "things"),
            ("stl10", "other", "other"),
            ("mine", "stl10", "stl10-train"),
        ],
    )
    def test_validation(self, name: str, validation: str | None, store: str) -> None:
        make("mine", "other", "things", "stl10-unlabeled", "stl10-train")
        assert validation_store(DataConfig(name=name, validation=validation)).name == store

    @pytest.mark.parametrize(
        ("prepared", "asked", "name", "stores"),
        [
            ("stl10-train stl10-test things", [], "stl10", ["stl10-test", "things"]),
            ("stl10-train stl10-test", [], "stl10", ["stl10-test"]),
            ("stl10-train things", [], "stl10", ["stl10-train", "things"]),
            ("stl10-train", [], "stl10", ["stl10-train"]),
            ("things", [], "things", ["things"]),
            ("mine other", [], "mine", ["mine"]),
            ("mine other", [], "other+mine", ["other"]),
            ("mine other", ["other"], "mine", ["other"]),
            ("mine stl10-test", ["stl10", "mine", "stl10-test", "mine"], "mine", ["stl10-test", "mine"]),
        ],
    )
    def test_probes(self, prepared: str, asked: list[str], name: str, stores: list[str]) -> None:
        make(*prepared.split())
        assert names(probe_stores(asked, DataConfig(name=name))) == stores

    def test_probes_watch_the_validation_images_that_the_run_chose(self) -> None:
        make("mine", "other")
        assert names(probe_stores([], DataConfig(name="mine", validation="other"))) == ["other"]

    def test_probes_of_synthetic_images_make_them(self, small_synthetic: None) -> None:
        assert names(probe_stores([], DataConfig(name="synthetic"))) == ["synthetic-val"]

    def test_probes_of_unknown_images(self) -> None:
        make("mine")
        with pytest.raises(UserError, match=r'no images named "miine".*did you mean "mine"'):
            probe_stores(["miine"], DataConfig(name="mine"))


class TestAvailability:
    @pytest.mark.parametrize("name", ["mine", "mine+other", "synthetic", "synthetic+mine"])
    def test_images_that_are_there_pass(self, name: str, small_synthetic: None) -> None:
        make("mine", "other")
        check_available(DataConfig(name=name))
        check_available(DataConfig(name=name, validation="other"))

    @pytest.mark.parametrize(
        ("name", "validation", "missing"), [("miine", None, "miine"), ("mine+miine", None, "miine"), ("mine", "x", "x")]
    )
    def test_unknown_images_name_the_import_command(self, name: str, validation: str | None, missing: str) -> None:
        make("mine")
        with pytest.raises(
            UserError, match=rf'unknown images "{missing}": .*`moe data import {missing} PATH`'
        ) as error:
            check_available(DataConfig(name=name, validation=validation))
        assert ('did you mean "mine"?' in str(error.value)) == (missing == "miine")

    @pytest.mark.parametrize("name", ["stl10", "stl10-train", "things", "mine+stl10"])
    def test_known_images_that_are_not_prepared_name_the_prepare_command(self, name: str) -> None:
        make("mine")
        dataset = "things" if name == "things" else "stl10"
        with pytest.raises(UserError, match=rf"not prepared; run `moe data prepare {dataset}`"):
            check_available(DataConfig(name=name))

    def test_a_validation_dataset_that_is_not_prepared(self) -> None:
        make("mine")
        with pytest.raises(UserError, match="run `moe data prepare stl10`"):
            check_available(DataConfig(name="mine", validation="stl10"))

    def test_half_of_stl10_is_not_enough(self) -> None:
        make("stl10-train")
        with pytest.raises(UserError, match=r'"stl10-unlabeled" are not prepared; run `moe data prepare stl10`'):
            check_available(DataConfig(name="stl10"))

    def test_validation_images_are_checked_too(self) -> None:
        make("stl10-unlabeled")
        with pytest.raises(UserError, match=r'"stl10-train" are not prepared'):
            check_available(DataConfig(name="stl10"))
