"""Heavy imports in a sixth less time."""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import without garbage collection, which would look through all that the modules consist of, again and again.

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
