"""What a run has in W&B, kept in its `tracker.json`, and where the runs of a sweep belong there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel, ConfigDict, TypeAdapter

from moe.errors import UserError
from sweeps.runs.files import read_json, read_typed, unless_damaged, write_json
from sweeps.runs.folders import SweepFolder, TrackedFolder
from sweeps.tracking.connection import project

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
        stopped: a person stopped it in W&B; when it goes on all the same, it does not obey W&B's memory of that.
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
