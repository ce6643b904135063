"""A run of the tracker while a process has it open: the one object through which runs are logged.

Nothing that goes wrong with W&B leaves it: what was not sent is noted in the run's record, said in one sentence, and
sent by `moe runs sync` from the run's own files.
"""

import contextlib
import hashlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from callbacks.keys import PER_EXPERT
from sweeps.runs.endings import FAILURE, INTERRUPTED, Ending, InterruptedRunError, StoppedRunError, exit_code_of
from sweeps.runs.folders import AnalysisFolder, FindingsFolder, SweepFolder, TrackedFolder
from sweeps.runs.foreign import ForeignRun
from sweeps.runs.run import Run
from sweeps.tracking.connection import (
    Mode,
    TrackerError,
    asking,
    connection,
    no_room,
    project,
    stop_asked,
    without_key,
)
from sweeps.tracking.media import Parcel, Value, wandb_values
from sweeps.tracking.record import (
    Record,
    Segment,
    agent_told_to_stop,
    config_of_sweep,
    describe_metrics_again,
    metrics_described,
    place_of_runs,
    place_of_sweep,
    set_unconfirmed,
    stopped_by,
)

PATIENCE = 90.0  # seconds for the server's answer at the start of a session
ANALYSIS = "analysis"  # the kind of run that compares others
FOREIGN = "probe"  # the kind of run that has what probes found of a model trained elsewhere
ENDED = ("ending", "failure")  # keys of the summary: how the last attempt ended, and the error that it ended by
UPLOAD = 600.0  # seconds at its end for what is still on its way; a trial does not wait for ever


class TrackedRun:
    """A run of the tracker, open. With W&B disabled every method does nothing.

    Args:
        place: whose it is; what is not sent is noted there.
        run: W&B's object.

    Attributes:
        id: in the tracker.
        failed: whether something was not sent.
        mode_begun: its mode, also after its end.
    """

    def __init__(self, place: TrackedFolder, run: Any) -> None:
        self.place = place
        self.id = str(run.id)
        self._run = run
        self.failed = False
        self.mode_begun = self.mode

    @property
    def mode(self) -> Mode:
        """What becomes of what is logged here: an online session is offline if the server did not answer."""
        return "disabled" if self._run.disabled else "offline" if self._run.offline else "online"

    @property
    def known(self) -> bool:
        """Whether the server had this run before the session."""
        return bool(self._run.resumed)

    def log(self, epoch: int, values: Mapping[str, Value]) -> None:
        """Add one epoch to the history."""
        with self._or_later("an epoch was not sent"):
            self._run.log(wandb_values(values), step=epoch, commit=True)

    def summarise(self, values: Mapping[str, Value]) -> None:
        """Put values into the summary, in place of older ones; the history stays as it is."""
        with self._or_later("the summary was not sent"):
            self._run.summary.update(wandb_values(values))

    def upload(self, parcel: Parcel, *, wait: bool = False) -> None:
        """Send files as a version of an artifact; equal files are no new version.

        An offline session cannot say what they were made from; `moe runs sync` does.

        Args:
            parcel: the files.
            wait: until the server has them, because something that is made from them follows.
        """
        for used in parcel.inputs if self.mode == "online" else ():
            with self._or_later(f"artifact {parcel.name} was not linked to {used}"):
                self._run.use_artifact(used)
        with self._or_later(f"artifact {parcel.name} was not uploaded"):
            logged = self._run.log_artifact(parcel.version(), aliases=list(parcel.aliases))
            if wait and self.mode == "online":
                logged.wait(timeout=UPLOAD)

    def mark_preempted(self) -> None:
        """Let a W&B sweep hand this run out again."""
        with self._or_later("it was not marked as preempted"):
            self._run.mark_preempting()

    def say_how_it_ended(self, words: Mapping[str, str]) -> None:
        """Put how an attempt ended into the summary, in place of what an earlier one said; nothing if it ended well."""
        with self._or_later("how it ended was not sent"):
            for key in ENDED:
                if key in words:
                    self._run.summary[key] = words[key]
                elif key in self._run.summary.keys():  # noqa: SIM118 - W&B's summary is no Mapping
                    del self._run.summary[key]

    def keep_file(self, file: Path) -> None:
        """Send a file as it is now, to be looked at beside the run."""
        if file.is_file():
            with self._or_later(f"{file.name} was not sent"):
                self._run.save(str(file), base_path=str(file.parent), policy="now")

    def close(self, code: int) -> None:
        """End the session with an exit code; waits for what is still on its way."""
        import wandb

        try:
            with asking():
                self._run.finish(exit_code=code)
        except TrackerError as error:
            with contextlib.suppress(Exception):
                wandb.teardown()  # its service would go on trying
            self.failed = True
            late = isinstance(error.__cause__, TimeoutError)
            give_up(self.place, f"not uploaded within {UPLOAD:g} s" if late else str(error))

    def describe(self, about: Mapping[str, Any]) -> None:
        """Give it a name, tags and a configuration."""
        with self._or_later("it was not described"):
            self._run.name, self._run.tags = about["name"], about["tags"]
            self._run.config.update(about["config"])

    def show_over_epochs(self, experts: int) -> None:
        """Let every metric be shown over epochs, and those of single experts be no part of the summary."""
        with self._or_later("metrics were not described"):
            self._run.define_metric("epoch")
            self._run.define_metric("*", step_metric="epoch")
            for key in (key(expert) for key in PER_EXPERT for expert in range(experts)):
                self._run.define_metric(key, step_metric="epoch", summary="none")

    @contextlib.contextmanager
    def _or_later(self, what: str) -> Iterator[None]:
        if self.mode == "disabled":
            with contextlib.suppress(Exception):  # W&B's stand-ins take everything
                yield
            return
        try:
            with asking():
                yield
        except TrackerError as error:
            if not self.failed:  # the first one says it
                give_up(self.place, f"{what} ({error})")
            self.failed = True


