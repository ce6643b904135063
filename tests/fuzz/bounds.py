"""What holds for every input, however odd: it is taken, or refused in one sentence, within bounded time and memory."""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from moe.errors import UserError

_MOST_MEMORY = 2**30  # bytes that one input may cost
_MOST_SECONDS = 10.0  # of the processor
_MOST_CHARACTERS = 2000  # a sentence, with the names it needs


def examples(suite: int, long: int) -> int:
    """How many inputs a target gets whose inputs cost more than most: in the suite, and in `make fuzz`."""
    return long if os.environ.get("MOE_FUZZ") == "long" else suite


def _peak() -> int:
    """The most memory that this process had, where Linux tells, since `_forget_peak`; elsewhere since it began."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 1024 * int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])


def _forget_peak() -> None:
    """Or what an earlier test took would hide what this one takes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def is_one_sentence(message: str) -> bool:
    """Whether a message can be printed on one line of a terminal as it stands."""
    return bool(message.strip()) and "\n" not in message.strip() and len(message) < _MOST_CHARACTERS


@contextlib.contextmanager
def taken_or_refused() -> Iterator[None]:
    """Let `UserError` pass if it is one sentence; whatever else is raised fails the test, as do 1 GB and 10 s."""
    _forget_peak()
    before, began, refusal = _peak(), time.process_time(), None
    try:
        yield
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert is_one_sentence(refusal), f"not one sentence: {refusal}"
        refusal.encode()  # a terminal can show it: no half of a surrogate pair
    assert _peak() - before < _MOST_MEMORY
    assert time.process_time() - began < _MOST_SECONDS
