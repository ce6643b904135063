"""Pictures that other programs show are read; what cannot be read is named; bombs end in one sentence."""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from moe.data import pictures
from moe.data.pictures import BadPictureError, Bombs, NeedsHeifError, decode
from moe.data.readers import ReadOptions, read_images
from moe.data.sources import ImageFile
from moe.errors import UserError

RED = (200, 40, 40)
# 16 x 16 pixels of about this red, as a phone would save them
HEIC = zlib.decompress(base64.b85decode(
    "c-muNV30{GsVvAy%}izhg51nBLl8SRGck>Ufw3kxwIq=N0u(b+a*CjAhJwuG5(YG&l$nzcHpIn&fe{FSfN=qY1_C1>R?f`KO9S&jqM|@fDif5KQI>27V)7MamgK"
    "^f{K+gRDge@VG7FOPfpjTQnKL6ZNN56Bk=zG{KYxGxU|`^9P5|nVaA4$N{Qn=MfElEM8HD6^F*zgxB{iKG8PQ}GC^WK8d$n%Xvj>U`4m2<@@HBvgTatjP*<2V879"
    "Z>c+98~rpHq~VoKpc5<z-+4Dq#@GEG|feddvZeHIj1@K@Jmux*bga|Ns92kY<9>An}6CicFA3W)2PxASIDmkP8cAV6d?^GBLBZ0NGZ#DT$yk*3)2IFRYl9?C@1x"
    ">HmM{tom0r>VI2rCZ-qdIvD-w*MV;-vk!b;HE~`;d**Tj(Fy?C%x0_"
))  # fmt: skip


def of(data: bytes) -> ImageFile:
    return ImageFile("a.png", lambda: data)


def pixels(data: bytes, side: int = 16) -> np.ndarray:
    return decode(of(data), side, Bombs([])).pixels_SS3


def encoded(image: Image.Image | None = None, kind: str = "png", **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.new("RGB", (16, 16), RED)).save(stream, kind, **options)
    return stream.getvalue()


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", binascii.crc32(name + content))
    return png[:33] + chunk + png[33:]


def big_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("render", "x" * 3_000_000, zip=True)
    return encoded(pnginfo=info)


def broken_exif_jpeg() -> bytes:
    """An orientation beside a rational whose denominator is no integer."""
    exif = (
        b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0x0112, 3, 1, 1) + struct.pack("<HHII", 0x9209, 5, 9, 9)
    )
    return encoded(kind="jpeg", exif=exif, quality=95)


