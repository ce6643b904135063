"""The process that trains one trial: clean memory, a log of its own, ended by its agent's end.

It imports everything first and then waits on its standard input for the run to train, so that an agent can have the
next worker ready while the present one trains.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from moe.importing import importing
from sweeps.runs.endings import INTERRUPTED
from sweeps.runs.run import Run
from sweeps.tracking.connection import for_children

GRACE = 60.0


def follow_stdin() -> None:
    """End this process (by SIGTERM, so that it can checkpoint) when its standard input closes.

    Its parent holds the other end, so this notices the parent's death even by `kill -9`.
    """

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


class Worker:
    """A worker process, waiting or at work.

    Args:
        environment: of the process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "moe_command", "worker"],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def train(self, run: Run) -> None:
        """Let it train a run and write to the run's log."""
        if self.process.stdin is None:
            raise RuntimeError("a worker without standard input")
        order = {"config": str(run.config_file.absolute()), "log": str(run.log_file.absolute())}
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it died while waiting; its exit code says so
            return

    def ask_to_stop(self) -> None:
        """Let it write a checkpoint and end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Close its standard input, wait for its end (at most GRACE seconds); returns the exit code."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            return self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it at once, with every process of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
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

    line = sys.stdin.readline()
    if not line:
        return None
    order = json.loads(line)
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
