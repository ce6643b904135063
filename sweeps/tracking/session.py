"""A run of the tracker while a process has it open: the one object through which runs are logged.

Nothing that goes wrong with W&B leaves it: what was not sent is noted in the run's record, said in one sentence, and
sent by `moe runs sync` from the run's own files.
"""

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.runs.endings import INTERRUPTED, InterruptedRunError
from sweeps.runs.folders import TrackedFolder
from sweeps.runs.run import Run
from sweeps.tracking.connection import Mode, TrackerError, api, asking, connection, project
from sweeps.tracking.media import Value, wandb_values
from sweeps.tracking.record import Record, Segment, set_unconfirmed

PATIENCE = 90.0  # seconds for the server's answer at the start of a session
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

    def upload(
        self,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        *,
        aliases: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        inputs: Sequence[str] = (),
        wait: bool = False,
    ) -> None:
        """Send files as a version of an artifact; equal files are no new version.

        Args:
            name: of the artifact.
            kind: its type.
            files: by their names in the artifact.
            aliases: of this version, beside `latest`.
            metadata: of this version.
            inputs: artifacts that it was made from, as ENTITY/PROJECT/NAME:ALIAS, or NAME:ALIAS of the same project.
            wait: until the server has it, because something that is made from it follows.
        """
        import wandb

        with self._or_later(f"artifact {name} was not uploaded"):
            artifact = wandb.Artifact(name, type=kind, metadata=dict(metadata or {}))
            for each, file in files.items():
                artifact.add_file(str(file), name=each, policy="immutable")
            if self.mode == "online":
                for used in inputs:
                    self._link(name, used)
            logged = self._run.log_artifact(artifact, aliases=list(aliases))
            if wait and self.mode == "online":
                logged.wait(timeout=UPLOAD)

    def _link(self, name: str, used: str) -> None:
        """Note that an artifact is made from another; it is whole without that, so that a failure is only said."""
        try:
            with asking():
                self._run.use_artifact(used)
        except TrackerError as error:
            sys.stderr.write(f"W&B: {name} is sent without a link to {used} ({error})\n")

    def mark_preempted(self) -> None:
        """Let a W&B sweep hand this run out again."""
        with self._or_later("it was not marked as preempted"):
            self._run.mark_preempting()

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

    def show_over_epochs(self) -> None:
        """Let every metric be shown over epochs."""
        with self._or_later("metrics were not described"):
            self._run.define_metric("epoch")
            self._run.define_metric("*", step_metric="epoch")

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

    A run that is told to stop is marked as preempted, so that a W&B sweep hands it out again.

    Args:
        run: its identity is the tracker's run id, unless a W&B sweep names it; its directory holds offline files.
        group: the sweep, so that the dashboard groups its runs.
    """
    record = _claimed(run)
    record.group = group or record.group or record.sweep
    session = _begun(run, record, connection().mode, _about(run, record))
    session.show_over_epochs()
    code = 1
    try:
        yield session
        code = 0
    except InterruptedRunError:
        session.mark_preempted()
        code = INTERRUPTED
        raise
    finally:
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
    described = _metrics(record)
    session = _begun(run, record, connection().mode, about, stats=False, or_offline=not online)
    if session.mode == "online" and not session.known and not about:  # it was deleted there since
        session.describe(_about(run, record))
    session.show_over_epochs()
    try:
        yield session
    finally:
        session.close(0 if run.finished else 1)
        _describe_again(record, described)


def _metrics(record: Record) -> list[Any]:
    """How a run's metrics are described on the server; none where it is not known there or does not answer."""
    if not (record.online_before and connection().online):
        return []
    try:
        with asking():
            return list(api().run(record.path).rawconfig["_wandb"]["m"])
    except (TrackerError, KeyError):
        return []


def _describe_again(record: Record, described: list[Any]) -> None:
    """Put back what a session replaces by its own words: W&B's client forgets what an earlier one said of metrics."""
    if not described:
        return
    with contextlib.suppress(TrackerError, KeyError), asking():
        there = api().run(record.path)
        if there.rawconfig["_wandb"].get("m") != described:
            there.rawconfig["_wandb"]["m"] = described
            there.update()


@contextlib.contextmanager
def analysis(place: TrackedFolder, sweep: str, images: str) -> Iterator[TrackedRun]:
    """The tracker's run for what compares all runs of a sweep on a set of images.

    Args:
        place: directory of its `tracker.json` and offline pieces.
        sweep: name of the sweep.
        images: name of the images.
    """
    record = Record.of(place)
    record.id = f"analysis-{hashlib.sha256(f'{sweep}/{images}'.encode()).hexdigest()[:12]}"
    about = {
        "name": f"{sweep}: all experts on {images}"[:128],
        "group": sweep,
        "job_type": "analysis",
        "tags": [images[:64], sweep[:64]],
        "config": {"sweep": sweep, "images": images},
    }
    session = _begun(place, record, connection().mode, {} if record.online_before else about, stats=False)
    try:
        yield session
    finally:
        session.close(0)


def _claimed(run: Run) -> Record:
    """The run's record, with the id that a W&B sweep has for it."""
    record = Record.of(run)
    sweep, given = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    if sweep:
        new = given or record.id
        record = record.model_copy(update={"id": new, "sweep": sweep, "sent": record.sent if new == record.id else -1})
    return record.model_copy(update={"project": record.project if record.online_before else project()})


def _begun(
    place: TrackedFolder,
    record: Record,
    how: Mode,
    about: Mapping[str, Any],
    *,
    stats: bool = True,
    or_offline: bool = True,
) -> TrackedRun:
    """A session of the tracker; an offline one, unless that is of no use, where the server does not answer."""
    import wandb

    logging.getLogger("wandb").setLevel(logging.CRITICAL)  # what matters is raised
    place.path.mkdir(
        parents=True, exist_ok=True
    )  # W&B looks for a git repository there, and warns where there is no folder
    # under W&B's own agent the environment says it, and W&B takes the run's id from there alone
    sweep = {"sweep_id": record.sweep} if record.sweep and "WANDB_SWEEP_ID" not in os.environ else {}
    try:
        with asking():
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
                    **sweep,
                ),
                **about,
            )
    except TrackerError as error:
        if how != "online":
            raise
        wandb.teardown()  # its service holds on to the run's id
        if not or_offline:
            raise
        sys.stderr.write(f"W&B does not answer ({error}); this attempt is kept offline for `moe runs sync`\n")
        return _begun(place, record, "offline", about, stats=stats)
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
