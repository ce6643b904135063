"""Files that are there whole or not at all, whatever ends the process or the machine while they are written."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Hand out a hidden name beside a file; what is written there takes the file's place at the end.

    A reader sees the old file or the new one. If the writing fails, the old one stays and the hidden one is removed;
    if the process is killed, the hidden one is left behind.

    Args:
        path: the file; its folder is made if absent.
        durable: wait until the disk has the content and the name, so that a power failure keeps one of the two.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
