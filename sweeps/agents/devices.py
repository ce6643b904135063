"""GPUs of this machine, and how many runs share one.

A slot is a lock file: an agent holds as many as its cell weighs. A cell that ran out of memory weighs more when it is
repeated, so that fewer run beside it.
"""

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
        folder = root / "sweeps" / ".devices" / f"{socket.gethostname()}-{self.name}"
        folder.mkdir(parents=True, exist_ok=True)
        held: list[IO[str]] = []
        try:
            # Who waits keeps the door: slots that become free are not snatched away from a heavy cell.
            with (folder / "door").open("a") as door:
                enough = _wait(lambda: _locks(door), patience) and _wait(
                    lambda: self._gather(folder, min(weight, self.slots), held), patience
                )
            yield enough
        finally:
            for file in held:
                file.close()

    def _gather(self, folder: Path, count: int, held: list[IO[str]]) -> bool:
        taken = {file.name for file in held}
        for number in range(self.slots):
            path = folder / f"slot-{number}"
            if len(held) < count and str(path) not in taken:
                file = path.open("a")
                if _locks(file):
                    held.append(file)
                else:
                    file.close()
        return len(held) >= count


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(done: Callable[[], bool], patience: Callable[[], bool]) -> bool:
    while not done():
        if not patience():
            return False
        time.sleep(_POLL)
    return True
