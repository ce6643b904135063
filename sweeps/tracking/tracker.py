"""The experiment tracker, W&B. Without a server or key the same calls write offline runs for `moe runs sync`.

This is the only module that knows which mode W&B is in. What a run has in W&B is kept in its `tracker.json`: its id
there, the last epoch that was sent, and the offline segments that wait for a server.
"""

import contextlib
import hashlib
import logging
import netrc
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlparse

from pydantic import BaseModel, ConfigDict

from sweeps.runs.exit_codes import INTERRUPTED, InterruptedRunError
from sweeps.runs.files import read_json, write_json
from sweeps.runs.run import Run

Mode = Literal["online", "offline", "disabled"]
PATIENCE = 90.0  # seconds for the server's answer at the start of a session
UPLOAD = 600.0  # seconds at its end for what is still on its way; a trial does not wait for ever


def mode() -> tuple[Mode, str]:
    """W&B's mode and why: `WANDB_MODE` if set, online with a key, else offline. Never asks for a key."""
    chosen = os.environ.get("WANDB_MODE", "").lower()
    if chosen in ("disabled", "offline", "online"):
        return chosen, f"WANDB_MODE={chosen}"  # type: ignore[return-value]
    if chosen == "dryrun":
        return "offline", "WANDB_MODE=dryrun"
    if os.environ.get("WANDB_API_KEY"):
        return "online", "WANDB_API_KEY is set"
    if _key_in_netrc():
        return "online", "a key is stored in netrc"
    return "offline", "no W&B key is configured (`wandb login` stores one)"


def _key_in_netrc() -> bool:
    import wandb

    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url  # the latter reads W&B's files
    host = urlparse(server).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Segment(BaseModel):
    """One offline piece of a run: what one process wrote.

    Attributes:
        folder: below the run's directory.
        until: last epoch that was written into it, or before it.
        synced: whether a server has confirmed it.
    """

    model_config = ConfigDict(extra="forbid")

    folder: str
    until: int = -1
    synced: bool = False


class Record(BaseModel):
    """What `tracker.json` holds.

    Attributes:
        id: the run's in W&B: its identity, or what a W&B sweep calls it.
        entity: of the server; None before it was online.
        project: the same.
        sweep: the W&B sweep that handed it out.
        group: the name of the sweep, which groups its runs.
        unconfirmed: an upload was given up; `moe runs sync` asks the server and sends what it lacks.
        sent: last epoch in W&B, or on its way in an offline segment; -1 for none.
        segments: offline pieces, in order.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    entity: str | None = None
    project: str = "moe"
    sweep: str | None = None
    group: str | None = None
    unconfirmed: bool = False
    sent: int = -1
    segments: list[Segment] = []

    @classmethod
    def of(cls, run: Run) -> "Record":
        """A run's record; that of a new run names it by its identity."""
        stored = read_json(run.tracker_file)
        return cls(id=run.id, project=project()) if stored is None else cls.model_validate(stored)

    def save(self, run: Run) -> None:
        """Write it into the run's directory."""
        write_json(run.tracker_file, self.model_dump())

    def passed(self, run: Run, epoch: int) -> None:
        """Write down that an epoch was handed to the tracker."""
        self.sent = epoch
        if self.waiting:
            self.waiting[-1].until = epoch
        self.save(run)

    @property
    def waiting(self) -> list[Segment]:
        """Segments that no server has confirmed yet."""
        return [segment for segment in self.segments if not segment.synced]

    @property
    def path(self) -> str:
        """`ENTITY/PROJECT/ID`, as W&B names a run."""
        return "/".join(filter(None, [self.entity, self.project, self.id]))


def project() -> str:
    """The W&B project that runs go into."""
    return os.environ.get("WANDB_PROJECT", "moe")


@contextlib.contextmanager
def tracked(run: Run, *, group: str | None = None) -> Iterator[Any]:
    """The tracker's run, begun or continued, while a run is trained; closed on the way out.

    A run that is told to stop is marked as preempted, so that a W&B sweep hands it out again.

    Args:
        run: its identity is the tracker's run id, unless a W&B sweep names it; its directory holds offline files.
        group: the sweep, so that the dashboard groups its runs.
    """
    record = _claimed(run)
    record.group = group or record.group or record.sweep
    with _session(run, record, _about(run, record)) as session:
        session.define_metric("epoch")
        session.define_metric("*", step_metric="epoch")
        yield session


