"""GPUs of this machine, and how many runs share one.

A slot is a lock file: an agent holds as many as its cell weighs. A cell that ran out of memory weighs more when it is
repeated, so that fewer run beside it.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.runs.folders import HomeFolder
from sweeps.runs.lock import Lock

CPU = "cpu"
_POLL = 0.5


def visible() -> list[str]:
    """GPUs that this process may use, by number: `CUDA_VISIBLE_DEVICES`, else those that the driver shows."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    found = (re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def groups(devices: list[str], size: int) -> list[str]:
    """Devices put together for runs that need several: ``["0,1", "2,3"]``; ``["cpu"]`` where there are none."""
    whole = [devices[start : start + size] for start in range(0, len(devices) - size + 1, size)]
    return [",".join(group) for group in whole] or [CPU]


@dataclass(frozen=True)
class Device:
    """What an agent runs its cells on.

    Attributes:
        name: numbers of GPUs with commas, or "cpu".
        slots: cells that may run there at a time.
    """

    name: str = CPU
    slots: int = 1

    def environment(self) -> dict[str, str]:
        """What tells a worker to use it."""
        return {} if self.name == CPU else {"CUDA_VISIBLE_DEVICES": self.name}

    @contextlib.contextmanager
    def hold(self, root: Path, weight: int, patience: Callable[[], bool]) -> Iterator[bool]:
        """Hold `weight` of its slots (at most all); False if `patience` ran out first.

        Args:
            root: `MOE_HOME`.
            weight: slots needed.
            patience: asked every half second; False gives up.
        """
        if self.slots == 1:  # an agent of its own
            yield True
            return
        folder = HomeFolder(root).devices(self.name)
        slots = [Lock(folder / f"slot-{number}") for number in range(self.slots)]
        door = Lock(folder / "door")
        try:
            # Who waits keeps the door: slots that become free are not snatched away from a heavy cell.
            enough = _wait(door.acquire, patience) and _wait(
                lambda: _gathered(slots, min(weight, self.slots)), patience
            )
            door.release()
            yield enough
        finally:
            for lock in (door, *slots):
                lock.release()


def _gathered(slots: Sequence[Lock], count: int) -> bool:
    """Hold as many of these as are free, `count` at most; whether it has that many."""
    for slot in slots:
        if sum(one.held for one in slots) < count:
            slot.acquire()
    return sum(one.held for one in slots) >= count


def _wait(done: Callable[[], bool], patience: Callable[[], bool]) -> bool:
    while not done():
        if not patience():
            return False
        time.sleep(_POLL)
    return True