def give_up(place: TrackedFolder, reason: str) -> None:
    """Note that the server may lack something of a run, and go on: the run's own files have it."""
    set_unconfirmed(place, unconfirmed=True)
    sys.stderr.write(f"W&B: {reason}; `moe runs sync` completes run {place.id}\n")


@contextlib.contextmanager
def tracked(run: Run, *, group: str | None = None) -> Iterator[TrackedRun]:
    """The tracker's run, begun or continued, while a run is trained; closed on the way out.

    A run that is told to stop is marked as preempted, so that a W&B sweep hands it out again; not so one that a person
    stops in W&B, which ends for good. Why it ended stands in the summary, and its log beside it.

    Args:
        run: its identity is the tracker's run id, unless a W&B sweep names it; its directory holds offline files.
        group: the sweep, so that the dashboard groups its runs.
    """
    record = _claimed(run, group)
    asked: list[bool] = []

    def stop() -> None:  # called by W&B's client, in a thread of its own
        if not record.stopped:
            asked.append(True)
            heard = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)  # not so in a notebook's thread
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM if heard else signal.SIGINT)

    session = _begun(run, record, connection().mode, _about(run, record), stop=stop)
    session.show_over_epochs(run.config.model.experts)
    if record.stopped and session.mode == "online":
        with contextlib.suppress(TrackerError):  # a new wish counts where W&B has forgotten the old one
            record.stopped = stop_asked(record.entity, record.project, record.id)
    code, ended = FAILURE, dict[str, str]()
    try:
        yield session
        code = 0
    except InterruptedRunError as interruption:
        code, ended = INTERRUPTED, {"ending": Ending.INTERRUPTED.value}
        if not record.stopped and (asked or agent_told_to_stop(record)):
            stopped = StoppedRunError(run.id, stopped_by(record))
            code, ended = exit_code_of(stopped), {"ending": stopped.ending.value}
            Record.of(run).model_copy(update={"stopped": True}).save(run)
            raise stopped from interruption
        session.mark_preempted()
        raise
    except Exception as error:
        ended = {"ending": Ending.FAILED.value, "failure": f"{type(error).__name__}: {error}"}
        raise
    finally:
        session.say_how_it_ended(ended)
        session.keep_file(run.log_file)
        session.close(code)


@contextlib.contextmanager
def reopened(run: Run, *, online: bool = False) -> Iterator[TrackedRun]:
    """The tracker's run of a trained run, to add to its summary; its history and system metrics stay.

    However the block ends, the run is one that has finished: what fails here is not its training. What the user has
    set in the tracker since (name, tags, notes, metrics) stays.

    Args:
        run: the run.
        online: whether an offline piece is of no use.

    Raises:
        TrackerError: with `online`, the server does not answer, or refuses.
    """
    record = Record.of(run)
    about = {} if record.online_before else _about(run, record)
    described = metrics_described(record)
    session = _begun(run, record, connection().mode, about, stats=False, or_offline=not online)
    if session.mode == "online" and not session.known and not about:  # it was deleted there since
        session.describe(_about(run, record))
    session.show_over_epochs(run.config.model.experts)
    try:
        yield session
    finally:
        session.close(0 if run.finished else 1)
        describe_metrics_again(record, described)


@contextlib.contextmanager
def analysis(place: FindingsFolder, *, online: bool = False) -> Iterator[TrackedRun]:
    """The tracker's run for what compares all runs of a sweep on a set of images; it lies where these runs do.

    Or for what probes found of a model that was trained elsewhere.

    Args:
        place: directory of its `tracker.json` and offline pieces.
        online: whether an offline piece is of no use.

    Raises:
        TrackerError: with `online`, the server does not answer, or refuses.
    """
    record = Record.of(place)
    about = _about_analysis(place, record) if isinstance(place, AnalysisFolder) else _about_foreign(place)
    session = _begun(place, record, connection().mode, about, stats=False, or_offline=not online)
    try:
        yield session
    finally:
        session.close(0)


