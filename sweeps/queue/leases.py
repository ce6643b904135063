"""Who holds a cell, and whether that process still lives.

On one machine the operating system answers: an agent holds a lock file, which is freed when it ends, however it ends.
An agent on another machine has to be believed: it counts up a beat, and whoever sees the beat stand still for LEASE
seconds of their own steady clock may take the cell. No two clocks are ever compared.
"""

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from sweeps.runs.lock import Lock, is_locked

LEASE = 120.0
BEAT = 10.0
LAST_WORDS = 45.0  # seconds in which what a dying process has on its way to a server has arrived


def _machine() -> str:
    """This machine since its last start; the same inside containers, whose files may differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    return f"{socket.gethostname()}:{boot}"


class Owner:
    """This process as a holder of cells.

    Args:
        folder: lock files of all agents that share this `MOE_HOME`.

    Attributes:
        name: `<host>:<boot>/<id>`, unique.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = _machine()
        self.name = f"{self.machine}/{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: Lock | None = None
        self._seen: dict[tuple[str, int], tuple[int, float]] = {}

    def sign_in(self) -> None:
        """Take the lock file that shows that this process lives."""
        if self._lock is None:
            self._lock = Lock(self._file(self.name))
            self._lock.acquire()

    def sign_out(self) -> None:
        """Let go of it."""
        if self._lock is not None:
            self._file(self.name).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _file(self, owner: str) -> Path:
        return self.folder / f"{owner.rsplit('/', 1)[-1]}.lock"

    def known_dead(self, owner: str) -> bool:
        """Whether the owner ran here and has ended; False if only its beat can tell."""
        if owner == self.name or owner.rsplit("/", 1)[0] != self.machine:
            return False
        file = self._file(owner)
        return file.exists() and not is_locked(file)

    def lost(self, owner: str, cell: int, beat: int) -> bool:
        """Whether the holder of a cell is gone; to be asked again and again for an owner elsewhere."""
        if owner == self.name:
            return False
        if self.known_dead(owner):
            return True
        now = time.monotonic()
        before, since = self._seen.setdefault((owner, cell), (beat, now))
        if before != beat:
            self._seen[owner, cell] = (beat, now)
            return False
        return now - since > LEASE

    def forget(self, owner: str) -> None:
        """Remove what a dead owner left, once no cell names it any more."""
        if self.known_dead(owner):
            self._file(owner).unlink(missing_ok=True)


@dataclass
class Beats:
    """Signs of life of a run elsewhere, by our own clock.

    Attributes:
        last: the newest.
        since: when it was new.
        first: when we began to look.
        go_on: whether there are new ones a while later: what a dying process has on its way arrives before.
    """

    last: str
    since: float
    first: float
    go_on: bool = False

    def hear(self, beat: str, now: float) -> None:
        """Take note of the newest sign."""
        if beat != self.last:
            self.go_on = self.go_on or now - self.first > LAST_WORDS
            self.last, self.since = beat, now
