"""From the bytes of a picture to square 8-bit colour, within bounded memory.

Whatever other programs show is read: PNGs with large texts or profiles, broken EXIF, very large scans. Pillow is held
to the picture formats below: it would hand others to programs like Ghostscript.

Axes: S image side.
"""

import contextlib
import importlib.util
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from moe.data.sources import ZIP_DAMAGE, ImageFile
from moe.errors import UserError
from moe.wording import reason

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000", "HEIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
# what Pillow's decoders raise on damaged bytes
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError,
           MemoryError, RuntimeError, AssertionError, struct.error, zlib.error, *ZIP_DAMAGE)  # fmt: skip
_LARGE = 25_000_000  # pixels from which a picture is shrunk piece by piece
_MOST_BYTES = 850_000_000  # that one decoded picture may take
_INFLATED, _MOST_INFLATED = 16_000_000, 500_000_000  # pixels of one such picture, and of all together; see Bombs
_BAND = 4_000_000  # pixels that are handled at a time in a large picture
# decoders that need more than the finished picture
_OVERHEAD = {"TIFF": 1.8, "GIF": 2, "WEBP": 2, "AVIF": 2, "HEIF": 2, "JPEG2000": 5}
_ROWS_PER_STRIP = 278
_ONE_BYTE_MODES = ("1", "L", "P")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS", b"eXIf")  # beside the chunks that no PNG can do without
_Result = TypeVar("_Result")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPictureError(Exception):
    """A file that is no readable picture: its path and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is {reason}")
        self.path, self.reason = path, reason


class NeedsHeifError(BadPictureError):
    """A HEIC picture where its decoder is not installed."""


class Decoded(NamedTuple):
    """A picture.

    Attributes:
        pixels_SS3: uint8.
        transparent: it was laid on white.
        frames: it has several, of which this is the first.
    """

    pixels_SS3: NDArray[np.uint8]
    transparent: bool
    frames: bool


class Bombs:
    """Refuses sets of pictures that unpack from next to nothing to more than 500 million pixels.

    One is a scan of an almost empty page; at the first of them all pictures are looked at, before it is decoded. A
    picture that goes beyond that alone is a bad one, as one with a damaged header is.
    """

    def __init__(self, files: Sequence[ImageFile]) -> None:
        self._files, self._judged = files, False

    def check(self, path: str, size: tuple[int, int], encoded: int) -> None:
        """Look at one picture: its width and height, and the bytes of its file.

        Raises:
            BadPictureError: it alone unpacks beyond measure.
            UserError: the pictures together do.
        """
        if not _is_inflated(size, encoded):
            return
        if size[0] * size[1] > _MOST_INFLATED:
            raise BadPictureError(path, f"too large to be read ({size[0]}x{size[1]} pixels in {encoded:,} bytes)")
        if not self._judged:
            self._judged = True
            self._judge()

    def _judge(self) -> None:
        pixels, pictures = 0, 0
        for file in self._files:
            try:
                (width, height), encoded = _size_and_bytes(file)
            except BadPictureError:
                continue
            if _is_inflated((width, height), encoded) and width * height <= _MOST_INFLATED:
                pixels, pictures = pixels + width * height, pictures + 1
            if pixels > _MOST_INFLATED:
                raise UserError(
                    f"{pictures} pictures up to {file.path} unpack from next to nothing to {pixels / 1e6:,.0f} million "
                    "pixels, as a decompression bomb does; if they are real, scale them down before the import"
                )


def _is_inflated(size: tuple[int, int], encoded: int) -> bool:
    """Whether a large picture has less than a byte for 200 pixels."""
    pixels = size[0] * size[1]
    return pixels >= _INFLATED and encoded * 200 < pixels


@cache
def _formats() -> tuple[str, ...]:
    """What Pillow reads here: HEIC too, if pi-heif is installed (extra "heic")."""
    Image.init()
    if importlib.util.find_spec("pi_heif") is not None:
        import pi_heif

        pi_heif.register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Pillow without its warnings and its own limit of pixels; ours counts bytes."""
    most = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = most


def size_of(file: ImageFile, bombs: Bombs) -> tuple[int, int]:
    """Width and height of a picture, as it is stored.

    Raises:
        BadPictureError: it is none.
        UserError: the pictures unpack beyond measure.
    """
    size, encoded = _size_and_bytes(file)
    bombs.check(file.path, size, encoded)
    return size


def _size_and_bytes(file: ImageFile) -> tuple[tuple[int, int], int]:
    data = _bytes(file)
    with _pillow():
        return _twice(file.path, data, _size), len(data)


def decode(file: ImageFile, side: int, bombs: Bombs) -> Decoded:
    """A picture as 8-bit colour, upright, scaled so that its shorter side fits, cropped at the centre.

    Raises:
        BadPictureError: it is damaged, or too large for bounded memory.
        UserError: the pictures unpack beyond measure.
    """
    data = _bytes(file)

    def decoded(stream: io.BytesIO) -> Decoded:
        with Image.open(stream, formats=_formats()) as image:
            bombs.check(file.path, image.size, len(data))
            return _decoded(image, side)

    with _pillow():
        return _twice(file.path, data, decoded)