def _claimed(run: Run, group: str | None) -> Record:
    """The run's record, with the id that a W&B sweep has for it, in the place that its sweep has for its runs."""
    record = Record.of(run)
    sweep, given = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    if sweep:
        new = given or record.id
        record = record.model_copy(update={"id": new, "sweep": sweep, "sent": record.sent if new == record.id else -1})
    if not record.online_before:
        record.project = project()
        if group and not sweep:  # W&B's own agent has put its sweep's place into the environment
            record.entity, record.project = place_of_sweep(SweepFolder(run.path.parent, group))
    record.group = group or record.group or config_of_sweep(record).get("name") or record.sweep
    return record


def _begun(
    place: TrackedFolder,
    record: Record,
    how: Mode,
    about: Mapping[str, Any],
    *,
    stats: bool = True,
    or_offline: bool = True,
    stop: Callable[[], None] = lambda: None,
) -> TrackedRun:
    """A session of the tracker; an offline one, unless that is of no use, where the server does not answer.

    Where not even that can be begun, as a disk is full, say, it is one that drops everything.
    """
    import wandb

    logging.getLogger("wandb").setLevel(logging.CRITICAL)  # what matters is raised
    place.path.mkdir(parents=True, exist_ok=True)  # W&B looks for a git repository there, and warns if it is missing
    # under W&B's own agent the environment says it, and W&B takes the run's id from there alone
    sweep = {"sweep_id": record.sweep} if record.sweep and "WANDB_SWEEP_ID" not in os.environ else {}
    try:
        with asking(), contextlib.nullcontext() if how == "online" else without_key():
            run = wandb.init(
                project=record.project,
                entity=record.entity,
                id=record.id,
                dir=str(place.path),
                mode=how,
                resume="allow" if how == "online" else None,
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=PATIENCE,
                    finish_timeout=UPLOAD,
                    finish_timeout_raises=True,
                    x_disable_stats=not stats,
                    x_stats_pid=os.getpid(),  # by default who imported wandb, of whom this may be a copy
                    stop_fn=stop,
                    **sweep,
                ),
                **about,
            )
    except TrackerError as error:
        wandb.teardown()  # its service holds on to the run's id
        if how == "disabled" or not or_offline:
            raise
        if how == "offline" or no_room(error):  # what it would write here, it cannot
            give_up(place, f"{error}; nothing of this attempt is kept for it")
            return _begun(place, record, "disabled", about, stats=stats, stop=stop)
        sys.stderr.write(f"W&B: {error}; this attempt is kept offline for `moe runs sync`\n")
        return _begun(place, record, "offline", about, stats=stats, stop=stop)
    session = TrackedRun(place, run)
    if how == "online":
        _note_place(place, record, run)
    elif how == "offline":
        folder = os.path.relpath(run.settings.sync_dir, place.path)
        record.segments.append(Segment(folder=folder, since=record.sent, until=record.sent))
        record.save(place)
    return session


def _note_place(place: TrackedFolder, record: Record, run: Any) -> None:
    """Write down where the run is in W&B, and what the server has of it."""
    record.entity, record.project = run.entity, run.project
    record.sent = run.starting_step - 1  # all that is missing follows
    if not record.sent + 1:
        for segment in record.segments:  # the server has none of them: everything is sent anew
            segment.synced = True
    record.save(place)


def _about_analysis(place: AnalysisFolder, record: Record) -> dict[str, Any]:
    """What the dashboard shows of a comparison; its record gets its place there."""
    sweep, images = place.sweep.path.name, place.images
    record.id = f"analysis-{hashlib.sha256(f'{sweep}/{images}'.encode()).hexdigest()[:12]}"
    if not record.online_before:
        runs = [TrackedFolder(place.root / run_id) for run_id in place.run_ids()]
        record.entity, record.project = place_of_runs(place.sweep, runs)
    return {
        "name": f"{sweep}: all experts on {images}"[:128],
        "group": sweep,
        "job_type": ANALYSIS,
        "tags": [images[:64], sweep[:64]],
        "config": {"sweep": sweep, "images": images, "runs": place.run_ids()},
    }


def _about_foreign(place: FindingsFolder) -> dict[str, Any]:
    about = place.about if isinstance(place, ForeignRun) else {}
    return {"name": place.title, "job_type": FOREIGN, "config": about}


def _about(run: Run, record: Record) -> dict[str, Any]:
    """What the dashboard shows and filters by."""
    config = run.config
    tags = [f"E{config.model.experts}", config.data.name[:64], *([record.group[:64]] if record.group else [])]
    return {
        "name": f"{config.data.name}-E{config.model.experts}-s{config.seed}-{run.id[:4]}",
        "group": record.group,
        "job_type": "train",
        "tags": tags,
        "config": config.scientific() | {"identity": run.id},
    }
