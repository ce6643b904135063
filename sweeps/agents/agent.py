"""An agent: takes cells from the queue and runs each in a fresh worker process until none is left."""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from moe.errors import UserError
from sweeps.agents.devices import Device
from sweeps.agents.foreign_agent import look_after
from sweeps.agents.worker import GRACE, Worker, environment
from sweeps.plan.draws import NothingNewError
from sweeps.queue.base import AwayError, Claim, LeaseLostError
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.leases import BEAT, LEASE
from sweeps.queue.opening import open_queue, steering
from sweeps.runs.endings import Ending, ending_of_exit, exit_code_of, lack_of_memory, memory_kills
from sweeps.runs.run import Run
from sweeps.runs.signals import handling
from sweeps.tracking.mirror import tell_failure

FAILURES = 3
_POLL, _STOP_POLL = 0.2, 2.0
_TAIL = 20
_AWAY = (AwayError, OperationalError)

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """When an attempt is taken for hung.

    Attributes:
        minutes: for the whole attempt; None: no limit.
        silence: minutes without any sign of life (log, progress, metrics).
    """

    minutes: float | None = None
    silence: float = 30.0


def work(
    sweep: LaunchedSweep,
    device: Device,
    report: Callable[[str], None],
    limits: "Limits | None" = None,
    *,
    left_over: bool = False,
) -> int:
    """Serve a sweep's queue until no cell waits; returns the number of cells that this agent finished itself.

    Args:
        sweep: what to work on.
        device: what to run it on.
        report: takes one line of text for each trial that starts or ends.
        limits: when to give an attempt up.
        left_over: claim cells even where the queue's service has agents of its own.

    Raises:
        UserError: the sweep was told to stop.
        ForeignAgentError: the service's own agent ended with an error.
        OSError: the disk is full; the cell that met it was handed back.
    """
    with contextlib.closing(open_queue(sweep)) as queue:
        command = queue.agent_command()
        if command and not left_over:
            look_after(command, sweep, device, queue.stop_requested)
            return 0
        if queue.stop_requested():
            name = sweep.name
            raise UserError(
                f"sweep {name} was told to stop; `moe sweep resume {quote(name)}` withdraws that and goes on"
            )
    finished = Agent(sweep, report, device, limits).run()
    report(f"nothing waits any more; this agent finished {finished}")
    return finished


@dataclass(frozen=True)
class Ended:
    """How a trial ended, and why in one line."""

    ending: Ending
    reason: str


