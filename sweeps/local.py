"""The local backend: an Optuna study on SQLite as the queue.

One Optuna trial is one attempt at one cell; cells are expanded by us and claimed by id. Two things make a claim
exclusive: the database changes a trial from WAITING to RUNNING for one claimant only (BEGIN IMMEDIATE, without which
SQLite lets two readers both see WAITING), and the agent holds the cell's lock file, which the operating system frees
when the agent dies. RUNNING without a held lock is therefore a cell whose agent is gone.
"""

import contextlib
import fcntl
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from sweeps.backend import Claim, Job, JobState
from sweeps.runs import State, is_locked

_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "failed",
}
_TRIES, _PAUSE = 5, 0.01
_RUN, _VALUES, _ATTEMPT, _ERROR, _STOP = "run_id", "values", "attempt", "error", "stop"


def sqlite_storage(path: Path) -> RDBStorage:
    """Optuna's storage in a SQLite file that several processes write to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.create").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two processes that create the tables at once would collide
        storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
    engine = storage.engine
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred; ours follows
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA busy_timeout=60000")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return storage


class LocalBackend:
    """SweepBackend on one machine, in `root`.

    Args:
        sweep: name of the sweep, also of the Optuna study.
        root: `MOE_HOME`.
        cells: run ids that belong to the sweep now; cells of an earlier version of its file are let be.
    """

    def __init__(self, sweep: str, root: Path, cells: Collection[str] | None = None) -> None:
        self.cells = None if cells is None else frozenset(cells)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.locks = root / "sweeps" / sweep / "locks"
        self.storage = sqlite_storage(root / "studies.db")
        self.study = optuna.create_study(
            storage=self.storage, study_name=sweep, direction="minimize", load_if_exists=True
        )
        self._held: dict[str, IO[str]] = {}

    def publish(self, jobs: Sequence[Job]) -> None:
        """Enqueue the cells that have no attempt yet."""
        known = {trial.user_attrs[_RUN] for trial in self._trials()}
        for job in jobs:
            if job.run_id not in known:
                self._enqueue(job, attempt=1)

    def publish_again(self, jobs: Sequence[Job]) -> None:
        """Enqueue finished cells once more."""
        for job in jobs:
            self._enqueue(job, attempt=1)

    def _trials(self) -> list[FrozenTrial]:
        trials = (t for t in self.study.get_trials(deepcopy=False) if _RUN in t.user_attrs)
        return [t for t in trials if self.cells is None or t.user_attrs[_RUN] in self.cells]

    def _enqueue(self, job: Job, attempt: int) -> None:
        attributes = {_RUN: job.run_id, _VALUES: job.values, _ATTEMPT: attempt}
        self.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=attributes))

    def _lock_file(self, run_id: str) -> Path:
        return self.locks / f"{run_id}.lock"

    def claim(self) -> Claim | None:
        """The first waiting cell that no one else takes."""
        for trial in self._trials():
            if trial.state is TrialState.WAITING and (claim := self._try(trial)):
                return claim
        return None

    def _try(self, trial: FrozenTrial) -> Claim | None:
        job = _job(trial)
        if not self._hold(job.run_id):
            return None
        try:
            claimed = self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)  # noqa: SLF001
        except UpdateFinishedTrialError:  # another agent took and finished it since we read the queue
            claimed = False
        if not claimed:
            self._let_go(job.run_id)
            return None
        return Claim(job, trial._trial_id, trial.user_attrs[_ATTEMPT])  # noqa: SLF001

    def _hold(self, run_id: str) -> bool:
        path = self._lock_file(run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        for _ in range(_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE)  # `is_locked` takes a lock for an instant to look at it
            else:
                self._held[run_id] = file
                return True
        file.close()
        return False

    def _let_go(self, run_id: str) -> None:
        self._held.pop(run_id).close()

    def finish(self, claim: Claim, value: float | None) -> None:
        """Record the attempt as complete."""
        self.storage.set_trial_state_values(
            claim.trial, TrialState.COMPLETE, [value if value is not None else float("inf")]
        )
        self._let_go(claim.job.run_id)

    def fail(self, claim: Claim, reason: str, *, retry: bool) -> None:
        """Record the attempt as failed."""
        self._close(claim.trial, reason)
        if retry:
            self._enqueue(claim.job, claim.attempt + 1)
        self._let_go(claim.job.run_id)

    def release(self, claim: Claim) -> None:
        """Record the attempt as handed back; the cell waits under the same attempt number."""
        self._close(claim.trial, "handed back")
        self._enqueue(claim.job, claim.attempt)
        self._let_go(claim.job.run_id)

    def _close(self, trial: int, reason: str) -> None:
        self.storage.set_trial_user_attr(trial, _ERROR, reason)
        self.storage.set_trial_state_values(trial, TrialState.FAIL)

    def recover(self, *, failed: bool = False) -> int:
        """Re-queue cells whose agent is gone, and with `failed` those that failed for good."""
        count = 0
        for run_id, trial in self._newest().items():
            lost = trial.state is TrialState.RUNNING
            if not (lost or (failed and trial.state is TrialState.FAIL)) or not self._hold(run_id):
                continue
            # read again under the lock: its agent may have finished it, or another process recovered it
            if self._newest()[run_id].number == trial.number:
                current = self.study.get_trials(deepcopy=False)[trial.number]
                if current.state is trial.state:
                    if lost:
                        self._close(trial._trial_id, "its agent ended without a word")  # noqa: SLF001
                    self._enqueue(_job(trial), trial.user_attrs[_ATTEMPT] + 1 if lost else 1)
                    count += 1
            self._let_go(run_id)
        return count

    def _newest(self) -> dict[str, FrozenTrial]:
        return {trial.user_attrs[_RUN]: trial for trial in self._trials()}

    def states(self) -> dict[str, JobState]:
        """State of every cell; one whose agent is gone counts as waiting."""
        result = {}
        for run_id, trial in self._newest().items():
            state = _STATES[trial.state]
            error = trial.user_attrs.get(_ERROR)
            attempts = trial.user_attrs[_ATTEMPT] - (state == "waiting")
            if state == "running" and not is_locked(self._lock_file(run_id)):
                state, error = "waiting", "interrupted: its agent is gone"
            result[run_id] = JobState(state, attempts, error)
        return result

    def request_stop(self, *, stop: bool) -> None:
        """Set or clear the study's stop mark."""
        self.study.set_user_attr(_STOP, stop)

    def stop_requested(self) -> bool:
        """Read the study's stop mark."""
        return bool(self.study.user_attrs.get(_STOP, False))

    def close(self) -> None:
        """Free locks and connections."""
        for run_id in list(self._held):
            self._let_go(run_id)
        with contextlib.suppress(AttributeError):
            self.storage.remove_session()
        self.storage.engine.dispose()


def _job(trial: FrozenTrial) -> Job:
    return Job(trial.user_attrs[_RUN], trial.user_attrs[_VALUES])
