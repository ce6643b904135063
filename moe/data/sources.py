"""Where pictures come from: the files of a folder or a zip that are pictures, and the count of those that are not."""

import lzma
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from moe.data.files import regular
from moe.data.names import SUFFIXES, natural, without_suffix
from moe.errors import UserError
from moe.wording import counted, first_few, printable, reason

_MOST_ENCODED = 512 * 2**20  # bytes of one picture's file
_UNPACKED_ANYWAY = 2**30  # bytes: a zip that unpacks to less is no bomb
_MOST_RATIO = 100
_HEAD = 32  # bytes that tell a format
_READABLE_COMPRESSION = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "lzma",
}
_AES = 99
_NO_ZIPS = re.compile(  # what is found under the name of a zip
    rb"(?P<archive>Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|.{257}ustar)|(?P<page>\s*<(!doctype|html|\?xml))",
    re.DOTALL | re.IGNORECASE,
)
_ENCRYPTED = 0x1
_UTF8_NAME = 0x800
# what zipfile raises on damage
ZIP_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, ValueError, IndexError, OverflowError, NotImplementedError,
              RuntimeError, struct.error, zlib.error, lzma.LZMAError)  # fmt: skip
_SIGNATURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"
    rb"|....ftyp(avif|avis|heic|heix|heim|heis|hevc|mif1|msf1)|BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    re.DOTALL,
)
_TIFF = (b"II*\0", b"MM\0*")  # also raw camera files, so only where no suffix says otherwise


@dataclass(frozen=True)
class ImageFile:
    """One encoded picture: its path inside the folder or zip, and how to read its bytes.

    Reading raises OSError, or an error of ZIP_DAMAGE in a zip.
    """

    path: str
    read: Callable[[], bytes]

    @property
    def id(self) -> str:
        """The path without the suffix."""
        return without_suffix(self.path)


