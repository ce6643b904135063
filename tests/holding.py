"""A run that is held in the middle of its training until it is told to stop: so a short run will do, and no luck.

Linux tells which process trains a run, and which signals wait for a process that is halted.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Self

import pytest

from sweeps.runs.run import Run
from sweeps.runs.signals import STOP

POSSIBLE = Path("/proc/self/fdinfo").exists()
needed = pytest.mark.skipif(not POSSIBLE, reason="finds processes through /proc")
_SECONDS = 300.0


class Held:
    """A process that trains a run, halted where it was; it goes on when it is told to stop, or killed.

    Args:
        run: its run.
        epochs: that are done before it is halted, with the untrained one; once they are, the next is soon over too.
    """

    def __init__(self, run: Run, epochs: int = 2) -> None:
        until(lambda: len(run.history()) >= epochs)
        self.pid = _trainer(run)
        os.kill(self.pid, signal.SIGSTOP)

    @classmethod
    def first_of(cls, runs: list[Run], epochs: int = 2) -> Self:
        """That of the first run that gets so far."""
        until(lambda: any(len(run.history()) >= epochs for run in runs))
        return cls(next(run for run in runs if len(run.history()) >= epochs), epochs)

    def told(self) -> bool:
        """Whether it has been told to stop."""
        words = self._status()
        waiting = int(words["SigPnd"], 16) | int(words["ShdPnd"], 16)
        return any(waiting >> (number - 1) & 1 for number in STOP)

    def go_on(self) -> None:
        """Let it go on once it has been told to stop: that is the first it hears.

        Who tells it may have let it go on, too, as Slurm does; it may even be over then.
        """
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            until(lambda: self.told() or not self._status()["State"].strip().startswith("T"))
            os.kill(self.pid, signal.SIGCONT)

    def _status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":", 1) for line in lines)


def until(holds) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def _trainer(run: Run) -> int:
    """The process that holds the run's lock."""
    lock = str(run.lock_file.resolve())
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if (
                str(opened.readlink()) == lock
                and "lock:" in opened.parents[1].joinpath("fdinfo", opened.name).read_text()
            ):
                return int(opened.parts[2])
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is somebody else's
            continue
    raise AssertionError(f"nobody trains {run.id}")