class Agent:
    """Runs cells of one sweep until no cell waits.

    Args:
        sweep: what to run.
        report: takes one line of text for each trial that starts or ends.
        device: what to run it on.
        limits: when to give an attempt up.
    """

    def __init__(
        self,
        sweep: LaunchedSweep,
        report: Callable[[str], None],
        device: Device | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.sweep = sweep
        self.queue = open_queue(sweep)
        self.report = report
        self.device = device or Device()
        self.limits = limits or Limits()
        self.steering = steering(sweep, self.queue)
        self._environment = environment(sweep.root, sweep.name, self.device.environment())
        self._spare: Worker | None = None
        self._stopping = False
        self._full: Run | None = None  # on whose disk there is no room
        self._looked = self._beaten = time.monotonic()

    def run(self) -> int:
        """Work until nothing waits; returns the number of cells that this agent finished.

        Raises:
            OSError: the disk is full.
        """
        finished, idle = 0, None
        with handling(self._stop):
            try:
                while not (self._should_stop() or self._full):
                    claim = patiently(self.queue.claim)
                    if claim is not None:
                        finished += self._run_claim(claim)
                        idle = None
                    # other agents may be lost: take over what they left
                    elif patiently(self.queue.recover) == 0:
                        idle = idle or time.monotonic()
                        if not self._others_run(since=idle):
                            break
            finally:
                self._drop_spare()
        # Not so after an error: the lock file shows that this agent is gone, and its cell is free.
        self.queue.close()
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._full.path))
        return finished

    def _others_run(self, since: float) -> bool:
        """Whether to stay: cells run whose agents may be lost, which shows within the length of a lease."""
        self._drop_spare()
        if time.monotonic() - since > LEASE + BEAT:
            return False
        if all(cell.state != "running" for cell in patiently(self.queue.states).values()):
            return False
        time.sleep(_STOP_POLL)
        return True

    def _drop_spare(self) -> None:
        if self._spare:
            self._spare.kill()
            self._spare = None

    def _stop(self, _number: int) -> None:
        self._stopping = True

    def _should_stop(self) -> bool:
        if not self._stopping and time.monotonic() - self._looked > _STOP_POLL:
            self._looked = time.monotonic()
            if patiently(self.queue.stop_requested):  # no `|=`: a signal may come while this is asked
                self._stopping = True
        return self._stopping

    def _run_claim(self, claim: Claim) -> bool:
        try:
            return self._in_place(claim)
        except LeaseLostError as error:
            self.report(f"{error}; dropped here")
        return False

    def _in_place(self, claim: Claim) -> bool:
        try:
            with self.device.hold(self.sweep.root, claim.weight, lambda: self._alive(claim)) as held:
                if held:
                    return self._attempt(claim)
                self._hand_back(claim)
        except NothingNewError as error:
            note = str(error)
            patiently(lambda: self.queue.finish(claim, Ending.NOT_NEEDED, note))
            self.report(f"{claim.cell.run_id} {note}")
        except (LeaseLostError, *_AWAY):
            raise
        except Exception as error:  # noqa: BLE001 - one cell's trouble is not the others'
            ended = Ended(ending_of_exit(exit_code_of(error)), f"{type(error).__name__}: {error}")
            if not self._lacks_room(claim, ended):
                self._failed(claim, ended)
        return False

    def _attempt(self, claim: Claim) -> bool:
        if self.steering:
            claim = self.steering.begin(claim)
        run = self.sweep.prepare(claim.cell)
        if run.finished:  # by `moe train`, or under another sweep
            return self._finish(claim, run, "was finished already")
        self.report(f"{run.id} started (attempt {claim.attempt})")
        logged = _size(run.log_file)
        kills = memory_kills()
        code, ended = self._work(claim, run, logged)
        if code == 0 and self.sweep.store.run(run.id).finished:
            return self._finish(claim, run, "finished")
        if ended is not None and ended.ending is Ending.STOPPED_EARLY:
            return self._finish(claim, run, ended.reason, ended.ending)
        ending = ending_of_exit(code)
        if ended is None and ending.for_good:
            return self._finish(claim, run, f"{ending.value} in W&B", ending)
        if ended is None and (ending is Ending.INTERRUPTED or self._stopping):
            self._hand_back(claim)
            return False
        if ended is None:
            # no error, and no finished run either
            ending = Ending.FAILED if ending is Ending.FINISHED else ending
            ended = Ended(ending, failure(run, code, logged))
            if code == -signal.SIGKILL and memory_kills() > kills:
                said = lack_of_memory(run.config, f"{ended.reason}: the machine")
                ended = Ended(Ending.OUT_OF_MEMORY, said)
        if not (self._makes_room(claim, ended) or self._lacks_room(claim, ended)):
            self._failed(claim, ended, log_tail(run, logged))
        return False

    def _failed(self, claim: Claim, ended: Ended, tail: str | None = None) -> None:
        again = ended.ending is not Ending.REFUSED and claim.failures + 1 < FAILURES
        if self.steering and not again:
            self.steering.fail(claim)
        tail = None if again else tail
        patiently(lambda: self.queue.fail(claim, ended.ending, ended.reason, retry=again, tail=tail))
        run = self.sweep.store.run(claim.cell.run_id)
        log = run.log_file
        if not again:
            tell_failure(run, ended.ending, ended.reason)
        then = "trying again" if again else "giving up"
        self.report(f"{claim.cell.run_id} failed ({ended.reason}); {then}; see {log}")

    def _finish(self, claim: Claim, run: Run, what: str, ending: Ending = Ending.FINISHED) -> bool:
        note = None if ending.has_results else what
        patiently(lambda: self.queue.finish(claim, ending, note))
        if self.steering:
            self.steering.finish(claim, run, stopped=not ending.has_results)
        self.report(f"{run.id} {what}")
        return True

    def _hand_back(self, claim: Claim) -> None:
        patiently(lambda: self.queue.release(claim, Ending.INTERRUPTED))
        self.report(f"{claim.cell.run_id} handed back")

    def _makes_room(self, claim: Claim, ended: Ended) -> bool:
        """After running out of memory beside others: hand the cell back to run with fewer beside it."""
        if ended.ending is not Ending.OUT_OF_MEMORY or claim.weight >= self.device.slots:
            return False
        weight = min(2 * claim.weight, self.device.slots)
        patiently(lambda: self.queue.release(claim, ended.ending, weight=weight))
        self.report(f"{claim.cell.run_id} ran out of memory; again with fewer runs beside it")
        return True

    def _lacks_room(self, claim: Claim, ended: Ended) -> bool:
        """On a full disk, where the next cells would fail too: hand this one back, uncounted, and end."""
        if ended.ending is not Ending.NO_ROOM:
            return False
        patiently(lambda: self.queue.release(claim, ended.ending))
        self._full = self.sweep.store.run(claim.cell.run_id)
        self.report(f"{self._full.id} handed back, as the disk is full; this agent ends")
        return True

    # --- the worker -------------------------------------------------------------------------------------------------

    def _work(self, claim: Claim, run: Run, logged: int) -> tuple[int, Ended | None]:
        """Train in a worker process; returns its exit code, and why we ended it if we did."""
        worker, self._spare = self._spare or Worker.start(self._environment), None
        try:
            self._spare = worker.another()
            worker.train(run)
            if self._spare is None and patiently(self.queue.waiting):
                self._spare = Worker.start(self._environment)
            ended = self._watch(claim, run, worker)
        except BaseException:
            worker.kill()
            raise
        return worker.end(run.log_file if _size(run.log_file) == logged else None), ended

    def _watch(self, claim: Claim, run: Run, worker: Worker) -> Ended | None:
        """Wait for the worker's end; returns why we ended it, None if it ended by itself or was asked to stop."""
        started = heard = looked = time.monotonic()
        sign, asked, ended = _sign_of_life(run), None, None
        while worker.process.poll() is None:
            time.sleep(_POLL)
            now = time.monotonic()
            self._tell(claim)
            if (new := _sign_of_life(run)) != sign:
                sign, heard = new, now
            if asked is not None:
                if now - asked > GRACE:
                    worker.kill()
                continue
            if self.limits.minutes is not None and now - started > 60 * self.limits.minutes:
                ended = Ended(Ending.TIMED_OUT, f"not finished after {self.limits.minutes:g} minutes")
            elif now - heard > 60 * self.limits.silence:
                ended = Ended(Ending.SILENT, f"no sign of life for {self.limits.silence:g} minutes")
            elif self.steering and now - looked > _STOP_POLL:
                looked = now
                early = self.steering.follow(claim, run)
                ended = Ended(Ending.STOPPED_EARLY, early) if early else None
            if ended or self._should_stop():
                asked = now
                worker.ask_to_stop()
        return ended

    def _alive(self, claim: Claim) -> bool:
        """While waiting for a slot: keep the cell, unless told to stop."""
        self._tell(claim)
        return not self._should_stop()

    def _tell(self, claim: Claim) -> None:
        """Say now and then that this agent lives."""
        if time.monotonic() - self._beaten > BEAT:
            self._beaten = time.monotonic()
            with contextlib.suppress(*_AWAY):  # the next beat may get through
                self.queue.beat(claim)


