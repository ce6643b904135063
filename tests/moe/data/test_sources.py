"""Folders and zips as people have them: links, other systems, passwords, damage; and one bad picture among many."""

import io
import os
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moe.data.readers import ReadOptions, read_images
from moe.data.sources import check_unpacked
from moe.errors import UserError


def _encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def png(red: int = 9) -> bytes:
    return _encoded(Image.new("RGB", (16, 16), (red, 0, 0)))


def fill(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))
    return folder


def zipped(path: Path, *names: str, data: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is, also with backslashes
            archive.writestr(info, png(number) if data is None else data)
    return path


def encrypted(path: Path, password: bytes, *names: str) -> Path:
    """A zip in the traditional encryption, which Python reads but does not write."""
    table = [_crc(value) for value in range(256)]
    zipped(path, *names)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    out, central = bytearray(), bytearray()
    for info in infos:
        start = info.header_offset + 30 + len(info.filename)
        plain = bytes(11) + bytes([info.CRC >> 24]) + bytes(raw[start : start + info.compress_size])
        offset = len(out)
        header = bytearray(raw[info.header_offset : start])
        header[6] |= 1
        header[18:22] = len(plain).to_bytes(4, "little")
        out += header + _encrypt(plain, password, table)
        entry = bytearray(_central(raw, info.filename))
        entry[8] |= 1
        entry[20:24] = len(plain).to_bytes(4, "little")
        entry[42:46] = offset.to_bytes(4, "little")
        central += entry
    end = bytearray(raw[raw.rindex(b"PK\x05\x06") :])
    end[12:16], end[16:20] = len(central).to_bytes(4, "little"), len(out).to_bytes(4, "little")
    path.write_bytes(bytes(out + central + end))
    return path


def _crc(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ 0xEDB88320 if value & 1 else value >> 1
    return value


def _central(raw: bytearray, name: str) -> bytes:
    start = raw.index(b"PK\x01\x02")
    while True:
        length = 46 + int.from_bytes(raw[start + 28 : start + 30], "little")
        if raw[start + 46 : start + length] == name.encode():
            return bytes(raw[start : length + start])
        start += length


def _encrypt(plain: bytes, password: bytes, table: list[int]) -> bytes:
    """PKWARE's stream cipher (APPNOTE 6.1)."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = (keys[0] >> 8) ^ table[(keys[0] ^ byte) & 0xFF]
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = (keys[2] >> 8) ^ table[(keys[2] ^ (keys[1] >> 24)) & 0xFF]

    for byte in password:
        update(byte)
    result = bytearray()
    for byte in plain:
        mixed = keys[2] | 2
        result.append(byte ^ ((mixed * (mixed ^ 1)) >> 8) & 0xFF)
        update(byte)
    return bytes(result)


class TestFolders:
    def test_linked_class_folders_are_read(self, tmp_path: Path) -> None:
        real = fill(tmp_path / "elsewhere", "cat/a.png", "dog/b.png")
        (tmp_path / "pets").mkdir()
        for name in ("cat", "dog"):
            (tmp_path / "pets" / name).symlink_to(real / name)
        read = read_images(tmp_path / "pets")
        assert (read.ids, read.classes) == (["cat/a", "dog/b"], ("cat", "dog"))

    def test_a_link_to_a_folder_above_ends(self, tmp_path: Path) -> None:
        fill(tmp_path / "pets", "cat/a.png", "dog/b.png")
        (tmp_path / "pets" / "cat" / "again").symlink_to(tmp_path / "pets")
        read = read_images(tmp_path / "pets")
        assert read.ids == ["cat/a", "dog/b"]
        assert read.notes == ("folder cat/again is the same as . and left out",)

    def test_links_that_branch_do_not_multiply(self, tmp_path: Path) -> None:
        """Thirty folders, each with two links to the next, are 2^30 paths."""
        folders = [tmp_path / f"{n:02}" for n in range(30)]
        for folder in folders:
            folder.mkdir()
        for here, there in pairwise(folders):
            (here / "one").symlink_to(there)
            (here / "two").symlink_to(there)
        fill(folders[-1], "a.png", "b.png")
        assert len(read_images(folders[0]).ids) == 2

    def test_names_in_other_scripts(self, tmp_path: Path) -> None:
        read = read_images(fill(tmp_path, "²/a².png", "\u0661/b\u0661.png", "犬/c.png", "x/0.png"))
        assert len(read.ids) == 4
        assert set(read.classes) == {"²", "\u0661", "犬", "x"}

    def test_names_that_are_no_utf8(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
        read = read_images(fill(tmp_path, "b.png"))
        assert read.ids == ["b", r"caf\xe9"]

    def test_what_is_left_out_is_counted(self, tmp_path: Path) -> None:
        folder = fill(tmp_path, "cat/a.png", "dog/b.png", "dog/.hidden.png", "dog/._b.png")
        for name in ("notes.txt", "cat/more.txt", "raw/photo.NEF", "raw/LICENSE"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"II*\0 a camera's own format")
        (folder / "raw" / "LICENSE").write_text("free")
        assert read_images(folder).notes == (
            "4 other files left out: 2 .txt, 1 .nef, 1 without suffix",
            "1 hidden picture left out",
            "1 folder without a picture that was read: raw",
        )

    def test_an_empty_class_is_named(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "pets", "cat/a.png", "dog/b.png")
        (folder / "owl").mkdir()
        (folder / ".git").mkdir()
        with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
            for name in ("cat/", "cat/a.png", "dog/b.png", "owl/", ".git/", "__MACOSX/"):
                archive.writestr(name, b"" if name.endswith("/") else png())
        for source in (folder, tmp_path / "pets.zip"):
            assert read_images(source).notes == ("1 folder without a picture that was read: owl",)

    def test_classes_one_level_up(self, tmp_path: Path) -> None:
        """As in tiny ImageNet: n01443537/images/0.png."""
        read = read_images(fill(tmp_path, "cat/images/0.png", "dog/images/0.png"))
        assert read.classes == ("cat", "dog")
        assert read.notes == ("the classes are the folders 1 above the images' own",)

    def test_pictures_beside_the_class_folders_are_named(self, tmp_path: Path) -> None:
        read = read_images(fill(tmp_path, "cat/0.png", "dog/0.png", "extra.png"))
        assert read.labels_N is not None
        assert read.labels_N.tolist() == [0, 1, -1]
        assert read.notes == ("1 image in no class folder: extra.png",)

    def test_two_of_one_id_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r'the same id "cat/a": cat/a\.jpeg and cat/a\.png in .*; rename one'):
            read_images(fill(tmp_path, "cat/a.png", "cat/a.jpeg"))

    @pytest.mark.parametrize(
        "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("no")]
    )
    def test_devices_pipes_and_dead_links_are_named(self, tmp_path: Path, make: Callable[[Path], None]) -> None:
        make(fill(tmp_path, "b.png") / "a.png")
        with pytest.raises(UserError, match=r"a\.png is not readable \(.*(device or a pipe|does not exist)"):
            read_images(tmp_path)

    @pytest.mark.parametrize("name", ["/dev/zero", "x.fifo", "/nowhere", "x" * 300, "a\0b"])
    def test_paths_that_are_no_images(self, tmp_path: Path, name: str) -> None:
        os.mkfifo(tmp_path / "x.fifo")
        with pytest.raises(UserError, match=r"device or a pipe|does not exist|cannot be read"):
            read_images(tmp_path / name)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_without_permission_is_named(self, tmp_path: Path) -> None:
        (fill(tmp_path, "a.png") / "secret").mkdir(mode=0)
        with pytest.raises(UserError, match="secret cannot be read"):
            read_images(tmp_path)


class TestBadPictures:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        fill(tmp_path, "cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "owl/5.png")
        (tmp_path / "cat" / "2.png").write_bytes(_encoded(Image.fromarray(noise))[:400])
        (tmp_path / "owl" / "5.png").write_text("<html>404</html>")
        return tmp_path

    def test_all_are_named(self, folder: Path) -> None:
        with pytest.raises(
            UserError,
            match=r"cat/2\.png is not a readable.*, and 1 more: owl/5\.png; mend or remove them, or pass --skip-bad",
        ):
            read_images(folder)

    def test_are_left_out_with_a_list(self, folder: Path) -> None:
        read = read_images(folder, ReadOptions(skip_bad=True))
        assert read.ids == ["cat/1", "dog/3", "dog/4"]
        assert read.images_NHWC[:, 0, 0, 0].tolist() == [0, 2, 3]
        assert read.classes == ("cat", "dog")
        assert list(read.left_out) == ["cat/2.png", "owl/5.png"]
        assert all("not a readable image" in reason for reason in read.left_out.values())
        assert "2 pictures left out, not readable: cat/2.png, owl/5.png" in read.notes
        assert "1 folder without a picture that was read: owl" in read.notes

    def test_labels_in_image_order_stay_with_their_images(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "y.txt").write_text("1\n2\n3\n4\n5\n")
        read = read_images(folder, ReadOptions(skip_bad=True), labels=tmp_path / "y.txt")
        assert read.labels_N is not None
        assert [read.classes[label] for label in read.labels_N] == ["1", "3", "4"]

    def test_nothing_left_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("no")
        with pytest.raises(UserError, match=r"none of the pictures in .* can be read"):
            read_images(tmp_path, ReadOptions(skip_bad=True))


class TestZips:
    def test_from_windows(self, tmp_path: Path) -> None:
        read = read_images(zipped(tmp_path / "a.zip", "photos\\red\\0.png", "photos\\blue\\0.png"))
        assert (read.ids, read.classes) == (["photos/blue/0", "photos/red/0"], ("blue", "red"))

    def test_paths_stay_inside(self, tmp_path: Path) -> None:
        read = read_images(zipped(tmp_path / "a.zip", "/abs/0.png", "../up/1.png", "C:\\pics\\2.png", "./3.png"))
        assert read.ids == ["3", "abs/0", "pics/2", "up/1"]

    def test_an_entry_without_a_name_is_no_picture(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "a.zip", "a.png", "\0")
        assert read_images(path).ids == ["a"]

    def test_undeclared_utf8_names(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "a.zip", "xx.png")
        path.write_bytes(path.read_bytes().replace(b"xx.png", "é.png".encode()))
        assert read_images(path).ids == ["é"]

    def test_what_macos_adds_is_ignored(self, tmp_path: Path) -> None:
        assert read_images(zipped(tmp_path / "A.ZIP", "a.png", "__MACOSX/._a.png", ".git/b.png")).ids == ["a"]

    def test_encrypted(self, tmp_path: Path) -> None:
        path = encrypted(tmp_path / "a.zip", b"secret", "red/0.png", "blue/1.png")
        read = read_images(path, ReadOptions(password="secret"))
        assert read.classes == ("blue", "red")
        assert read.images_NHWC[:, 0, 0, 0].tolist() == [1, 0]
        with pytest.raises(UserError, match=r"a\.zip is encrypted; give --password"):
            read_images(path)
        with pytest.raises(UserError, match="does not open with this --password"):
            read_images(path, ReadOptions(password="wrong"))

    def test_aes_is_named(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "a.zip", "a.png")
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 10] = 99
        path.write_bytes(data)
        with pytest.raises(UserError, match="uses AES encryption, which Python does not read; unpack it"):
            read_images(path)

    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
    @pytest.mark.parametrize("name", ["a.zip", "a"])
    def test_half_a_download_is_damaged(self, tmp_path: Path, name: str, kept: float) -> None:
        path = zipped(tmp_path / name, *(f"{n}.png" for n in range(20)))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(UserError, match=r"is a damaged zip .* download that broke off; fetch it again"):
            read_images(path)

    def test_a_zip_without_its_beginning_is_damaged(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "a.zip", *(f"{n}.png" for n in range(20)))
        path.write_bytes(path.read_bytes()[100:])
        with pytest.raises(UserError, match=r"is a damaged zip \(its beginning is missing\)"):
            read_images(path)

    @pytest.mark.parametrize(
        ("start", "says"),
        [
            (b"Rar!\x1a\x07\x01\0", "is another kind of archive, not a zip; unpack it and import the folder"),
            (b"7z\xbc\xaf\x27\x1c", "is another kind of archive"),
            (b"\x1f\x8b\x08", "is another kind of archive"),
            (b"0.png".ljust(257, b"\0") + b"ustar", "is another kind of archive"),
            (
                b"\n<!DOCTYPE html><title>Sign in</title>",
                "is a web page, not a zip, as where a download asks for a login",
            ),
        ],
        ids=["RAR", "7z", "gzip", "tar", "web page"],
    )
    def test_what_is_found_under_the_name_of_a_zip_is_named(self, tmp_path: Path, start: bytes, says: str) -> None:
        (tmp_path / "a.zip").write_bytes(start + bytes(300))
        with pytest.raises(UserError, match=says):
            read_images(tmp_path / "a.zip")

    @pytest.mark.parametrize(
        ("name", "says"), [("x.tar.gz", "; unpack it and import the folder"), ("x.doc", "images$")]
    )
    def test_other_archives_are_told_apart(self, tmp_path: Path, name: str, says: str) -> None:
        (tmp_path / name).write_bytes(b"\x1f\x8b\x08")
        with pytest.raises(UserError, match=f"neither a folder, a zip, nor .*{says}"):
            read_images(tmp_path / name)

    @pytest.mark.slow
    def test_a_bomb_is_refused_by_what_it_says_of_itself(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for number in range(3):
                with archive.open(f"{number}.png", "w") as file:
                    for _ in range(25):
                        file.write(bytes(2**24))
        with pytest.raises(
            UserError, match=r"unpacks from 5\.\d MB to 1\.2 GB, as a decompression bomb does; .* unpack it"
        ):
            read_images(tmp_path / "a.zip")

    def test_a_large_zip_of_photographs_is_none(self) -> None:
        info = zipfile.ZipInfo("a.jpg")
        info.file_size = 5 * 2**30
        check_unpacked([info], "a.zip", 5 * 2**30)


class TestArrays:
    @pytest.mark.parametrize("name", ["A.NPY", "A.NPZ"])
    def test_of_any_case(self, tmp_path: Path, name: str) -> None:
        images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        with (tmp_path / name).open("wb") as file:
            np.save(file, images) if name == "A.NPY" else np.savez(file, images)
        np.testing.assert_array_equal(read_images(tmp_path / name).images_NHWC, images)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz_with_images_and_labels(self, tmp_path: Path, save: object) -> None:
        images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
        save(tmp_path / "a.npz", images=images, labels=np.array([10.0, 2.0, np.nan]), more=np.zeros(2))
        read = read_images(tmp_path / "a.npz", ReadOptions(size=8))
        np.testing.assert_array_equal(read.images_NHWC, images)
        assert read.labels_N is not None
        assert (read.labels_N.tolist(), read.classes) == ([1, 0, -1], ("2", "10"))
        assert read.notes == ("1 other array left out: more", "1 of 3 images without a label")

    def test_npz_with_another_number_of_labels(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8, 3), np.uint8), labels=np.zeros(4))
        with pytest.raises(UserError, match="4 labels for 3 images"):
            read_images(tmp_path / "a.npz")

    @pytest.mark.parametrize("shape", [(5, 0, 0, 3), (0, 8, 8, 3)])
    def test_without_pixels(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
        with pytest.raises(UserError, match=r"holds no pixels: its shape is|is not a plain array"):
            read_images(tmp_path / "a.npy")

    @pytest.mark.slow
    def test_a_bomb(self, tmp_path: Path) -> None:
        with (
            zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("images.npy", "w") as file,
        ):
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (10**5, 64, 64, 3)}
            )
            for _ in range(74):
                file.write(bytes(2**24))
        with pytest.raises(UserError, match="as a decompression bomb does"):
            read_images(tmp_path / "a.npz")