class TestThatAreRead:
    @pytest.mark.parametrize(
        "data",
        [
            big_text(),
            with_chunk(encoded(), b"iCCP", b"icc\0\0" + zlib.compress(bytes(4_000_000))),
            with_chunk(encoded(), b"zTXt", b"key\0\0" + zlib.compress(b"y" * 2_000_000)),
            with_chunk(encoded(), b"eXIf", b"no TIFF at all"),
            with_chunk(encoded(), b"eXIf", b"II*\0\xff\xff\xff\xff"),
            with_chunk(encoded(), b"gAMA", b"\0"),
            with_chunk(encoded(), b"pHYs", b"\0"),
        ],
        ids=["text", "profile", "compressed text", "exif", "exif out of bounds", "gamma", "size"],
    )
    def test_png_with_what_says_nothing_about_pixels(self, data: bytes) -> None:
        assert (pixels(data) == RED).all()

    def test_transparency_stays_where_other_chunks_are_left_out(self) -> None:
        clear = encoded(Image.new("L", (16, 16), 9), transparency=9)
        assert (pixels(with_chunk(clear, b"gAMA", b"\0")) == 255).all()

    def test_grey_of_16_bits(self) -> None:
        levels = np.array([[0, 257 * 100], [257 * 200, 65535]], ">u2").repeat(8, 0).repeat(8, 1)
        shown = pixels(b"P5 16 16 65535 " + levels.tobytes())
        assert (shown[::8, ::8, 0] == [[0, 100], [200, 255]]).all()

    def test_jpeg_with_broken_exif(self) -> None:
        assert np.abs(pixels(broken_exif_jpeg()).astype(int) - RED).max() < 8

    @pytest.mark.parametrize("turn", range(1, 9))
    def test_every_orientation_is_undone(self, turn: int) -> None:
        corner = Image.new("RGB", (16, 16), "white")
        corner.paste((0, 0, 0), (0, 0, 8, 8))
        exif = Image.Exif()
        exif[0x0112] = turn
        shown = pixels(encoded(corner, "png", exif=exif))
        expected = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[turn]
        dark = [(row, column) for row in (0, 1) for column in (0, 1) if shown[4 + 8 * row, 4 + 8 * column].max() == 0]
        assert dark == [expected]

    @pytest.mark.parametrize(
        ("kind", "name"),
        [("jpeg", "a.jfif"), ("jpeg", "a.JPE"), ("avif", "a.avif"), ("jpeg2000", "a.jp2"), ("png", "noext"),
         ("webp", "a.dat"), ("bmp", "b"), ("tiff", "c"), ("gif", "d.e"), ("ppm", "e.PNM")],
    )  # fmt: skip
    def test_formats_and_suffixes(self, tmp_path: Path, kind: str, name: str) -> None:
        (tmp_path / name).write_bytes(encoded(kind=kind))
        read = read_images(tmp_path)
        assert np.abs(read.images_NHWC.astype(int) - RED).max() < 12
        assert read.ids == [name.rsplit(".", 1)[0] if name not in ("a.dat", "d.e") else name]

    def test_heic(self, tmp_path: Path) -> None:
        pytest.importorskip("pi_heif")
        (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
        assert np.abs(read_images(tmp_path).images_NHWC.astype(int) - RED).max() < 12

    def test_heic_without_its_decoder_is_left_out_and_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pictures, "_formats", lambda: ("PNG",))
        for name in ("dog/IMG_1.HEIC", "dog/IMG_2.HEIC", "cat/a.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(HEIC if name.endswith("HEIC") else encoded())
        read = read_images(tmp_path)
        assert read.ids == ["cat/a"]
        assert read.notes == (
            "2 HEIC pictures left out (`pip install 'moe-experts[heic]'` reads HEIC): dog/IMG_1.HEIC, dog/IMG_2.HEIC",
            "1 folder without a picture that was read: dog",
        )
        with pytest.raises(NeedsHeifError):
            decode(of(HEIC), 16, Bombs([]))

    @pytest.mark.parametrize(("mode", "colour"), [("RGBA", (9, 9, 9, 0)), ("LA", (9, 0)), ("P", 0), ("L", 9)])
    def test_what_is_transparent_is_laid_on_white(self, tmp_path: Path, mode: str, colour: tuple[int, ...]) -> None:
        image = Image.new(mode, (16, 16), colour)
        image.save(tmp_path / "a.png", **({"transparency": 0 if mode == "P" else 9} if mode in "PL" else {}))
        read = read_images(tmp_path)
        assert (read.images_NHWC == 255).all()
        assert read.notes == ("1 picture with transparency laid on white",)

    def test_half_transparent_is_half_way_to_white(self) -> None:
        assert (
            np.abs(pixels(encoded(Image.new("RGBA", (16, 16), (0, 100, 255, 128)))).astype(int) - [127, 177, 255]).max()
            <= 1
        )

    def test_several_frames_are_noted(self, tmp_path: Path) -> None:
        Image.new("RGB", (16, 16), RED).save(
            tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (16, 16), (0, 0, 9))]
        )
        read = read_images(tmp_path)
        assert np.abs(read.images_NHWC.astype(int) - RED).max() < 5
        assert read.notes == ("1 picture with several frames, of which the first was read",)

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
    def test_a_huge_scan(self, tmp_path: Path, mode: str) -> None:
        """A dark square on a page of 14,000 x 13,600 pixels, shrunk band by band, is where it was."""
        page = Image.new(mode, (14_000, 13_600), {"1": 1, "L": 255, "RGB": (255,) * 3, "RGBA": (0, 0, 0, 0)}[mode])
        page.paste(0 if mode in ("1", "L") else (0, 0, 0, 255)[: len(mode)], (3600, 3400, 7000, 6800))
        page.save(tmp_path / "scan.png", compress_level=1)
        (shown,) = read_images(tmp_path, ReadOptions(size=64)).images_NHWC
        assert shown[18:30, 18:30].max() < 10
        assert shown[:14].min() > 240
        assert shown[36:].min() > 240

    def test_a_large_jpeg_is_decoded_at_a_fraction(self) -> None:
        image = Image.new("RGB", (6000, 5000), RED)
        image.paste((0, 0, 255), (0, 0, 3000, 5000))
        shown = pixels(encoded(image, "jpeg", quality=30), 32).astype(int)
        assert np.abs(shown[:, :14] - [0, 0, 255]).max() < 20
        assert np.abs(shown[:, 18:] - RED).max() < 20


