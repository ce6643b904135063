"""Lock files, which the operating system frees when their holder ends, however it ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_POLL = 0.1
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # a pipe in its place is an error, not a wait


class LockedError(Exception):
    """Another process holds the lock."""


class Lock:
    """A lock file that one process at a time holds, until it lets go or ends.

    Args:
        path: the file; it and its folder are made by the first who asks, and stay.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._file is not None

    def acquire(self) -> bool:
        """Hold it from now on; False if another holds it. Never waits."""
        if self._file is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(self.path, _FLAGS, 0o666), "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def locked(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock file for as long as the block lasts.

    Args:
        path: the lock file.
        patience: seconds to wait for another process to let go.

    Raises:
        LockedError: another process still holds it.
    """
    lock, end = Lock(path), time.monotonic() + patience
    while not lock.acquire():
        if time.monotonic() >= end:
            raise LockedError(str(path))
        time.sleep(_POLL)
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file. Makes none, so that a folder that may only be read can be asked too."""
    try:
        file = path.open()
    except (FileNotFoundError, IsADirectoryError):
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