@contextlib.contextmanager
def reopened(run: Run) -> Iterator[Any]:
    """The tracker's run of a finished run, to add results to its summary; its history and system metrics stay."""
    record = Record.of(run)
    with _session(run, record, _about(run, record), stats=False) as session:
        yield session


@contextlib.contextmanager
def analysis(place: Run, sweep: str, images: str) -> Iterator[Any]:
    """The tracker's run for what compares all runs of a sweep on a set of images.

    Args:
        place: directory of its `tracker.json` and offline pieces; it holds nothing else of a run.
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
    with _session(place, record, about, stats=False) as session:
        yield session


def _claimed(run: Run) -> Record:
    """The run's record, with the id that a W&B sweep has for it."""
    record = Record.of(run)
    sweep, given = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    if sweep:
        new = given or record.id
        record = record.model_copy(update={"id": new, "sweep": sweep, "sent": record.sent if new == record.id else -1})
    return record.model_copy(update={"project": project() if record.entity is None else record.project})


@contextlib.contextmanager
def _session(run: Run, record: Record, about: Mapping[str, Any], *, stats: bool = True) -> Iterator[Any]:
    import wandb

    logging.getLogger("wandb").setLevel(logging.CRITICAL)  # what matters is raised
    session = _begun(run, record, mode()[0], about, stats)
    code = 1
    try:
        yield session
        code = 0
    except InterruptedRunError:
        session.mark_preempting()
        code = INTERRUPTED
        raise
    finally:
        try:
            session.finish(exit_code=code)
        except TimeoutError:
            wandb.teardown()  # its service would go on trying
            give_up(run, f"not uploaded within {UPLOAD:g} s")


def _begun(run: Run, record: Record, how: Mode, about: Mapping[str, Any], stats: bool) -> Any:
    """A session of the tracker; an offline one where the server does not answer."""
    import wandb

    # under W&B's own agent the environment says it, and W&B takes the run's id from there alone
    sweep = {"sweep_id": record.sweep} if record.sweep and "WANDB_SWEEP_ID" not in os.environ else {}
    try:
        session = wandb.init(
            project=record.project,
            entity=record.entity,
            id=record.id,
            dir=str(run.path),
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
    except wandb.errors.CommError as error:
        if how != "online":
            raise
        wandb.teardown()  # its service holds on to the run's id
        sys.stderr.write(
            f"W&B does not answer ({first_line(error)}); this attempt is kept offline for `moe runs sync`\n"
        )
        return _begun(run, record, "offline", about, stats)
    if how != "disabled":
        _note(run, record, session, online=how == "online")
    return session


def give_up(run: Run, reason: str) -> None:
    """Note that the server may lack something of a run, and go on: the run's own files have it."""
    record = Record.of(run)
    record.unconfirmed = True
    record.save(run)
    sys.stderr.write(f"W&B: {reason}; `moe runs sync` completes run {run.id}\n")


def first_line(error: Exception) -> str:
    """What an error says, in one line: W&B's go on about what was tried."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def for_children() -> dict[str, str]:
    """This process' environment for another one: without W&B's service, which ends with us."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


def _about(run: Run, record: Record) -> dict[str, Any]:
    """What the dashboard shows and filters by; the same in every session, for the newest one replaces the others."""
    config = run.config
    tags = [f"E{config.model.experts}", config.data.name[:64], *([record.group[:64]] if record.group else [])]
    return {
        "name": f"{config.data.name}-E{config.model.experts}-s{config.seed}-{run.id[:4]}",
        "group": record.group,
        "job_type": "train",
        "tags": tags,
        "config": config.scientific() | {"identity": run.id},
    }


def _note(run: Run, record: Record, session: Any, *, online: bool) -> None:
    """Write down where the run is in W&B, and the new segment of an offline one."""
    if online:
        record.entity, record.project = session.entity, session.project
        record.sent = session.starting_step - 1  # what the server has; all that is missing follows
        if not record.sent + 1:
            for segment in record.segments:  # the server has none of them: everything is sent anew
                segment.synced = True
    else:
        folder = os.path.relpath(session.settings.sync_dir, run.path)
        record.segments.append(Segment(folder=folder, until=record.sent))
    record.save(run)