class TestThatAreNot:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            encoded()[:50],
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0WEBP",
        ],
        ids=["empty", "PostScript, which would start another program", "cut short", "no chunks", "no frames"],
    )
    def test_are_named(self, data: bytes) -> None:
        with pytest.raises(BadPictureError, match=r"a\.png is not a readable image"):
            pixels(data)

    @pytest.mark.parametrize("read", [lambda: (_ for _ in ()).throw(OSError("no such place"))])
    def test_a_file_that_cannot_be_read(self, read: Callable[[], bytes]) -> None:
        with pytest.raises(BadPictureError, match=r"a\.png is not readable \(no such place\)"):
            decode(ImageFile("a.png", read), 16, Bombs([]))

    def test_more_pixels_than_memory_allows(self) -> None:
        header = encoded(Image.new("RGB", (1, 1)))
        size = struct.pack(">II", 20_000, 20_000)
        chunk = b"IHDR" + size + header[24:29]
        data = header[:12] + chunk + struct.pack(">I", binascii.crc32(chunk)) + header[33:]
        with pytest.raises(BadPictureError, match="20000x20000 pixels are too many to be read here; scale it down"):
            pixels(data)


def blank(side: int) -> bytes:
    """A PNG of a blank page, whose pixels are never made."""
    raw, packer = io.BytesIO(), zlib.compressobj(9)
    for _ in range(side):
        raw.write(packer.compress(bytes(side // 8 + 1)))
    raw.write(packer.flush())
    header = struct.pack(">II5B", side, side, 1, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", header), (b"IDAT", raw.getvalue()), (b"IEND", b"")):
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", binascii.crc32(name + content))]
    return b"".join(parts)


class TestBombs:
    @pytest.mark.parametrize("mixed", [False, True], ids=["one size", "several sizes"])
    def test_many_blank_pages_end_before_any_is_decoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: bool
    ) -> None:
        decoded: list[str] = []
        monkeypatch.setattr(pictures, "_decoded", lambda image, side: decoded.append(image.format))
        data = blank(13_000)
        for number in range(20):
            (tmp_path / f"{number}.png").write_bytes(data)
        if mixed:
            (tmp_path / "0.png").write_bytes(blank(13_008))
        with pytest.raises(
            UserError, match=r"3 pictures up to 2\.png unpack from next to nothing to 507 million pixels"
        ):
            read_images(tmp_path)
        assert decoded == []

    def test_one_that_is_beyond_measure_alone_is_a_bad_picture(self, tmp_path: Path) -> None:
        data = bytearray(blank(64))
        data[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
        data[29:33] = struct.pack(">I", binascii.crc32(data[12:29]))
        for name, content in (("a.png", bytes(data)), ("b.png", blank(64)), ("c.png", blank(23_000))):
            (tmp_path / name).write_bytes(content)
        with pytest.raises(
            UserError, match=r"a\.png is too large to be read \(2147483647x2147483647 .* 1 more: c\.png"
        ):
            read_images(tmp_path)
        read = read_images(tmp_path, ReadOptions(skip_bad=True))
        assert (read.ids, list(read.left_out)) == (["b"], ["a.png", "c.png"])

    def test_one_is_no_bomb(self) -> None:
        data = blank(13_000)
        bombs = Bombs([of(data)])
        bombs.check("a.png", (13_000, 13_000), len(data))

    def test_real_photographs_are_none_however_many(self) -> None:
        bombs = Bombs([of(b"")])
        for _ in range(1000):
            bombs.check("a.png", (13_000, 13_000), 10_000_000)

    def test_one_large_size_is_not_kept(self, tmp_path: Path) -> None:
        for number in range(2):
            Image.new("L", (1200, 1200)).save(tmp_path / f"{number}.png")
        read = read_images(tmp_path)
        assert read.images_NHWC.shape == (2, 96, 96, 3)
        assert read.notes == ("pictures of 1200x1200 pixels scaled to 96 (--size chooses another side)",)
