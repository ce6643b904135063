"""Processes that begin as a copy of one that is ready, and are children of the one that asked for them.

A copy has what its original has imported, at no cost. It is forked twice: what comes between ends at once, and the
orphan becomes a child of the nearest process above that wants orphans (Linux alone knows such). So who asked is told of
its end, and signals it, as of any child.
"""

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

POSSIBLE = sys.platform == "linux"
_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>
_POLL = 0.02


class Copy:
    """A child that another process forked for this one: as much of `subprocess.Popen` as an agent needs.

    Args:
        pid: its number; it is reaped here alone.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives.

        Raises:
            ChildProcessError: it is no child of this process.
        """
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it lives on after so many seconds.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("copy", timeout)
            time.sleep(_POLL)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Meanwhile orphans of the processes below become children of this one, not of init.

    Raises:
        OSError: the system does not do that.
    """
    _want_orphans(True)
    try:
        yield
    finally:
        _want_orphans(False)


def _want_orphans(wanted: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def fork_orphan(*, session: bool = True) -> int | None:
    """Fork a process for the one above that is `adopting`: its pid once it is adopted, and None in the process itself.

    Args:
        session: it leads a session of its own.

    Raises:
        OSError: there is no room for another process.
    """
    read, write = os.pipe()
    if between := os.fork():
        os.close(write)
        with os.fdopen(read, "rb") as told:
            pid = told.read()
        os.waitpid(between, 0)
        if not pid:
            raise OSError("no room for another process")
        return int(pid)
    between = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    os.close(read)
    while os.getppid() == between:
        time.sleep(0.001)
    if session:
        os.setsid()
    os.write(write, str(os.getpid()).encode())
    os.close(write)
    return None
