"""Offline runs on their way to a server: in order, resumable, nothing removed before the server has confirmed it."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moe.errors import UserError
from moe.files import remove
from moe.wording import counted
from sweeps.runs.files import unless_damaged
from sweeps.runs.folders import FindingsFolder
from sweeps.runs.foreign import foreign_runs
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore
from sweeps.tracking import session
from sweeps.tracking.connection import TrackerError, api, asking, connection, for_children
from sweeps.tracking.holdings import lacking, send_pictures
from sweeps.tracking.mirror import publish, send
from sweeps.tracking.record import Record, set_unconfirmed
from sweeps.tracking.session import TrackedRun, analysis, reopened

Place = Run | FindingsFolder  # what has a run of its own in the tracker

_SAY = 30.0  # seconds between words while a piece is uploaded
_HEADER = 7  # bytes with which W&B begins an offline piece
_MOMENT = 3.0  # seconds before a server that does not know a run is asked once more


@dataclass(frozen=True)
class Left:
    """A run that is not, or not wholly, on the server.

    Attributes:
        run: its name.
        segments: offline pieces that wait.
        reason: why the last attempt failed.
    """

    run: str
    segments: int
    reason: str = ""


def waiting(store: RunStore) -> list[Place]:
    """Runs, analyses and models of others, with something that no server has confirmed."""
    places: list[Place] = [*store.all(), *store.home.analyses(), *foreign_runs(store)]
    return [place for place in places if unless_damaged(partial(_waits, place), otherwise=False)]


def _waits(run: Place) -> bool:
    record = Record.of(run)
    return bool(record.waiting) or record.unconfirmed


def pieces(runs: Sequence[Place]) -> list[Left]:
    """What waits, run by run."""
    return [Left(_name(run), len(Record.of(run).waiting)) for run in runs]


def sync(runs: Sequence[Place], report: Callable[[str], None], *, clean: bool = False, ask: bool = False) -> list[Left]:
    """Upload offline runs through `wandb sync`; returns what is left.

    Whatever an offline piece lacks (its process was killed before it was written) is sent from the run's own files.

    Args:
        runs: which runs.
        report: takes one line a run.
        clean: remove the offline pieces that the server has confirmed.
        ask: ask the server about runs too that count as confirmed.

    Raises:
        UserError: there is no server to upload to.
    """
    here = connection()
    if not here.online:
        mend = "" if here.keyless else "; set WANDB_MODE=online for this command"
        raise UserError(f"nothing is uploaded, as W&B is {here.mode}: {here.why}{mend}")
    left: list[Left] = []
    for number, run in enumerate(runs, 1):
        record = Record.of(run)
        count = len(record.waiting)
        if count or record.unconfirmed or ask:
            if problem := here.problem():  # each run would find that out by itself, slowly
                report(f"{problem}; nothing is lost")
                return left + [Left(_name(one), len(Record.of(one).waiting), problem) for one in runs[number - 1 :]]
            report(f"[{number}/{len(runs)}] {_name(run)}: {counted(count, 'offline piece')}")
            if reason := _upload(run, report):
                left.append(Left(_name(run), len(Record.of(run).waiting), reason))
                report(f"  not uploaded: {reason}")
                continue
        if clean:
            _clean(run)
    return left


def _name(place: Place) -> str:
    """A run's id; of what compares a sweep's runs, the sweep and the images."""
    return place.id if isinstance(place, Run) else place.title


def _upload(run: Place, report: Callable[[str], None]) -> str | None:
    """Upload a run's pieces, one after the other; why that failed, or None.

    `wandb sync` ends with code 0 whatever happens, so each time the server is asked what it has. A piece of which a
    part arrived is not handed to it again, which would double that part; the rest comes from the run's own files. So
    does everything of a piece that brings nothing, because its process was killed as it was begun, or it is gone.
    """
    before = -1
    for segment in Record.of(run).segments:
        begins = before if segment.since is None else segment.since
        before = segment.until
        if segment.synced:
            continue
        piece, there, said = run.path / segment.folder, _last_epoch(Record.of(run)), ""
        if not _brings_something(piece):
            report(f"  {piece.name} brings nothing; what it lacks is sent from the run's own files")
        elif there is None or there <= begins:
            said = _wandb_sync(piece, Record.of(run), report)
        if reason := _confirm(run, segment.until):
            return f"{reason} ({said})" if said else reason
        _mark(run, segment.folder)
    return _complete(run)


def _brings_something(piece: Path) -> bool:
    """Whether an offline piece has a record behind the header of its file."""
    return any(file.stat().st_size > _HEADER for file in piece.glob("*.wandb") if file.is_file())


def _wandb_sync(piece: Path, record: Record, report: Callable[[str], None]) -> str:
    """Hand a piece to `wandb sync`, which takes its time when the server is away; what it says went wrong."""
    command = [sys.executable, "-P", "-m", "wandb", "sync", "--project", record.project]
    command += ["--entity", record.entity] if record.entity else []
    with subprocess.Popen(
        [*command, str(piece)],
        env=for_children(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        started = time.monotonic()
        while True:
            try:
                said = process.communicate(timeout=_SAY)[1]
                break
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - started
                report(f"  {piece.name}: still uploading after {seconds:.0f} s")
                if seconds > session.UPLOAD:
                    process.kill()
                    return f"not uploaded within {session.UPLOAD:g} s"
    lines = [line.removeprefix("wandb: ").strip() for line in said.splitlines()]
    return "; ".join(line for line in lines if "rror" in line)


def _last_epoch(record: Record) -> int | None:
    """The last epoch that the server has; None if it does not know the run, or does not answer."""
    try:
        with asking():
            return int(api().run(record.path).lastHistoryStep)
    except TrackerError:
        return None


def _confirm(run: Place, until: int) -> str | None:
    """Compare the server's history with the run's own up to an epoch, and send what was lost; why that failed."""
    record = Record.of(run)
    try:
        there = _held(record)
        if there is not None:
            record.entity, record.sent = there.entity, there.lastHistoryStep
            record.save(run)
        if there is None or record.sent < until:
            with _open(run) as opened:  # of one that the server does not know, all is sent
                if isinstance(run, Run):
                    send(run, opened, until=until)
            record = Record.of(run)
        with asking():
            has = {row["epoch"] for row in api().run(record.path).scan_history(keys=["epoch"])}
    except TrackerError as error:
        return f"the server did not confirm it: {error}"
    missing = [epoch for epoch in _epochs(run) if epoch <= until and epoch not in has]
    return f"the server lacks epochs {', '.join(map(str, missing))}" if missing else None


def _open(place: Place) -> AbstractContextManager[TrackedRun]:
    """A session, online or none."""
    return reopened(place, online=True) if isinstance(place, Run) else analysis(place, online=True)


def _held(record: Record) -> Any:
    """W&B's object of a run; None if the server does not know the run, of which it is asked twice.

    Raises:
        TrackerError: it does not answer.
    """
    for wait in (_MOMENT, None):
        try:
            with asking():
                return api().run(record.path)
        except TrackerError as error:
            if "ould not find run" not in str(error):
                raise
        if wait:
            time.sleep(wait)
    return None


def _complete(run: Place) -> str | None:
    """Ask the server what it holds, and send what it lacks; why it lacks something all the same, or None."""
    reason = _confirm(run, max(_epochs(run), default=-1)) or _complete_results(run)
    set_unconfirmed(run, unconfirmed=reason is not None)
    return reason


def _complete_results(run: Place) -> str | None:
    """What there is beside epochs: pictures, summary, artifacts and what they were made from."""
    try:
        found = lacking(run)
        send_pictures(run, found.files)
        if Record.of(run).unconfirmed or found.keys or found.artifacts or found.links:
            set_unconfirmed(run, unconfirmed=False)
            with _open(run) as opened:
                publish(run, opened)
            if opened.failed:
                return "the server did not take all of it"
        words = lacking(run).words()
    except TrackerError as error:
        return f"the server did not confirm it: {error}"
    return f"the server lacks {words}" if words else None


def _epochs(run: Place) -> list[int]:
    return [int(row["epoch"] or 0) for row in run.history()] if isinstance(run, Run) else []


def _mark(run: Place, folder: str) -> None:
    record = Record.of(run)
    for segment in record.segments:
        segment.synced |= segment.folder == folder
    record.save(run)


def _clean(run: Place) -> None:
    record = Record.of(run)
    for segment in record.segments:
        if segment.synced:
            remove(run.path / segment.folder)
    record.segments = record.waiting
    record.save(run)
