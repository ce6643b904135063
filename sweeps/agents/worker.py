"""The process that trains one trial: clean memory, a log of its own, ended by its agent's end.

It imports everything first and then waits for the run to train, so that an agent can have the next worker ready while
the present one trains. That one is a copy of it from before its run, where a process can be copied (`copies.py`): it
waits with everything imported, at no cost.

An agent and its worker talk through a socket, the worker's standard input: `copy`, with the copy's end of a socket of
its own, which is answered by the copy's pid; then the order, one line of JSON.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Self

from moe.importing import importing
from sweeps.agents.copies import POSSIBLE, Copy, adopting, fork_orphan
from sweeps.runs.endings import INTERRUPTED
from sweeps.runs.run import Run
from sweeps.tracking.connection import for_children

GRACE = 60.0
_IMPORTS = 60.0  # seconds that a worker may take to be ready; then there is no copy of it
_MOST_SAID = 1 << 20  # bytes
_COPY = b"copy\n"
_OURS = ("moe", "callbacks", "sweeps")
_MESSAGES = socket.SOCK_SEQPACKET if POSSIBLE else socket.SOCK_STREAM  # there an order is the only one


def follow_stdin() -> None:
    """End this process (by SIGTERM, so that it can checkpoint) when its standard input closes.

    Its parent holds the other end, so this notices the parent's death even by `kill -9`.
    """

    def wait() -> None:
        with contextlib.suppress(ConnectionResetError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


@dataclass(frozen=True)
class Worker:
    """A worker process, waiting or at work.

    Attributes:
        process: the process.
        channel: to its standard input.
        said: a file without a name: what it prints to standard error before it has an order, why an import failed, say.
        command: that waits for an order.
    """

    process: subprocess.Popen[bytes] | Copy
    channel: socket.socket
    said: IO[bytes]
    command: ClassVar[Sequence[str]] = (sys.executable, "-P", "-m", "moe_command", "worker")

    @classmethod
    def start(cls, environment: Mapping[str, str]) -> Self:
        """A new process with this environment."""
        ours, theirs = socket.socketpair(type=_MESSAGES)
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the worker lives
        with theirs:
            process = subprocess.Popen(
                cls.command,
                env=dict(environment),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        return cls(process, ours, said)

    def another(self) -> Self | None:
        """A copy of it, to be asked for before it trains; None where it cannot be copied, or does not answer."""
        if not POSSIBLE:
            return None
        ours, theirs = socket.socketpair(type=_MESSAGES)
        with theirs, contextlib.suppress(OSError), adopting():
            self.channel.settimeout(_IMPORTS)
            socket.send_fds(self.channel, [_COPY], [theirs.fileno()])
            if pid := int(self.channel.recv(64) or 0):
                copy = Copy(pid)
                copy.poll()  # fails if it is not ours
                return type(self)(copy, ours, os.fdopen(os.dup(self.said.fileno()), "rb"))
        ours.close()
        return None

    def train(self, run: Run) -> None:
        """Let it train a run and write to the run's log."""
        order = {"config": str(run.config_file.absolute()), "log": str(run.log_file.absolute())}
        with contextlib.suppress(OSError):  # it died while waiting; its exit code says so
            self.channel.send(json.dumps(order).encode() + b"\n")

    def ask_to_stop(self) -> None:
        """Let it write a checkpoint and end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self, log: Path | None = None) -> int:
        """Close its standard input, wait for its end (at most GRACE seconds); returns the exit code.

        Args:
            log: of the run that it was to train, if it did not come to writing it: gets what it said instead.
        """
        self.channel.close()
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            code = self.kill()
        if code and log and not self.said.closed:
            with contextlib.suppress(OSError), log.open("ab") as file:  # where the disk is full, say
                file.write(os.pread(self.said.fileno(), _MOST_SAID, 0))
        self.said.close()
        return code

    def kill(self) -> int:
        """End it at once, with every process of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.channel.close()
        self.said.close()
        return self.process.wait()


def environment(home: Path, sweep: str, device: Mapping[str, str]) -> dict[str, str]:
    """What a worker of this sweep sees."""
    ours = {"MOE_HOME": str(home.absolute()), "MOE_SWEEP": sweep, "PYTHONUNBUFFERED": "1"}
    return {**for_children(), **ours, **device}


def wait_for_order() -> Path | None:
    """In the worker: import what training needs, then wait for the run to train; None if the agent ended.

    From here on everything printed goes to the run's log, and the end of standard input ends this process.
    """
    with importing():
        import sweeps.training.trial  # noqa: F401 - the heavy part, while nobody waits for it

    message = _next_order()
    if not message:
        return None
    order = json.loads(message)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    config = Path(order["config"])
    if json.loads(config.read_text())["machine"]["devices"] > 1:
        # Lightning starts the other processes by the command that this one runs under
        os.environ["MOE_FOLLOW_STDIN"] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", "moe_command", "train", "--config", str(config)])  # noqa: S606
    follow_stdin()
    return config


def _next_order() -> bytes:
    """The order that comes, in the process whom it is for: this one or a copy of it; nothing if the agent ended."""
    channel, loaded = socket.socket(fileno=0), _written()
    try:
        while True:
            message, sockets, _, _ = socket.recv_fds(channel, 1 << 16, 1)
            if message != _COPY:
                return message
            with socket.socket(fileno=sockets[0]) as theirs:
                pid = _copied(loaded)
                if pid is None:
                    os.dup2(theirs.fileno(), 0)
                    continue
            with contextlib.suppress(OSError):  # the agent has ended, as the next message tells
                channel.send(str(pid).encode())
    finally:
        channel.detach()


def _copied(loaded: Mapping[str, float]) -> int | None:
    """The pid of a copy, 0 if there can be none or a new process would load other code; None in the copy."""
    import numpy as np

    try:
        pid = fork_orphan() if _untouched() and _written() == loaded else 0
    except OSError:
        return 0
    if pid is None:
        np.random.seed()  # noqa: NPY002 - as in any new process; Python's own are
    return pid


def _untouched() -> bool:
    """Whether this process has neither threads of Python nor a GPU in use, which a copy would not have."""
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return threading.active_count() == 1 and not any(path.startswith(("/dev/nvidia", "/dev/kfd")) for path in opened)


def _written() -> dict[str, float]:
    """When the files of our own modules, as far as they are loaded, were written: someone may change them meanwhile."""
    names = [name for name in sys.modules if name.partition(".")[0] in _OURS]
    files = [file for name in names if (file := getattr(sys.modules[name], "__file__", None))]
    return {file: Path(file).stat().st_mtime if Path(file).exists() else 0.0 for file in files}
