"""Reading a user's images and labels: folders, zips, arrays; sizes, colours, order; and what to say when it fails."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moe.data.labels import read_labels
from moe.data.readers import ReadOptions, read_images
from moe.data.store import Images, write_store
from moe.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def imported(path: Path, *, labels: Path | None = None, classes: Path | None = None, **options: Any) -> Images:
    return read_images(path, ReadOptions(**options), labels=labels, classes=classes)


def save(path: Path, colour: tuple[int, ...] | int = RED, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def flat(folder: Path, *names: str) -> Path:
    """A folder of images of one colour each, the n-th with red n."""
    for number, name in enumerate(names):
        save(folder / name, (number, 0, 0))
    return folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two class folders, two images each, and things that are no images."""
    for name, colour in (("dog/9.png", RED), ("dog/10.png", GREEN), ("cat/b.PNG", BLUE), ("cat/a.bmp", RED)):
        save(tmp_path / "pets" / name, colour)
    (tmp_path / "pets" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / "cat" / "._a.png").write_bytes(b"what macOS leaves behind")
    return tmp_path / "pets"


class TestSources:
    def test_class_folders(self, pets: Path) -> None:
        read = imported(pets)
        assert read.ids == ["cat/a", "cat/b", "dog/9", "dog/10"]
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [0, 0, 1, 1]
        assert read.classes == ("cat", "dog")
        assert read.images_NHWC.shape == (4, 20, 20, 3)
        assert read.images_NHWC.dtype == np.uint8
        assert [tuple(image[3, 3]) for image in read.images_NHWC] == [RED, BLUE, RED, GREEN]
        assert read.source == "imported from pets"

    def test_a_flat_folder_has_no_labels(self, tmp_path: Path) -> None:
        read = imported(flat(tmp_path / "all", "a.png", "b.png"))
        assert read.ids == ["a", "b"]
        assert read.labels_N is None
        assert read.classes == ()

    def test_class_folders_of_different_depth_and_of_one_name_are_noted(self, tmp_path: Path) -> None:
        for name in ("cat/grey/a.png", "cat/black/b.png", "dog/c.png", "Dog/d.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        read = imported(tmp_path)
        assert read.classes == ("Dog", "black", "dog", "grey")
        assert read.notes == (
            "images lie in folders of different depth, as dog/c.png, cat/grey/a.png; the nearest folder is the class",
            "classes that differ in case, spaces or look-alikes alone: Dog, dog",
        )

    def test_one_class_folder_is_no_label(self, tmp_path: Path) -> None:
        assert imported(flat(tmp_path, "only/a.png", "only/b.png")).labels_N is None

    def test_a_zip_gives_what_its_folder_gives(self, pets: Path, tmp_path: Path) -> None:
        archive = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", pets))
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("__MACOSX/cat/a.png", b"rubbish")
        folder, zipped = imported(pets), imported(archive)
        np.testing.assert_array_equal(zipped.images_NHWC, folder.images_NHWC)
        np.testing.assert_array_equal(zipped.labels_N, folder.labels_N)
        assert (zipped.ids, zipped.classes) == (folder.ids, folder.classes)
        assert zipped.source == "imported from zipped.zip"

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_an_array(self, tmp_path: Path, suffix: str) -> None:
        images, path = noise(3, 8, 8, 3), tmp_path / f"images{suffix}"
        if suffix == ".npy":
            np.save(path, images)
        else:
            np.savez(path, anything=images)
        read = imported(path)
        np.testing.assert_array_equal(read.images_NHWC, images)
        assert read.ids == ["000000", "000001", "000002"]
        assert read.labels_N is None

    def test_the_array_called_images_among_several(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", other=np.zeros(3), images=noise(3, 8, 8, 3))
        np.testing.assert_array_equal(imported(tmp_path / "a.npz").images_NHWC, noise(3, 8, 8, 3))

    def test_an_array_with_labels(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", noise(3, 8, 8, 3))
        np.save(tmp_path / "y.npy", np.array([7, 3, 7]))
        read = imported(tmp_path / "x.npy", labels=tmp_path / "y.npy")
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [1, 0, 1]
        assert read.classes == ("3", "7")

    def test_natural_order(self, tmp_path: Path) -> None:
        names = ["10.png", "9.png", "1.png", "a2/10.png", "a2/9.png", "a10/1.png", "img10b.png", "img9b.png"]
        read = imported(flat(tmp_path, *names))
        assert read.ids == ["1", "9", "10", "a2/9", "a2/10", "a10/1", "img9b", "img10b"]
        reds = [int(image[0, 0, 0]) for image in read.images_NHWC]
        assert reds == [names.index(f"{name}.png") for name in read.ids]  # pixels travel with their names

    def test_progress_counts_every_image(self, pets: Path) -> None:
        seen: list[tuple[int, int]] = []
        imported(pets, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


class TestSizes:
    @pytest.mark.parametrize(
        ("sizes", "asked", "side"),
        [
            ([(20, 20), (20, 20)], None, 20),
            ([(20, 20), (24, 24)], None, 96),
            ([(20, 24), (20, 24)], None, 96),
            ([(20, 20), (20, 20)], 32, 32),
            ([(20, 24), (64, 30)], 16, 16),
        ],
        ids=["one square size", "two sizes", "one oblong size", "asked for", "asked for mixed"],
    )
    def test_side(self, tmp_path: Path, sizes: list[tuple[int, int]], asked: int | None, side: int) -> None:
        for number, size in enumerate(sizes):
            save(tmp_path / f"{number}.png", size=size)
        assert imported(tmp_path, size=asked).images_NHWC.shape == (2, side, side, 3)

    def test_native_size_is_read_exactly(self, tmp_path: Path) -> None:
        Image.fromarray(noise(20, 20, 3)).save(tmp_path / "a.png")
        np.testing.assert_array_equal(imported(tmp_path).images_NHWC[0], noise(20, 20, 3))

    def test_the_centre_is_kept(self, tmp_path: Path) -> None:
        picture = Image.new("RGB", (60, 20), RED)
        picture.paste(GREEN, (20, 0, 40, 20))
        picture.save(tmp_path / "wide.png")
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
        for image in imported(tmp_path, size=20).images_NHWC:
            assert (image[:, 2:-2] == GREEN).all() or (image[2:-2] == GREEN).all()

    def test_scaling_down_averages_and_does_not_skip(self, tmp_path: Path) -> None:
        checks = (np.indices((64, 64)).sum(axis=0) % 2)[..., None].repeat(3, axis=-1)
        Image.fromarray((checks * 255).astype(np.uint8)).save(tmp_path / "fine.png")
        image = imported(tmp_path, size=16).images_NHWC[0]
        assert np.abs(image.astype(int) - 127).max() < 12

    def test_an_arrays_size_is_what_was_asked_for(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", noise(3, 32, 32, 3))
        assert imported(tmp_path / "x.npy", size=16).images_NHWC.shape == (3, 16, 16, 3)


class TestColours:
    @pytest.mark.parametrize(
        ("mode", "colour", "expected"),
        [
            ("L", 100, (100, 100, 100)),
            ("1", 1, (255, 255, 255)),
            ("P", 1, (10, 20, 30)),
            ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
            ("LA", (100, 255), (100, 100, 100)),
        ],
    )
    def test_other_modes_become_rgb(self, tmp_path: Path, mode: str, colour: int, expected: tuple[int, ...]) -> None:
        image = Image.new(mode, (20, 20), colour)
        if mode == "P":
            image.putpalette([0, 0, 0, 10, 20, 30])
        image.save(tmp_path / "a.png")
        assert (imported(tmp_path).images_NHWC == expected).all()

    def test_a_palette_with_several_transparent_colours(self, tmp_path: Path) -> None:
        image = Image.new("P", (20, 20), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
        assert (imported(tmp_path).images_NHWC == (10, 20, 30)).all()

    def test_cmyk(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg", (0, 255, 255, 0), mode="CMYK")
        assert np.abs(imported(tmp_path).images_NHWC.astype(int) - RED).max() < 8

    def test_sixteen_bit_grey_keeps_its_brightness(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((20, 20), 30_000, np.uint16)).save(tmp_path / "a.png")
        assert np.abs(imported(tmp_path).images_NHWC.astype(int) - 30_000 / 257).max() <= 1

    def test_exif_rotation_is_undone(self, tmp_path: Path) -> None:
        picture = Image.new("RGB", (32, 32), BLUE)
        picture.paste(RED, (0, 0, 32, 16))  # red on top
        stored = picture.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # turn clockwise to view
        stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
        image = imported(tmp_path).images_NHWC[0].astype(int)
        assert np.abs(image[:12] - RED).max() < 30
        assert np.abs(image[20:] - BLUE).max() < 30


class TestLabelFiles:
    @pytest.mark.parametrize(
        ("rows", "delimiter"),
        [
            (["dog/9.png,hund", "cat/a.bmp,katze", "dog/10.png,hund", "cat/b.PNG,katze"], ","),
            (["dog/9,hund", "cat/a,katze", "dog/10,hund", "cat/b,katze"], ","),
            (["9.png,hund", "a.bmp,katze", "10.png,hund", "b.PNG,katze"], ","),
            (["9,hund", "a,katze", "10,hund", "b,katze"], ","),
            (["9\thund", "a\tkatze", "10\thund", "b\tkatze"], "\t"),
        ],
        ids=["folder and suffix", "folder", "suffix", "bare", "tsv"],
    )
    def test_csv_names_images_with_or_without_folder_and_suffix(
        self, pets: Path, tmp_path: Path, rows: list[str], delimiter: str
    ) -> None:
        file = tmp_path / ("labels.tsv" if delimiter == "\t" else "labels.csv")
        file.write_text("\n".join([delimiter.join(["image", "label"]), *rows]))
        read = imported(pets, labels=file)
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [1, 1, 0, 0]
        assert read.classes == ("hund", "katze")

    def test_csv_leaves_unlisted_images_unlabelled(self, pets: Path, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text('image,label,more\n9,"big, brown",x\nb,small,y\nelsewhere,huge,z\n')
        read = imported(pets, labels=tmp_path / "labels.csv")
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [-1, 1, 0, -1]
        assert read.classes == ("big, brown", "small")

    def test_csv_with_a_dot_inside_a_name(self, tmp_path: Path) -> None:
        folder = flat(tmp_path / "images", "scan.1.png", "scan.2.png")
        (tmp_path / "labels.csv").write_text("image,label\nscan.1,a\nscan.2,b\n")
        assert imported(folder, labels=tmp_path / "labels.csv").classes == ("a", "b")

    def test_txt_npy_and_bin_are_in_image_order(self, pets: Path, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("2\n10\n9\n10\n")
        np.save(tmp_path / "b.npy", np.array([2, 10, 9, 10]))
        (tmp_path / "c.bin").write_bytes(bytes([2, 10, 9, 10]))
        for name in ("a.txt", "b.npy", "c.bin"):
            read = imported(pets, labels=tmp_path / name)
            assert read.labels_N is not None
            assert read.labels_N.tolist() == [0, 2, 1, 2], name  # numbers sort by value
            assert read.classes == ("2", "9", "10"), name

    def test_an_empty_line_is_an_unknown_label(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x\n\ny\n")
        assert read_labels(tmp_path / "a.txt", ["1", "2", "3"]).values == ["x", "", "y"]

    def test_class_names_come_in_the_order_of_the_label_values(self, pets: Path, tmp_path: Path) -> None:
        (tmp_path / "y.bin").write_bytes(bytes([10, 2, 2, 10]))
        (tmp_path / "names.txt").write_text("two\nten\n\n")
        read = imported(pets, labels=tmp_path / "y.bin", classes=tmp_path / "names.txt")
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [1, 0, 0, 1]
        assert read.classes == ("two", "ten")

    def test_class_names_for_folders(self, pets: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("Katze\nHund\n")
        assert imported(pets, classes=tmp_path / "names.txt").classes == ("Katze", "Hund")


class TestMessages:
    def test_missing_path(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere does not exist"):
            imported(tmp_path / "nowhere")

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        (tmp_path / "images.rar").write_bytes(b"Rar!")
        with pytest.raises(UserError, match=r"images\.rar is neither a folder, a zip, nor a \.npy/\.npz array"):
            imported(tmp_path / "images.rar")

    def test_no_images(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("no")
        with pytest.raises(UserError, match=r"no images in .* \(looked for \.jpg, "):
            imported(tmp_path)
        archive = shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path, "a.txt")
        with pytest.raises(UserError, match=r"no images in .*b\.zip"):
            imported(Path(archive))

    @pytest.mark.parametrize("kept", [0, 10, 200, -80])
    @pytest.mark.parametrize("size", [None, 16])
    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
    def test_a_truncated_image_is_named(self, tmp_path: Path, suffix: str, size: int | None, kept: int) -> None:
        flat(tmp_path, "fine.png")
        path = tmp_path / "sub" / f"broken.{suffix}"
        path.parent.mkdir()
        Image.fromarray(noise(20, 20, 3)).save(path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(UserError, match=rf"sub/broken\.{suffix} is .*mend or remove it"):
            imported(tmp_path, size=size)

    def test_text_that_calls_itself_an_image_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "page.jpg").write_text("<html>404</html>")
        with pytest.raises(UserError, match=r"page\.jpg is not a readable image"):
            imported(tmp_path)

    def test_damage_inside_a_zip_is_named(self, tmp_path: Path) -> None:
        encoded = io.BytesIO()
        Image.fromarray(noise(20, 20, 3)).save(encoded, "png")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:  # stored, not compressed
            file.writestr("in/broken.png", encoded.getvalue())
        data = bytearray((tmp_path / "a.zip").read_bytes())
        data[300] ^= 255
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(UserError, match=r"in/broken\.png"):
            imported(tmp_path / "a.zip")

    def test_two_images_of_one_name(self, tmp_path: Path) -> None:
        folder = flat(tmp_path / "images", "a.png", "a.bmp")
        with pytest.raises(UserError, match="two images have the same id"):
            write_store("mine", imported(folder))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((2, 8, 8, 3), np.float32), r"holds float32 \(2, 8, 8, 3\); images must be uint8"),
            (np.zeros((2, 3, 8, 8), np.uint8), r"holds uint8 \(2, 3, 8, 8\)"),
            (np.zeros((8, 8, 3), np.uint8), r"holds uint8 \(8, 8, 3\)"),
            (np.zeros((2, 8, 9, 3), np.uint8), "images of 8x9 pixels; make them square"),
            (np.array([{}]), "is not a plain array"),
        ],
        ids=["float", "channels first", "one image", "oblong", "objects"],
    )
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_arrays_that_are_no_images(self, tmp_path: Path, array: np.ndarray, message: str, suffix: str) -> None:
        path = tmp_path / f"x{suffix}"
        if suffix == ".npy":
            np.save(path, array)
        else:
            np.savez(path, array)
        with pytest.raises(UserError, match=message):
            imported(path)

    def test_several_arrays_none_called_images(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=noise(2, 8, 8, 3), b=noise(2, 8, 8, 3))
        with pytest.raises(UserError, match='holds a, b; name the one with the images "images"'):
            imported(tmp_path / "x.npz")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.txt", "x\ny\n", r"a\.txt has 2 labels for 4 images"),
            ("a.bin", "abcde", r"a\.bin has 5 labels for 4 images"),
            ("a.json", "[]", r'labels come as \.csv, \.tsv, \.txt, \.npy or \.bin, not "\.json"'),
            ("a.csv", "image,label\n", "has a header and no rows"),
            ("a.csv", "image\n9.png\n", "needs two columns, image name and label"),
            ("a.csv", "image,label\nzebra.png,x\n", r'names no image that was imported \(it has "zebra\.png"'),
            ("a.csv", "image,label\n9.png,x\n,y\n", r"a\.csv"),
            ("a.npy", "not numpy", r"a\.npy"),
        ],
        ids=["txt", "bin", "suffix", "header alone", "one column", "no match", "nameless row", "damaged npy"],
    )
    def test_label_files(self, pets: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            imported(pets, labels=tmp_path / name)

    def test_missing_label_file(self, pets: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nowhere\.csv does not exist"):
            imported(pets, labels=tmp_path / "nowhere.csv")

    def test_missing_class_file(self, pets: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nowhere\.txt"):
            imported(pets, classes=tmp_path / "nowhere.txt")

    def test_number_of_class_names(self, pets: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("one\n")
        with pytest.raises(
            UserError, match=r"names\.txt has 1 class name for 2 different labels .*; it needs one each"
        ):
            imported(pets, classes=tmp_path / "names.txt")
