"""Pictures, zips and arrays with damage of every kind; names of every kind inside of zips."""

import io
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moe.data.names import natural
from moe.data.readers import ReadOptions, no_progress, read_images
from moe.data.sources import zip_files
from moe.data.stl10 import STL10
from moe.errors import UserError
from tests.fuzz.bounds import taken_or_refused
from tests.fuzz.mutations import damaged

NOISE = np.random.default_rng(0).integers(0, 256, (12, 10, 4), dtype=np.uint8)


def _pictures() -> list[bytes]:
    """Small ones of every format, some with a palette, transparency, EXIF, several frames."""
    result = []
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, mode, options in (
        ("png", "RGBA", {"exif": exif}), ("png", "P", {"transparency": 3}), ("png", "1", {}),
        ("jpeg", "RGB", {"exif": exif}),
        ("jpeg", "CMYK", {"progressive": True}), ("gif", "P", {}), ("webp", "RGBA", {}), ("bmp", "RGB", {}),
        ("tiff", "RGB", {"compression": "tiff_lzw"}), ("tiff", "LA", {}), ("ppm", "L", {}), ("avif", "RGB", {}),
        ("jpeg2000", "RGB", {}), ("png", "I;16", {}),
    ):  # fmt: skip
        image = Image.fromarray(NOISE).convert("L" if mode == "I;16" else mode)
        stream = io.BytesIO()
        (image.convert("I;16") if mode == "I;16" else image).save(stream, kind, **options)
        result.append(stream.getvalue())
    frames = io.BytesIO()
    Image.fromarray(NOISE).convert("RGB").save(frames, "gif", save_all=True, append_images=[Image.new("RGB", (10, 12))])
    return [*result, frames.getvalue()]


PICTURES = _pictures()


def _zipped(entries: list[tuple[str, bytes]], compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice is meant
        for name, data in entries:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, compression
            archive.writestr(info, data)
    return stream.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _read(path: Path, **options: object) -> None:
    with taken_or_refused():
        read = read_images(path, ReadOptions(size=16, skip_bad=True, **options))
        assert read.images_NHWC.shape == (len(read.ids), 16, 16, 3)
        assert len(set(read.ids)) == len(read.ids)
        assert not {name for name in read.left_out if not name}


@given(data=damaged(*PICTURES), suffix=st.sampled_from([".png", ".jpg", "", ".tiff", ".avif"]))
def test_pictures(tmp_path: Path, data: bytes, suffix: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / f"a{suffix}").write_bytes(data)
    (folder / "b.png").write_bytes(PICTURES[0])
    _read(folder)


GOOD = [("photos\\red\\0.png", PICTURES[0]), ("photos\\blue\\1.jpg", PICTURES[3]), ("note.txt", b"text")]
ZIPS = [_zipped(GOOD, zipfile.ZIP_STORED), _zipped(GOOD, zipfile.ZIP_DEFLATED), _zipped(GOOD[:1], zipfile.ZIP_BZIP2)]


@given(data=damaged(*ZIPS), password=st.none() | st.text(max_size=3))
def test_zips(tmp_path: Path, data: bytes, password: str | None) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    _read(tmp_path / "a.zip", password=password)


PATHS = st.text(st.sampled_from("ab01/\\.:é²\u0661 \u0308\n"), min_size=1, max_size=12) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)


@given(names=st.lists(st.tuples(PATHS, st.sampled_from([".png", ".PNG", ".txt", ""])).map("".join), max_size=6))
def test_names_in_zips(names: list[str]) -> None:
    with zipfile.ZipFile(io.BytesIO(_zipped([(name, PICTURES[0]) for name in names], zipfile.ZIP_STORED))) as archive:
        try:
            found = zip_files(archive, "a.zip")
        except UserError:
            return
        paths = [file.path for file in found.files]
        assert sorted(paths, key=lambda path: (natural(path), path)) == paths
        assert all(part not in ("", ".", "..") for path in paths for part in path.split("/"))


ARRAYS = [
    _npy(np.zeros((3, 16, 16, 3), np.uint8)), _npy(np.zeros((2, 16, 8, 3), np.uint8)), _npy(np.zeros((2, 3))),
    _npz(images=np.zeros((3, 16, 16, 3), np.uint8), labels=np.array([0, 1, 1])),
    _npz(x=np.zeros((2, 8, 8, 3), np.uint8)),
]  # fmt: skip


@given(data=damaged(*ARRAYS), suffix=st.sampled_from([".npy", ".npz", ".NPZ"]))
def test_arrays(tmp_path: Path, data: bytes, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(data)
    _read(tmp_path / f"a{suffix}")


def _tar(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in (
            ("train_X.bin", bytes(2 * 96 * 96 * 3)),
            ("train_y.bin", b"\1\2"),
            ("class_names.txt", b"a\nb\n"),
        ):
            info = tarfile.TarInfo(f"stl10_binary/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@given(data=damaged(_tar("w"), _tar("w:gz"), _tar("w:xz")))
def test_archives_of_stl10(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "stl10_binary.tar.gz").write_bytes(data)
    with taken_or_refused():
        for store in STL10().prepare(tmp_path / "data", tmp_path / "stl10_binary.tar.gz", no_progress):
            assert store.images_NHWC.shape[1:] == (96, 96, 3)
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.startswith(".")]
