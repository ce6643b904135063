"""What a run has in W&B, kept in its `tracker.json`, its sweep there, and where the runs of a sweep belong."""

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from moe.errors import UserError
from sweeps.plan.goal import Hyperband, Metric
from sweeps.runs.endings import Ending
from sweeps.runs.files import read_json, read_typed, unless_damaged, write_json
from sweeps.runs.folders import SweepFolder, TrackedFolder
from sweeps.tracking.connection import TrackerError, api, asking, connection, project, stop_asked

_FORGET = "delete it, and `moe runs sync RUN` asks the server what it has; what lies in wandb/ beside it stays"


class Segment(BaseModel):
    """One offline piece of a run: what one process wrote.

    Attributes:
        folder: below the run's directory.
        since: last epoch that W&B had before it; None in records of earlier versions.
        until: last epoch that was written into it, or before it.
        synced: whether a server has confirmed it.
    """

    model_config = ConfigDict(extra="forbid")

    folder: str
    since: int | None = None
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
        stopped: it was stopped in W&B; when it goes on all the same, it does not obey W&B's memory of that.
        unconfirmed: the server may lack something; `moe runs sync` asks it and sends what it lacks.
        sent: last epoch in W&B, or on its way in an offline segment; -1 for none.
        segments: offline pieces, in order.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    entity: str | None = None
    project: str = "moe"
    sweep: str | None = None
    group: str | None = None
    stopped: bool = False
    unconfirmed: bool = False
    sent: int = -1
    segments: list[Segment] = []

    @classmethod
    def of(cls, place: TrackedFolder) -> "Record":
        """The record of a run or an analysis; a new one is named after its folder.

        Raises:
            DamagedFileError: the file does not hold it.
        """
        stored = read_typed(place.tracker_file, _RECORD, None, _FORGET)
        return stored or cls(id=place.id, project=project())

    def save(self, place: TrackedFolder) -> None:
        """Write it into the folder."""
        write_json(place.tracker_file, self.model_dump())

    def passed(self, place: TrackedFolder, epoch: int) -> None:
        """Write down that an epoch was handed to the tracker."""
        self.sent = epoch
        if self.waiting:
            self.waiting[-1].until = epoch
        self.save(place)

    @property
    def waiting(self) -> list[Segment]:
        """Segments that no server has confirmed yet."""
        return [segment for segment in self.segments if not segment.synced]

    @property
    def online_before(self) -> bool:
        """Whether a server has had this run."""
        return self.entity is not None

    @property
    def path(self) -> str:
        """`ENTITY/PROJECT/ID`, as W&B names a run."""
        return "/".join(filter(None, [self.entity, self.project, self.id]))


_RECORD: TypeAdapter[Record | None] = TypeAdapter(Record | None)


def set_unconfirmed(place: TrackedFolder, *, unconfirmed: bool) -> None:
    """Note whether the server may lack something of a run."""
    record = Record.of(place)
    if record.unconfirmed != unconfirmed:
        record.model_copy(update={"unconfirmed": unconfirmed}).save(place)


def config_of_sweep(record: Record) -> Mapping[str, Any]:
    """What the server has of the sweep of a run; nothing if there is none, or it does not answer."""
    path = "/".join(filter(None, [record.entity or os.environ.get("WANDB_ENTITY"), record.project, record.sweep]))
    with contextlib.suppress(TrackerError), asking():
        return api().sweep(path).config if record.sweep else {}
    return {}


def agent_told_to_stop(record: Record) -> bool:
    """Whether a person has asked W&B to stop a run that its agent has told to end."""
    if "WANDB_SWEEP_ID" not in os.environ:
        return False  # its client would have said so
    with contextlib.suppress(TrackerError):
        return stop_asked(record.entity, record.project, record.id)
    return False


