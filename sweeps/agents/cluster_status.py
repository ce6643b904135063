"""Jobs that were submitted for a sweep: how they stand, and taking back those that have not started."""

import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from sweeps.agents.cluster import Where
from sweeps.runs.files import read_typed, unless_damaged
from sweeps.runs.folders import SweepFolder

_UNFINISHED = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"}
_PATIENCE = 60  # seconds for an answer of Slurm
_MEND = "its jobs are left out here; `squeue` and `scancel` know them"


class _Submission(BaseModel):
    """What `cluster.submit` writes down, as far as it is needed here."""

    on: Where
    ids: list[str]


_SUBMISSION: TypeAdapter[_Submission] = TypeAdapter(_Submission)


@dataclass(frozen=True)
class JobStatus:
    """A submitted job and what its scheduler says of it.

    Attributes:
        id: the scheduler's.
        on: which scheduler.
        state: in Slurm's words; ENDED if the scheduler has forgotten it, UNKNOWN if it does not answer.
        reason: why it waits, if Slurm says so.
        log: what it printed.
    """

    id: str
    on: Where
    state: str
    reason: str
    log: Path

    @property
    def unfinished(self) -> bool:
        """Whether it waits or runs."""
        return self.state in _UNFINISHED


def status(sweep: str, root: Path) -> list[JobStatus]:
    """Every job that was submitted for a sweep, oldest first, and how it stands."""
    submissions = SweepFolder(root.absolute(), sweep).submissions()
    read = ((folder, unless_damaged(partial(_record, folder), None)) for folder in submissions)
    known = [(folder, record) for folder, record in read if record is not None]
    slurm = [job for _, record in known if record.on == "slurm" for job in record.ids]
    told = _slurm_states(slurm) if slurm else {}
    result = []
    for folder, record in known:
        for job in record.ids:
            state, reason = told[job] if record.on == "slurm" else (_local_state(job, folder), "")
            result.append(JobStatus(job, record.on, state, reason, folder / f"{job}_0_log.out"))
    return result


def _record(folder: Path) -> _Submission:
    """What was submitted.

    Raises:
        DamagedFileError: the record of it does not say.
    """
    return read_typed(SweepFolder.submission(folder), _SUBMISSION, _Submission(on="local", ids=[]), _MEND)


def cancel(sweep: str, root: Path) -> list[str]:
    """Take back the jobs that have not started; returns their ids. Running agents obey the queue's stop mark."""
    waiting = [job.id for job in status(sweep, root) if job.on == "slurm" and job.state == "PENDING"]
    if waiting:
        # a job that started since we looked is let be: it finds the stop mark
        subprocess.run(["scancel", "--quiet", "--state=PENDING", *waiting], check=False, timeout=_PATIENCE)
    return waiting


def _slurm_states(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """State and reason of each job: from the queue, else from the accounts where the cluster keeps any."""
    queue = _ask("squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", "--format=%i|%T|%r")
    if queue is None:
        return dict.fromkeys(jobs, ("UNKNOWN", "squeue does not answer"))
    found = {job: (state, reason if state == "PENDING" else "") for job, state, reason in queue}
    # an array that was taken back before any of it began goes by its own number
    found |= {job: found[array] for job in jobs if job not in found and (array := job.partition("_")[0]) in found}
    forgotten = [job for job in jobs if job not in found]
    if forgotten:
        accounts = _ask("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State",
                        f"--jobs={','.join(forgotten)}")  # fmt: skip
        found |= {job: (state.split()[0], "") for job, state in accounts or []}
    return {job: found.get(job, ("ENDED", "")) for job in jobs}


def _ask(*command: str) -> list[list[str]] | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip().split("|") for line in done.stdout.splitlines() if line.strip()]


def _local_state(job: str, folder: Path) -> str:
    """Whether the process that looks after a local job lives: its number alone may have gone to another."""
    process = Path("/proc")
    if (process / "self").exists():
        with contextlib.suppress(OSError):
            return "RUNNING" if _looks_after(process / job, folder) else "ENDED"
        return "ENDED"
    try:
        os.kill(int(job), 0)
    except (ProcessLookupError, PermissionError):
        return "ENDED"
    return "RUNNING"


def _looks_after(process: Path, folder: Path) -> bool:
    command = (process / "cmdline").read_bytes()
    if command:
        return str(folder).encode() in command
    # one that is just being started shows no command yet; one that ended and was not waited for shows none any more
    return (process / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
