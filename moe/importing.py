"""What heavy imports cost, at the start of a process and at its end."""

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import in a sixth less time: no garbage collection goes through all that modules consist of, again and again.

    It stays out of later collections too, until the process ends. For a process' first moments: whatever else there is
    by then, stays as well.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
            atexit.register(gc.unfreeze)  # libraries look at the end for objects that nobody freed
        gc.enable()


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Around all that a process does: it ends without taking apart what it imported, which takes over a second.

    What was registered for the end of the process is still done, threads are waited for, and what was printed is out.
    After any other exception than SystemExit the interpreter ends as ever. Objects are not finalized: whoever opened a
    file closes it.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to be called
    try:
        yield
        codes.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            codes.append(end.code or 0)
        raise


def _leave(codes: list[int]) -> None:
    if not codes:
        return
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):  # nobody reads it any more: as the interpreter tells it
        return
    os._exit(codes[0] & 0xFF)