@dataclass
class Found:
    """Pictures in natural order of their names, and what a reader of the result should know of the rest."""

    files: list[ImageFile] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    by_content: list[str] = field(default_factory=list)
    hidden: int = 0
    folders: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, path: str, head: Callable[[], bytes], read: Callable[[], bytes]) -> None:
        """Sort one file into pictures, by suffix or content, and others."""
        pure = PurePosixPath(path)
        suffix = pure.suffix.lower()
        if pure.name.startswith("."):
            self.hidden += suffix in SUFFIXES and not pure.name.startswith("._")
            return
        self.folders.add(str(pure.parent))
        if suffix not in SUFFIXES:
            start = head()
            if not (_SIGNATURES.match(start) or (not suffix and start.startswith(_TIFF))):
                self.others[suffix or "without suffix"] += 1
                return
            self.by_content.append(path)
        self.files.append(ImageFile(path, read))

    def sorted(self, source: str) -> "Found":
        """In natural order, with notes on what was left out.

        Raises:
            UserError: there are no pictures, or two have the same id.
        """
        held = ", ".join(
            f"{count} {suffix}"
            for suffix, count in sorted(self.others.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
        )
        if not self.files:
            has = f"it has {held}" if held else "it is empty"
            raise UserError(f"no images in {source} (looked for {', '.join(SUFFIXES)}; {has})")
        self.files.sort(key=lambda file: (natural(file.path), file.path))
        first: dict[str, str] = {}
        for file in self.files:
            if file.id in first:
                raise UserError(
                    f'two images have the same id "{file.id}": {first[file.id]} and {file.path} in {source}; rename one'
                )
            first[file.id] = file.path
        if self.by_content:
            count = counted(len(self.by_content), "picture")
            self.notes.append(f"{count} known by content, not by suffix: {first_few(self.by_content)}")
        if held:
            self.notes.append(f"{counted(self.others.total(), 'other file')} left out: {held}")
        if self.hidden:
            self.notes.append(f"{counted(self.hidden, 'hidden picture')} left out")
        return self

    def empty_folders(self, kept: Sequence[str]) -> list[str]:
        """Folders of which no picture was kept."""
        used = {str(folder) for path in kept for folder in PurePosixPath(path).parents}
        return sorted(self.folders - used - {"."})


def folder_files(path: Path, only: Sequence[str] = ()) -> Found:
    """Pictures in a folder (or in these folders inside it) and the folders below.

    Symbolic links are followed; a folder that is met twice is read once.

    Raises:
        UserError: a folder cannot be read, there are no pictures, or two have the same id.
    """
    found = Found()
    seen: dict[tuple[int, int], str] = {}
    waiting = list(only) or [""]
    while waiting:
        inside = waiting.pop()
        folder = Path(path, os.fsdecode(inside))
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{printable(str(folder))} cannot be read ({error.strerror})") from None
        before = seen.setdefault((status.st_dev, status.st_ino), inside or ".")
        if before != (inside or "."):
            found.notes.append(f"folder {printable(inside)} is the same as {printable(before)} and left out")
            continue
        found.folders.update([printable(inside)] if inside else [])
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if not _is_folder(entry):
                file = Path(entry.path)
                found.add(printable(name), lambda file=file: _head(file), lambda file=file: _read(file))  # type: ignore[misc]
            elif not entry.name.startswith("."):
                waiting.append(name)
    return found.sorted(printable(str(path)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to nowhere; reading it says so


def _head(path: Path) -> bytes:
    try:
        regular(path)
        with path.open("rb") as file:
            return file.read(_HEAD)
    except (OSError, UserError):
        return b""


def _read(path: Path) -> bytes:
    try:
        _check_encoded(regular(path))
    except UserError as error:
        raise OSError(str(error)) from None
    return path.read_bytes()


def _check_encoded(size: int) -> None:
    if size > _MOST_ENCODED:
        raise OSError(f"{size / 2**20:,.0f} MB are too much for one picture")


def open_zip(path: Path, password: str | None) -> zipfile.ZipFile:
    """A zip, opened.

    Raises:
        UserError: it is damaged, would unpack beyond measure, or is encrypted and the password is missing or wrong.
    """
    found = printable(str(path))
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_DAMAGE as error:
        raise UserError(f"{found} is {_what_else(path) or _damaged(reason(error))}") from None
    try:
        check_unpacked(archive.infolist(), found, regular(path))
        _check_readable(archive, found, password)
    except BaseException:
        archive.close()
        raise
    return archive


def _damaged(how: str) -> str:
    return f"a damaged zip ({how}), as after a download that broke off; fetch it again"


def _what_else(path: Path) -> str:
    """What a file is that is no zip, and what to do; empty if that is not known."""
    with path.open("rb") as file:
        known = _NO_ZIPS.match(file.read(512))
    if known is None:
        return ""
    if known["page"]:
        return "a web page, not a zip, as where a download asks for a login; fetch it again"
    return "another kind of archive, not a zip; unpack it and import the folder"


def check_unpacked(infos: Sequence[zipfile.ZipInfo], found: str, size: int) -> None:
    """Refuse an archive that unpacks to over a hundred times its size in bytes, and over 1 GB.

    Raises:
        UserError: it does.
    """
    total = sum(info.file_size for info in infos)
    if total > max(_UNPACKED_ANYWAY, _MOST_RATIO * size):
        raise UserError(
            f"{found} unpacks from {size / 2**20:,.1f} MB to {total / 2**30:,.1f} GB, as a decompression bomb does; if "
            "its pictures are real, unpack it and import the folder"
        )


def _check_readable(archive: zipfile.ZipFile, found: str, password: str | None) -> None:
    files = [info for info in archive.infolist() if not _is_entry_folder(info)]
    if any(info.header_offset < 0 for info in files):
        raise UserError(f"{found} is {_damaged('its beginning is missing')}")
    locked = [info for info in files if info.flag_bits & _ENCRYPTED]
    if locked and not password:
        raise UserError(f"{found} is encrypted; give --password, or unpack it and import the folder")
    for info in files:
        if info.compress_type not in _READABLE_COMPRESSION:
            how = "AES encryption" if info.compress_type == _AES else f"compression method {info.compress_type}"
            raise UserError(f"{found} uses {how}, which Python does not read; unpack it and import the folder")
    if locked and password:
        archive.setpassword(password.encode())
        try:
            with archive.open(locked[0]) as file:
                file.read(1)
        except ZIP_DAMAGE as error:
            raise UserError(f"{found} does not open with this --password ({reason(error)})") from None


def zip_files(archive: zipfile.ZipFile, source: str) -> Found:
    """Pictures in a zip, also in one from Windows (backslashes) or with names in undeclared UTF-8.

    Raises:
        UserError: there are no pictures, or two have the same id.
    """
    found = Found()
    for info in archive.infolist():
        parts = list(_zip_parts(info))
        folder = _is_entry_folder(info)
        hidden = "__MACOSX" in parts or any(part.startswith(".") for part in (parts if folder else parts[:-1]))
        if parts and not hidden and folder:
            found.folders.add("/".join(parts))
        elif parts and not hidden:
            found.add(
                "/".join(parts),
                lambda info=info: _zip_head(archive, info),  # type: ignore[misc]
                lambda info=info: _zip_read(archive, info),  # type: ignore[misc]
            )
    return found.sorted(source)


def _is_entry_folder(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is no file; `ZipInfo.is_dir` fails on one without a name and does not know backslashes."""
    return not info.filename or info.filename.endswith(("/", "\\"))


def _zip_parts(info: zipfile.ZipInfo) -> Iterator[str]:
    name = info.filename
    if not info.flag_bits & _UTF8_NAME:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = info.filename
    for part in printable(name).replace("\\", "/").split("/"):
        if part not in ("", ".", "..") and not re.fullmatch("[A-Za-z]:", part):
            yield part


def _zip_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            return file.read(_HEAD)
    except ZIP_DAMAGE:
        return b""


def _zip_read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_encoded(info.file_size)
    return archive.read(info)
