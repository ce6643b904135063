"""Hidden folders that one process fills, each told from what a killed one left by a lock that the system frees."""

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from moe.files import remove

_SCRATCH = re.compile(r"\..+-[0-9a-f]{8}")


@contextlib.contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """A hidden folder for the block alone; those that killed processes left in `parent` are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f".{name}-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as held:
        with alone_in(parent):
            for left in parent.iterdir():
                if _SCRATCH.fullmatch(left.name) and left.is_dir() and not left.is_symlink() and not in_use(left):
                    remove(left)
            folder.mkdir()
            held.callback(remove, folder)
            held.enter_context(holding(folder))
        yield folder


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Meanwhile the folder is in use. NFS locks no folders; there, what is left stays."""
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


def in_use(folder: Path) -> bool:
    """Whether a living process holds the folder; where the file system cannot tell, it may."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """One process at a time makes or removes hidden folders: a new one is not yet held for a moment."""
    with _locked(root, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Locked for the block, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
