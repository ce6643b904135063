"""Image stores: what is written is what is read, complete or not at all, and damage is found."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moe.data import staging, store
from moe.data.pixels import channel_statistics, chunks
from moe.data.store import Images, ImageStore, data_root, open_all, store_names, write_store
from moe.errors import UserError


def content(count: int = 5, seed: int = 0) -> Images:
    """Random images with everything that a store can keep; one is unlabelled and unrated."""
    rng = np.random.default_rng(seed)
    factors_NF = rng.random((count, 2)).astype(np.float32)
    factors_NF[-1] = np.nan
    return Images(
        images_NHWC=rng.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8),
        ids=[f"folder/picture {number} é" for number in range(count)],
        source="drawn at random",
        labels_N=np.array([*(np.arange(count - 1) % 2), -1]),
        classes=("cat", "dog, Dogge"),
        factors_NF=factors_NF,
        factors=("round", "red"),
        groups=[f"concept {number // 2}" for number in range(count)],
        notes=("one is unlabelled",),
    )


def everything_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


class TestRoundTrip:
    def test_every_field(self) -> None:
        written = content()
        write_store("mine", written)
        read = ImageStore.open("mine")
        assert read.name == "mine"
        assert len(read) == 5
        np.testing.assert_array_equal(read.images_NHWC, written.images_NHWC)
        np.testing.assert_array_equal(read.labels_N, written.labels_N)
        np.testing.assert_array_equal(read.factors_NF, written.factors_NF)
        assert read.images_NHWC.dtype == np.uint8
        assert read.labels_N.dtype == np.int64
        assert read.factors_NF is not None
        assert read.factors_NF.dtype == np.float32
        assert read.ids == written.ids
        assert read.groups == written.groups
        manifest = read.manifest
        assert (manifest.count, manifest.height, manifest.width) == (5, 6, 8)
        assert manifest.classes == ["cat", "dog, Dogge"]
        assert manifest.factors == ["round", "red"]
        assert manifest.source == "drawn at random"
        assert manifest.notes == ["one is unlabelled"]
        assert (manifest.mean, manifest.sd) == channel_statistics(written.images_NHWC)

    def test_images_alone(self) -> None:
        written = content()
        read = write_store("bare", Images(written.images_NHWC, written.ids, "nowhere"))
        assert read.labels_N.tolist() == [-1] * 5
        assert read.factors_NF is None
        assert read.groups is None
        assert read.manifest.classes == []
        assert everything_in(read.path) == ["ids.json", "images.npy", "labels.npy", "manifest.json"]

    def test_images_are_mapped_not_read(self) -> None:
        assert isinstance(write_store("mine", content()).images_NHWC, np.memmap)

    def test_plain_numpy_and_json_read_it_without_pickle(self) -> None:
        path = write_store("mine", content()).path
        for name in ("images", "labels", "factors"):
            assert len(np.load(path / f"{name}.npy", allow_pickle=False)) == 5
        assert len(json.loads((path / "ids.json").read_text())) == 5
        assert json.loads((path / "manifest.json").read_text())["count"] == 5

    def test_transposed_views_are_written_as_they_look(self) -> None:
        written = content()
        turned = replace(written, images_NHWC=written.images_NHWC.transpose(0, 2, 1, 3))
        read = write_store("turned", turned)
        np.testing.assert_array_equal(read.images_NHWC, turned.images_NHWC)
        assert (read.manifest.height, read.manifest.width) == (8, 6)

    def test_root_is_moe_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert write_store("mine", content()).path == tmp_path / "data" / "mine"
        monkeypatch.delenv("MOE_DATA")
        assert data_root() == Path("data")
        monkeypatch.setenv("MOE_DATA", "~/images")
        assert data_root() == Path.home() / "images"

    def test_digest_depends_on_the_content_alone(self) -> None:
        digests = [write_store(name, content(seed=seed)).digest() for name, seed in [("a", 0), ("b", 0), ("c", 1)]]
        assert digests[0] == digests[1] != digests[2]


class TestDamage:
    def test_an_intact_store_passes(self) -> None:
        write_store("mine", content()).verify()

    @pytest.mark.parametrize("file", ["images.npy", "labels.npy", "ids.json", "groups.json", "factors.npy"])
    def test_one_changed_byte_is_found_and_the_file_named(self, file: str) -> None:
        read = write_store("mine", content())
        path = read.path / file
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"{file} differs from its checksum; import the images again"):
            read.verify()

    @pytest.mark.parametrize("file", ["images.npy", "groups.json"])
    def test_a_missing_file_is_named(self, file: str) -> None:
        read = write_store("mine", content())
        (read.path / file).unlink()
        with pytest.raises(UserError, match=rf"{file} is missing"):
            read.verify()

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
    def test_a_damaged_manifest(self, text: str) -> None:
        path = write_store("mine", content()).path
        (path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            ImageStore.open("mine")

    def test_a_folder_that_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is no image store"):
            ImageStore(tmp_path)

    @pytest.mark.parametrize(
        "file", ["images.npy", "labels.npy", "ids.json", "groups.json", "factors.npy", "manifest.json"]
    )
    @pytest.mark.parametrize("damage", ["empty", "half", "other", "missing"])
    def test_hides_no_other_store_and_is_named(self, tmp_path: Path, file: str, damage: str) -> None:
        for name in ("a", "b", "c"):
            write_store(name, content())
        path = tmp_path / "data" / "b" / file
        if damage == "missing":
            path.unlink()
        else:
            data = path.read_bytes()
            path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "other": b"[1, 2, 3]"}[damage])
        stores, damaged = open_all()
        gone = damage == "missing" and file in ("groups.json", "factors.npy")  # optional: `verify` misses them
        if damage == "missing" and file == "manifest.json":
            assert [store.name for store in stores] == ["a", "c"]
            return
        assert [store.name for store in stores] == (["a", "b", "c"] if gone else ["a", "c"])
        with pytest.raises(UserError, match=rf"b/{file} (is|differs).*; import the images again with --force"):
            ImageStore.open("b").verify()
        if not gone:
            assert [one.name for one in damaged] == ["b"]
            assert f"b/{file} is" in damaged[0].problem
            assert "import the images again with --force" in damaged[0].problem

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"count": 0}, "count"), ({"count": -5}, "count"), ({"format": 2}, "format"),
            ({"mean": [0.5, None, 0.5]}, "mean"),
            ({"sd": [9, 9, 9]}, "sd"), ({"extra": 1}, "extra"),
            ({"sha256": {"../../etc/passwd": ""}}, "which no store has"),
            ({"sha256": {}}, "lacks the checksum"), ({"height": 10**6}, "images.npy"),
            ({"height": 10**9}, "height"), ({"classes": []}, "labels.npy"),
        ],
    )  # fmt: skip
    def test_a_manifest_that_says_something_else(self, change: dict[str, object], says: str) -> None:
        file = write_store("mine", content()).path / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(UserError, match=rf"is damaged \(.*{says}|{says}.* is damaged") as error:
            ImageStore.open("mine").check()
        assert "\n" not in str(error.value)

    def test_a_store_of_the_first_version_stays_readable(self, tmp_path: Path) -> None:
        """As it was written before notes could list what was left out; runs record the digest."""
        path = tmp_path / "data" / "early"
        path.mkdir(parents=True)
        np.save(path / "images.npy", np.zeros((2, 4, 4, 3), np.uint8))
        np.save(path / "labels.npy", np.array([0, -1]))
        (path / "ids.json").write_text('["a", "b"]')
        sums = {file.name: store.sha256(file) for file in path.iterdir()}
        (path / "manifest.json").write_text(
            json.dumps({"format": 1, "name": "early", "count": 2, "height": 4, "width": 4, "classes": ["x"],
                        "factors": [], "mean": [0.0] * 3, "sd": [0.0] * 3, "source": "drawn",
                        "notes": [], "sha256": sums})
        )  # fmt: skip
        read = ImageStore.open("early")
        read.verify()
        assert read.digest() == "8f783a30451786dd21c2749f51e9465a7d1a2ab83b5a116a939cfeb639575a82"
        again = write_store(
            "again", Images(np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"], "drawn", np.array([0, -1]), ("x",))
        )
        assert again.digest() == read.digest()
        assert "left_out" not in (again.path / "manifest.json").read_text()


class TestReplacing:
    def test_a_taken_name_is_refused_and_left_alone(self) -> None:
        before = write_store("mine", content(seed=0)).digest()
        with pytest.raises(UserError, match=r'images named "mine" exist in .* already; pass --force to replace'):
            write_store("mine", content(seed=1))
        assert ImageStore.open("mine").digest() == before

    def test_replace_leaves_only_the_new_store(self, tmp_path: Path) -> None:
        write_store("mine", content(7, seed=0))
        old = content()
        write_store("mine", Images(old.images_NHWC, old.ids, "again"), replace=True)
        read = ImageStore.open("mine")
        assert len(read) == 5
        assert read.factors_NF is None  # no file of the old store shines through
        assert everything_in(tmp_path / "data") == ["mine"]
        read.verify()

    def test_replace_without_anything_to_replace(self) -> None:
        assert len(write_store("new", content(), replace=True)) == 5

    def test_an_open_store_can_be_read_on_while_it_is_replaced(self) -> None:
        old = write_store("mine", content(seed=0))
        images = old.images_NHWC
        write_store("mine", content(seed=1), replace=True)
        np.testing.assert_array_equal(images, content(seed=0).images_NHWC)


class TestAllOrNothing:
    @pytest.mark.parametrize("step", ["save", "channel_statistics"])
    @pytest.mark.parametrize("existing", [False, True], ids=["new", "replaced"])
    def test_a_failed_write_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, existing: bool
    ) -> None:
        before = write_store("mine", content(seed=0)).digest() if existing else None
        real, calls = np.save, []

        def full(*args: object) -> None:
            calls.append(args)
            if step == "channel_statistics" or len(calls) > 1:  # images.npy is there, labels.npy fails
                raise OSError(28, "No space left on device")
            real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(*((np, "save") if step == "save" else (store, "channel_statistics")), full)
            with pytest.raises(UserError, match=r"cannot be written to .*No space left.*MOE_DATA"):
                write_store("mine", content(seed=1), replace=existing)
        assert everything_in(tmp_path / "data") == (["mine"] if existing else [])
        if existing:
            assert ImageStore.open("mine").digest() == before

    def test_a_replacement_that_cannot_be_moved_into_place_keeps_the_old_store(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = write_store("mine", content(seed=0)).digest()
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            if Path(target).name == "mine" and not self.name.endswith("-old"):
                raise OSError(5, "Input/output error")
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            patch.setattr(staging, "_exchanged", lambda *_: False)
            with pytest.raises(OSError, match="Input/output error"):
                write_store("mine", content(seed=1), replace=True)
        assert ImageStore.open("mine").digest() == before

    def test_contradictory_content_writes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError):
            write_store("mine", replace(content(), ids=["one"]))
        assert everything_in(tmp_path / "data") == []


class TestNames:
    @pytest.mark.parametrize("name", ["a", "stl10-train", "my_images", "2024", "v1.5"])
    def test_allowed(self, name: str) -> None:
        write_store(name, content())
        assert store_names() == [name]

    @pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/a", "a/", "a+b"])
    def test_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match="cannot name a store"):
            write_store(name, content(), replace=True)
        assert everything_in(tmp_path / "data") == []

    def test_are_sorted_and_hidden_or_unfinished_folders_ignored(self, tmp_path: Path) -> None:
        assert store_names() == []
        for name in ("b", "a"):
            write_store(name, content())
        (tmp_path / "data" / "a").rename(tmp_path / "data" / ".a-1234-old")
        (tmp_path / "data" / "unfinished").mkdir()
        (tmp_path / "data" / "a file").touch()
        write_store("a", content())
        assert store_names() == ["a", "b"]
        stores, damaged = open_all()
        assert [read.name for read in stores] == ["a", "b"]
        assert damaged == []


class TestContradictions:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images_NHWC": np.zeros((5, 6, 8, 3), np.float32)}, r"must be uint8 .* not float32 \(5, 6, 8, 3\)"),
            ({"images_NHWC": np.zeros((5, 6, 8), np.uint8)}, r"of shape \(N, H, W, 3\), not uint8 \(5, 6, 8\)"),
            ({"images_NHWC": np.zeros((5, 3, 8, 6), np.uint8)}, r"not uint8 \(5, 3, 8, 6\)"),
            ({"images_NHWC": np.zeros((4, 6, 8, 3), np.uint8)}, "5 ids but 4 images"),
            ({"images_NHWC": np.zeros((0, 6, 8, 3), np.uint8), "ids": []}, "no images found in drawn at random"),
            ({"labels_N": np.zeros(6, np.int64)}, "5 ids but 6 labels"),
            ({"factors_NF": np.zeros((3, 2), np.float32)}, "5 ids but 3 factor rows"),
            ({"groups": ["one"]}, "5 ids but 1 groups"),
            ({"ids": ["a", "b", "c", "d", "a"]}, "two images have the same id"),
            ({"labels_N": np.array([0, 1, 2, 0, 1])}, "label 2 but 2 class names"),
            ({"classes": ()}, "label 1 but 0 class names"),
            ({"factors": ("round",)}, "factor"),
        ],
    )
    def test_are_refused(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(UserError, match=message):
            write_store("mine", replace(content(), **change))


class TestMissing:
    def test_a_near_name_is_suggested_with_the_commands(self) -> None:
        write_store("my-images", content())
        with pytest.raises(UserError, match=r'no images named "my-imgaes".*did you mean "my-images"\?') as error:
            ImageStore.open("my-imgaes")
        assert "`moe data prepare my-imgaes`" in str(error.value)
        assert "`moe data import my-imgaes PATH`" in str(error.value)

    def test_otherwise_all_are_listed(self) -> None:
        with pytest.raises(UserError, match="none exist yet"):
            ImageStore.open("anything")
        for name in ("faces", "cars"):
            write_store(name, content())
        with pytest.raises(UserError, match="known are: cars, faces"):
            ImageStore.open("zzz")


class TestChannelStatistics:
    def test_equal_numpy_over_several_pieces(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2500, 4, 4, 3), dtype=np.uint8)
        images[..., 1] //= 4
        images[1100:, ..., 2] = 255
        assert [len(piece) for piece in chunks(images)] == [1024, 1024, 452]
        mean, sd = channel_statistics(images)
        whole = images.reshape(-1, 3).astype(np.float64) / 255
        np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(sd, whole.std(axis=0), rtol=1e-12)

    @pytest.mark.parametrize("count", [1, 1023, 1024, 1025])
    def test_equal_numpy_at_the_edges_of_a_piece(self, count: int) -> None:
        images = np.random.default_rng(count).integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)
        assert sum(len(piece) for piece in chunks(images)) == count
        mean, sd = channel_statistics(images)
        np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, rtol=1e-12)
        np.testing.assert_allclose(sd, images.std(axis=(0, 1, 2)) / 255, rtol=1e-12)

    @pytest.mark.parametrize("value", [0, 79, 255])
    def test_a_constant_channel_has_no_spread(self, value: int) -> None:
        mean, sd = channel_statistics(np.full((50, 4, 4, 3), value, np.uint8))
        assert mean == pytest.approx([value / 255] * 3)
        np.testing.assert_allclose(sd, 0, atol=1e-6)
