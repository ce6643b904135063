"""An agent: takes cells from the backend and runs each in a fresh worker process until none is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from sweeps.backend import Claim
from sweeps.exit_codes import INTERRUPTED, USER_MISTAKE
from sweeps.launch import LaunchedSweep
from sweeps.runs import Run

ATTEMPTS = 3
_POLL, _STOP_POLL, _GRACE = 0.2, 2.0, 60.0


class Agent:
    """Runs cells of one sweep until no cell waits.

    Args:
        sweep: what to run.
        report: takes one line of text for each trial that starts or ends.
    """

    def __init__(self, sweep: LaunchedSweep, report: Callable[[str], None]) -> None:
        self.sweep = sweep
        self.backend = sweep.backend()
        self.report = report
        self._stopping = False

    def run(self) -> int:
        """Work until nothing waits; returns the number of cells that this agent finished."""
        finished = 0
        with _on_signal(self._stop):
            while not self._should_stop():
                claim = self.backend.claim()
                if claim is None:
                    # an agent beside us may have died: take over what it left
                    if self.backend.recover() == 0:
                        break
                    continue
                finished += self._run_claim(claim)
        self.backend.close()
        return finished

    def _stop(self) -> None:
        self._stopping = True

    def _should_stop(self) -> bool:
        return self._stopping or self.backend.stop_requested()

    def _run_claim(self, claim: Claim) -> bool:
        run = self.sweep.store.run(claim.job.run_id)
        if run.finished:  # by `moe train`, or under another sweep
            self.backend.finish(claim, _metric(run))
            self.report(f"{run.id} was finished already")
            return True
        self.report(f"{run.id} started (attempt {claim.attempt})")
        logged = run.log_file.stat().st_size if run.log_file.exists() else 0
        code = self._work(run)
        if code == 0 and self.sweep.store.run(run.id).finished:
            self.backend.finish(claim, _metric(run))
            self.report(f"{run.id} finished")
            return True
        if code == INTERRUPTED or self._should_stop():
            self.backend.release(claim)
            self.report(f"{run.id} handed back")
            return False
        reason = failure(run, code, logged)
        retry = claim.attempt < ATTEMPTS and code != USER_MISTAKE
        self.backend.fail(claim, reason, retry=retry)
        self.report(f"{run.id} failed ({reason}); {'trying again' if retry else 'giving up'}; see {run.log_file}")
        return False

    def _work(self, run: Run) -> int:
        """Train in a worker process; returns its exit code."""
        command = [sys.executable, "-P", "-m", "cli", "train", "--config", str(run.config_file)]
        environment = os.environ | {
            "MOE_HOME": str(self.sweep.root.absolute()), "MOE_SWEEP": self.sweep.name, "MOE_FOLLOW_STDIN": "1",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        with run.log_file.open("ab") as log:
            worker = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                return self._wait(worker)
            finally:
                if worker.stdin:
                    worker.stdin.close()
                worker.wait()

    def _wait(self, worker: subprocess.Popen[bytes]) -> int:
        asked, looked = None, time.monotonic()
        while worker.poll() is None:
            time.sleep(_POLL)
            if asked is None and time.monotonic() - looked > _STOP_POLL:
                looked = time.monotonic()
                self._stopping |= self.backend.stop_requested()
            if self._stopping and asked is None:
                asked = time.monotonic()
                worker.send_signal(signal.SIGTERM)
            if asked is not None and time.monotonic() - asked > _GRACE:
                worker.kill()
        return worker.returncode


def _metric(run: Run) -> float | None:
    value = run.summary.get("last", {}).get("val/loss")
    return float(value) if value is not None else None


def failure(run: Run, code: int, logged: int = 0) -> str:
    """Why a worker ended, in one line.

    Args:
        run: what it trained.
        code: its exit code.
        logged: size of the run's log, in bytes, before it started.
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    text = run.log_file.read_bytes()[logged:].decode(errors="replace") if run.log_file.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return next(reversed(errors or lines), "it printed nothing")


@contextlib.contextmanager
def _on_signal(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on SIGTERM and Ctrl-C instead of ending at once."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        act()

    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def follow_stdin() -> None:
    """End this process (by SIGTERM, so that it can checkpoint) when its standard input closes.

    Its parent holds the other end, so this notices the parent's death even by `kill -9`.
    """

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()
