"""Files that are there whole or not at all, whatever ends the process or the machine while they are written.

And what people and other programs put there: names that no file can have, and things in a file's place that are none.
"""

import contextlib
import errno
import os
import re
import resource
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from moe.errors import UserError

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}")
_BUFFER = 2**20  # bytes, at most, that a library writes at a time
_MOST_CONTENT = 2**28  # bytes of what is read as a whole: configurations, histories, tables


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, as it is too long, names none."""
    return _is(path, Path.is_file)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; a name that no folder can have names none."""
    return _is(path, Path.is_dir)


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def content(path: Path) -> bytes:
    """The bytes of a regular file. A pipe would let its reader wait for ever, a device fill the memory.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is no file, or too large to be one of ours.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError("it is a device or a pipe, not a file")
    if status.st_size > _MOST_CONTENT:
        raise ValueError(f"it has {status.st_size / 2**20:,.0f} MB")
    return path.read_bytes()


def remove(path: Path) -> None:
    """Remove what is there as far as that can be done: a folder with all that is in it, or what lies in its place.

    A pipe is not opened, as `shutil.rmtree` does, which would wait for ever.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Hand out a hidden name beside a file; what is written there takes the file's place at the end.

    A reader sees the old file or the new one. If the writing fails, the old one stays and the hidden one is removed;
    if the process is killed, the hidden one is left behind.

    Args:
        path: the file; its folder is made if absent.
        durable: wait until the disk has the content and the name, so that a power failure keeps one of the two.

    Raises:
        OSError: the disk is full, whatever a library says that writes there.
        UserError: a folder has the file's name.
    """
    if path.is_dir() and not path.is_symlink():  # which a file would replace
        raise UserError(f"{path} is a folder, and a file is to be written there; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with telling_full(path):
            yield partial
        if durable:
            sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def clear_partials(folder: Path) -> None:
    """Remove what `replacing` left in a folder as its process was killed; nobody else may be writing there."""
    for path in folder.glob(".*"):
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def telling_full(path: Path) -> Iterator[None]:
    """Around what a library writes: on a full disk its error, whatever it is, becomes the system's.

    torch says "unexpected pos 576 vs 534" then; NumPy raises an OSError without a number, before or while it writes.

    Args:
        path: what is written; nothing is read meanwhile.

    Raises:
        OSError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        known = isinstance(error, OSError) and error.errno is not None
        if not known and _limited(path):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path)) from error
        if not known and (isinstance(error, OSError) or is_full(path.parent)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _limited(path: Path) -> bool:
    """Whether what was being written for a file is about as large as this process may make one."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    parts = [part.stat().st_size for part in path.parent.iterdir() if part.name.startswith(f".{path.name}.")]
    return most != resource.RLIM_INFINITY and max(parts, default=0) >= most - _BUFFER


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room for a block."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail == 0


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