def stopped_by(record: Record) -> Ending:
    """Who ended a run that W&B told to stop: a person, or early termination of its sweep.

    W&B tells runs in the same way. So its rule is asked whether it had a reason: if what the run logged was not among
    the best at a bracket, it was early termination. A server that does not answer leaves that open; then it was too.
    """
    config = config_of_sweep(record)
    if not (config.get("early_terminate") and config.get("metric")):
        return Ending.STOPPED
    metric = Metric(config["metric"]["name"], config["metric"].get("goal", "minimize"))
    try:
        logged = _logged(record, metric)
    except TrackerError:
        return Ending.STOPPED_EARLY
    own = logged.pop(record.id, [])
    early = Hyperband.of(config["early_terminate"]).ends(own, list(logged.values()))
    return Ending.STOPPED_EARLY if early else Ending.STOPPED


def _logged(record: Record, metric: Metric) -> dict[str, list[float]]:
    """What each run of a sweep has logged of a metric, by the run's id: in order, smaller being better.

    Raises:
        TrackerError: the server does not answer.
    """
    from wandb.apis.public.sweeps import _sweep_with_runs  # one question for all runs; the public one asks for each

    asked = json.dumps({"keys": ["_step", metric.name], "samples": 100_000})
    with asking():
        found = _sweep_with_runs(api(), str(record.sweep), asked, project=record.project, entity=record.entity)
    values = {
        run["name"]: [row[metric.name] for rows in run["sampledHistory"] for row in rows] for run in found["runs"]
    }
    return {
        name: [metric.cost(value) for value in those if isinstance(value, int | float) and math.isfinite(value)]
        for name, those in values.items()
    }


def metrics_described(record: Record) -> list[Any]:
    """How a run's metrics are described on the server; none where it is not known there or does not answer."""
    if not (record.online_before and connection().online):
        return []
    try:
        with asking():
            return list(api().run(record.path).rawconfig["_wandb"]["m"])
    except (TrackerError, KeyError):
        return []


def describe_metrics_again(record: Record, described: list[Any]) -> None:
    """Put back what a session replaces by its own words: W&B's client forgets what an earlier one said of metrics."""
    if not described:
        return
    with contextlib.suppress(TrackerError, KeyError), asking():
        there = api().run(record.path)
        if there.rawconfig["_wandb"].get("m") != described:
            there.rawconfig["_wandb"]["m"] = described
            there.update()


@dataclass(frozen=True)
class Remote:
    """A sweep's place on a W&B server: ENTITY/PROJECT/SWEEP."""

    entity: str
    project: str
    id: str

    @classmethod
    def of(cls, path: str) -> "Remote":
        """From ENTITY/PROJECT/SWEEP.

        Raises:
            UserError: the path has other parts.
        """
        parts = path.split("/")
        if len(parts) != 3 or not all(parts):
            raise UserError(f'"{path}" is no W&B sweep; write ENTITY/PROJECT/SWEEP, as `moe sweep ls` shows it')
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.id}"

    @property
    def place(self) -> dict[str, Any]:
        """Where its runs lie, as their records say it."""
        return {"sweep": self.id, "entity": self.entity, "project": self.project}


def place_of_sweep(sweep: SweepFolder) -> tuple[str | None, str]:
    """Entity and project of a sweep's runs: where W&B's server has it, else as its file or the environment says."""
    definition = unless_damaged(partial(read_json, sweep.definition), None) or {}
    address = str(definition.get("address") or definition.get("remote") or "").split("/")
    if definition.get("queue", "wandb") == "wandb" and len(address) == 3:
        return address[0], address[1]
    raw = definition.get("raw", {})
    return raw.get("entity"), raw.get("project") or project()


def place_of_runs(sweep: SweepFolder, runs: Sequence[TrackedFolder]) -> tuple[str | None, str]:
    """Entity and project of what compares runs of a sweep: those of the runs, if they have any."""
    records = [Record.of(run) for run in runs if run.tracker_file.exists()]
    first = next((record for record in records if record.online_before), next(iter(records), None))
    return (first.entity, first.project) if first else place_of_sweep(sweep)