def _sign_of_life(run: Run) -> tuple[int, ...]:
    """Something that changes while a run works."""
    stats = []
    for file in (run.progress_file, run.history_file, run.log_file, run.checkpoints):
        try:
            stats.append(file.stat().st_mtime_ns)
        except FileNotFoundError:
            stats.append(0)
    return tuple(stats)


def patiently(call: Callable[[], T]) -> T:
    """The call's result; a queue that does not answer is asked again for the length of a lease."""
    end = time.monotonic() + LEASE
    while True:
        try:
            return call()
        except _AWAY:
            if time.monotonic() > end:
                raise
            time.sleep(_STOP_POLL)


def failure(run: Run, code: int, logged: int = 0) -> str:
    """Why a worker ended, in one line.

    Args:
        run: what it trained.
        code: its exit code.
        logged: size of the run's log, in bytes, before it started.
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in _log(run, logged) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return next(reversed(errors or lines), "it printed nothing")


def log_tail(run: Run, logged: int = 0) -> str:
    """The end of what a worker printed."""
    return "\n".join(_log(run, logged)[-_TAIL:])


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _log(run: Run, logged: int) -> list[str]:
    if not run.log_file.exists():
        return []
    with run.log_file.open("rb") as file:
        file.seek(logged)
        return file.read().decode(errors="replace").splitlines()
