"""A store appears under its name by one rename, complete or not at all; what killed imports leave is cleared away.

A store in the making is a hidden folder `.NAME-xxxxxxxx`, locked by the process that fills it. The system frees the
lock when that process dies, however it dies.
"""

import contextlib
import ctypes
import errno
import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from moe.errors import UserError
from moe.files import remove
from moe.scratch import alone_in, holding, in_use

FILES = frozenset(
    ("images.npy", "labels.npy", "ids.json", "groups.json", "labelings.json", "factors.npy", "manifest.json")
)
SOURCE = "source.npy"  # an array on its way into a store
_UNPACKED = frozenset(  # STL-10's archive on its way into stores
    ("train_X.bin", "test_X.bin", "unlabeled_X.bin", "train_y.bin", "test_y.bin", "class_names.txt")
)
_CLEARED = FILES | _UNPACKED | {SOURCE}
_HIDDEN = re.compile(r"\.(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)-[0-9a-f]{8}(?P<old>-old)?")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_USERS_MATTER = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
                 errno.ENAMETOOLONG, errno.EFBIG)  # fmt: skip


def check_name(name: str, root: Path, *, replace: bool) -> None:
    """Refuse a name under which no store can be made.

    Raises:
        UserError: it is no name, it is taken and `replace` is false, or it is that of a folder which is no store.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name):
        raise UserError(f'"{name:.300}" cannot name a store: use up to 200 letters, digits, ".", "-" and "_"')
    target = root / name
    if not target.exists() and not target.is_symlink():
        return
    if not _holds_only(target, FILES):
        raise UserError(f"{target} exists and is no image store; choose another name, or another place with MOE_DATA")
    if not replace:
        raise UserError(f'images named "{name}" exist in {root} already; pass --force to replace them')


def _holds_only(path: Path, files: frozenset[str]) -> bool:
    """Whether a folder holds nothing but these files, so that it may be replaced or removed."""
    try:
        return {entry.name for entry in os.scandir(path)} <= files
    except OSError:
        return False


@contextlib.contextmanager
def staged(name: str, root: Path, *, replace: bool) -> Iterator[Path]:
    """A hidden folder that becomes the store `name` when the block ends without an error, and else vanishes.

    Raises:
        UserError: see `check_name`; or the place cannot be written to.
    """
    check_name(name, root, replace=replace)
    with hidden_folder(name, root) as partial:
        yield partial
        _settle(partial)
        with alone_in(root):
            check_name(name, root, replace=replace)  # it may have been made meanwhile
            _move_into_place(partial, root / name)


@contextlib.contextmanager
def hidden_folder(name: str, root: Path) -> Iterator[Path]:
    """A folder for the block alone, which a later import clears away if this process is killed.

    Raises:
        UserError: the place cannot be written to.
    """
    partial = root / f".{name}-{uuid.uuid4().hex[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            with alone_in(root):
                _clear(root)
                partial.mkdir()
                held.callback(remove, partial)
                held.enter_context(holding(partial))
            yield partial
    except OSError as error:
        if error.errno not in _USERS_MATTER:
            raise
        raise UserError(
            f"images cannot be written to {root} ({error.strerror}); make room, or name another place with MOE_DATA"
        ) from error


def clear_leftovers(root: Path) -> None:
    """Remove what killed imports left in a folder of stores; put back a store that one of them had set aside."""
    if not root.is_dir() or not any(_HIDDEN.fullmatch(path.name) for path in root.iterdir()):
        return
    with contextlib.suppress(OSError), alone_in(root):  # on a disk that is not ours to write, they stay
        _clear(root)


def _clear(root: Path) -> None:
    for path in sorted(root.iterdir()):
        match = _HIDDEN.fullmatch(path.name)
        if match is None or path.is_symlink() or not _holds_only(path, _CLEARED) or in_use(path):
            continue
        target = root / match["name"]
        if match["old"] and not target.exists() and (path / "manifest.json").exists():
            path.rename(target)
        else:
            remove(path)


def _settle(folder: Path) -> None:
    """Have every file of a folder on the disk before its name says that they are."""
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_into_place(partial: Path, target: Path) -> None:
    """Give a new store its name; an older one changes places with it in the same rename where the system can."""
    if not target.exists() and not target.is_symlink():
        partial.rename(target)
    elif not _exchanged(partial, target):
        aside = partial.with_name(f"{partial.name}-old")  # known to `_clear`, which puts it back if we die here
        target.rename(aside)
        try:
            partial.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        remove(aside)
    _sync(target.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders could change names at once (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