def _bytes(file: ImageFile) -> bytes:
    try:
        data = file.read()
    except ZIP_DAMAGE as error:
        raise BadPictureError(file.path, f"not readable ({reason(error)})") from None
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and "HEIF" not in _formats():
        raise NeedsHeifError(file.path, "a HEIC picture (`pip install 'moe-experts[heic]'` reads it)")
    return data


def _twice(path: str, data: bytes, read: Callable[[io.BytesIO], _Result]) -> _Result:
    """What `read` makes of a picture; of a PNG that it cannot read, without texts, profile and the like."""
    try:
        return read(io.BytesIO(data))
    except _DAMAGE as error:
        said = reason(error)
        said = "cannot identify it" if said.startswith("cannot identify image file") else said
    if data.startswith(_PNG):
        with contextlib.suppress(*_DAMAGE):
            return read(io.BytesIO(_bare(data)))
    raise BadPictureError(path, f"not a readable image ({said})")


def _size(stream: io.BytesIO) -> tuple[int, int]:
    with Image.open(stream, formats=_formats()) as image:
        return image.size


def _bare(data: bytes) -> bytes:
    """A PNG without the chunks that a reader may ignore: Pillow unpacks no large text, and reads no damaged gamma."""
    kept, start = [_PNG], len(_PNG)
    while start + 8 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + length + 12
        kind = data[start + 4 : start + 8]
        if kind[:1].isupper() or kind in _PNG_KEPT:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _decoded(image: Image.Image, side: int) -> Decoded:
    frames = _has_frames(image)
    stored = image.size
    if image.width * image.height > _LARGE:
        image.draft("RGB" if image.mode == "RGB" else "L", (4 * side, 4 * side))  # a JPEG is decoded at a fraction
    _check_memory(image, stored)
    image.load()
    if image.format == "PPM" and image.mode == "I":  # of 16 bits
        image = image.convert("I;16")
    turn = _TURNS.get(_orientation(image))
    if image.width * image.height > _LARGE:
        picture, transparent = _shrunk(image, side)
    else:
        picture, transparent = _rgb(image)
    if turn is not None:
        picture = picture.transpose(turn)
    return Decoded(fitted(picture, side), transparent, frames)


def _has_frames(image: Image.Image) -> bool:
    """Whether a picture moves or has pages; a camera's JPEG with its own preview has not."""
    try:
        if image.format == "TIFF":
            return int(getattr(image, "n_frames", 1)) > 1
        return image.format in ("GIF", "WEBP", "PNG", "AVIF") and bool(getattr(image, "is_animated", False))
    except _DAMAGE:
        return False


def _check_memory(image: Image.Image, stored: tuple[int, int]) -> None:
    """Refuse a picture that takes too much memory to decode; a JPEG may be decoded at a fraction of `stored`."""
    each = 1 if image.mode in _ONE_BYTE_MODES else 4
    overhead = _OVERHEAD.get(image.format or "", 1)
    if isinstance(image, TiffImageFile) and int(image.tag_v2.get(_ROWS_PER_STRIP, 1)) * 2 < stored[1]:
        overhead = 1.1
    needed = image.width * image.height * each * overhead
    if isinstance(image, JpegImageFile) and image.info.get("progressive"):
        shares = [across * down for _, across, down, _ in image.layer]
        needed += 2 * stored[0] * stored[1] * sum(shares) / max(shares)  # the coefficients of the whole picture
    if needed > _MOST_BYTES:
        raise OSError(f"{stored[0]}x{stored[1]} pixels are too many to be read here; scale it down")


def _orientation(image: Image.Image) -> int:
    """How a camera was held, 1 to 8; broken EXIF says nothing."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _shrunk(image: Image.Image, side: int) -> tuple[Image.Image, bool]:
    """The central square of a large picture at a few times the size that is needed, made band by band."""
    square = min(image.size)
    factor = max(1, square // (4 * side))
    square -= square % factor
    left, top = (image.width - square) // 2, (image.height - square) // 2
    result = Image.new("RGB", (square // factor, square // factor))
    rows, transparent = max(1, _BAND // square // factor) * factor, False
    for start in range(0, square, rows):
        stop = min(start + rows, square)
        band, one = _rgb(image.crop((left, top + start, left + square, top + stop)))
        result.paste(band.reduce(factor) if factor > 1 else band, (0, start // factor))
        transparent |= one
    return result, transparent


def _rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Any image as 8-bit colour on white, and whether white shows.

    16-bit grey is scaled, which Pillow's own conversion would clip.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8)).convert("RGB"), False
    if image.mode in ("I", "F"):
        raise OSError(f"32-bit pixels of no known range, mode {image.mode}")
    if image.mode not in ("P", "PA", "LA", "La", "RGBA", "RGBa") and "transparency" not in image.info:
        return image.convert("RGB"), False
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB"), False
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"), True


def fitted(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """A picture scaled with antialiasing so that its shorter side fits, and cropped at the centre."""
    if picture.size != (side, side):
        picture = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)
