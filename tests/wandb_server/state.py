"""What the server holds. Tests read these objects; only the handlers change them."""

import base64
import copy
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

CRASH_AFTER = 300.0  # seconds without a sign of life after which W&B calls a run crashed
_BEGAN = time.time() - time.monotonic()
INTERNAL = "_wandb"  # the config key that holds the client's own notes


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(*parts: object) -> str:
    """An opaque id, base64 as W&B's are."""
    return base64.b64encode(":".join(map(str, parts)).encode()).decode()


@dataclass
class Run:
    """One run. Lines of its streams stand at the offsets that the client gave them."""

    entity: str
    project: str
    name: str  # the id in `entity/project/id`
    display_name: str
    number: int
    raw_config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # name -> key of the blob
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    sweep: str | None = None
    agent: str | None = None
    reported: str = "running"
    exit_code: int | None = None
    stop_asked: bool = False
    ended_early: bool = False  # the stop was asked for by early termination
    preempting: bool = False
    used: list[str] = field(default_factory=list)  # artifact ids
    created: str = field(default_factory=now)
    upserts: list[dict[str, Any]] = field(default_factory=list)  # the variables of each UpsertBucket
    heard: float = field(default_factory=time.monotonic)
    crash_after: float = CRASH_AFTER

    @property
    def id(self) -> str:
        return encode("Run", "v1", self.name, self.project, self.entity)

    @property
    def path(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}"

    @property
    def state(self) -> str:
        """As W&B shows it: a running run that has been silent for long has crashed."""
        if self.reported == "running" and time.monotonic() - self.heard > self.crash_after:
            return "crashed"
        return self.reported

    @property
    def heard_at(self) -> str:
        """When there was the last sign of life."""
        return datetime.fromtimestamp(round(_BEGAN + self.heard), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def config(self) -> dict[str, Any]:
        """The config as the user gave it."""
        return {key: item["value"] for key, item in self.raw_config.items() if key != INTERNAL}

    @property
    def history_lines(self) -> list[str]:
        return self.streams.setdefault("wandb-history.jsonl", [])

    @property
    def event_lines(self) -> list[str]:
        return self.streams.setdefault("wandb-events.jsonl", [])

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.history_lines]

    @property
    def events(self) -> list[dict[str, Any]]:
        """System metrics."""
        return [json.loads(line) for line in self.event_lines]

    @property
    def log(self) -> str:
        """Console output."""
        return "\n".join(self.streams.get("output.log", []))

    def series(self, key: str) -> list[Any]:
        """The values of one metric, in the order of the history."""
        return [row[key] for row in self.history if key in row]


@dataclass
class Artifact:
    """One version of an artifact collection."""

    collection: "Collection"
    index: int
    type: str
    digest: str
    id: str
    client_id: str | None
    run: Run | None
    metadata: dict[str, Any]
    description: str | None = None
    algorithm: str = "MANIFEST_MD5"
    aliases: list[str] = field(default_factory=list)
    pending_aliases: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    state: str = "PENDING"
    manifest_key: str | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)  # file name -> key of the blob
    used_by: list[Run] = field(default_factory=list)
    ttl: int = -1
    created: str = field(default_factory=now)

    @property
    def name(self) -> str:
        return f"{self.collection.name}:v{self.index}"

    @property
    def size(self) -> int:
        return sum(int(entry.get("size") or 0) for entry in self.manifest.get("contents", {}).values())


@dataclass
class Collection:
    entity: str
    project: str
    name: str
    type: str
    id: str
    versions: list[Artifact] = field(default_factory=list)

    @property
    def committed(self) -> list[Artifact]:
        return [version for version in self.versions if version.state == "COMMITTED"]

    def find(self, alias: str) -> Artifact | None:
        """The version of an alias or of a name like `v3`."""
        for version in self.committed:
            if alias in (*version.aliases, f"v{version.index}"):
                return version
        return None


@dataclass
class Agent:
    id: str
    name: str
    host: str
    sweep: "Sweep"
    current: str | None = None  # the run it was last told to do
    seen: bool = False  # whether it has reported that run as running
    commands: list[dict[str, Any]] = field(default_factory=list)  # everything it was told
    created: str = field(default_factory=now)


@dataclass
class Sweep:
    entity: str
    project: str
    name: str
    raw_config: str  # YAML
    config: dict[str, Any]
    display_name: str | None
    state: str = "RUNNING"
    runs: list[Run] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)
    queue: list[dict[str, Any]] | None = None  # grid cells not handed out yet
    created: str = field(default_factory=now)

    @property
    def id(self) -> str:
        return encode("Sweep", "v1", self.name, self.project, self.entity)


@dataclass
class View:
    """A saved workspace (type "project-view") or report (type "runs")."""

    id: str
    entity: str
    project: str
    name: str
    type: str
    display_name: str
    description: str
    spec: dict[str, Any]
    created: str = field(default_factory=now)


class Numbers:
    """1, 2, 3, ... by `next`; unlike those of itertools they can be copied."""

    def __init__(self) -> None:
        self.last = 0

    def __next__(self) -> int:
        self.last += 1
        return self.last


class State:
    """Everything, behind one lock; `blobs` are the uploaded files by the key in their URL."""

    def __init__(self, entity: str) -> None:
        self.entity = entity
        self.lock = threading.RLock()
        self.projects: dict[tuple[str, str], int] = {}
        self.runs: dict[str, Run] = {}
        self.deleted: list[str] = []  # paths of deleted runs
        self.collections: dict[tuple[str, str, str], Collection] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Agent] = {}
        self.views: dict[str, View] = {}
        self.blobs: dict[str, bytes] = {}
        self.crash_after = CRASH_AFTER
        self.ids = Numbers()
        self.base_url = ""

    def kept(self) -> dict[str, Any]:
        """A copy of all that has arrived, for another server."""
        return copy.deepcopy({name: held for name, held in vars(self).items() if name not in ("lock", "base_url")})

    def put(self, kept: dict[str, Any]) -> None:
        """Hold what another server has kept, as if it had arrived here."""
        vars(self).update(copy.deepcopy(kept))
        for run in self.runs.values():
            run.heard = time.monotonic()

    def url(self, key: str) -> str:
        """Where a blob is put and got, without a key, like a signed URL of a bucket."""
        return f"{self.base_url}/storage/{quote(key)}"

    def file_node(self, name: str, key: str) -> dict[str, Any]:
        blob = self.blobs.get(key, b"")
        digest = base64.b64encode(hashlib.md5(blob, usedforsecurity=False).digest()).decode()
        return {
            "__typename": "File",
            "id": encode("File", key),
            "name": name,
            "displayName": name,
            "url": self.url(key),
            "directUrl": self.url(key),
            "sizeBytes": len(blob),
            "mimetype": "application/octet-stream",
            "updatedAt": now(),
            "storagePath": key,
            "digest": digest,
            "md5": digest,
        }

    def project(self, entity: str | None, name: str | None) -> tuple[str, str]:
        """The project, made when it is new, as W&B does."""
        key = (entity or self.entity, name or "uncategorized")
        self.projects.setdefault(key, len(self.projects) + 1)
        return key

    def run(self, entity: str | None, project: str | None, name: str) -> Run | None:
        return self.runs.get(f"{entity or self.entity}/{project or 'uncategorized'}/{name}")

    def run_by_id(self, storage_id: str) -> Run:
        return next(run for run in self.runs.values() if run.id == storage_id)

    def make_run(self, entity: str, project: str, name: str) -> Run:
        entity, project = self.project(entity, project)
        run = Run(entity, project, name, display_name=name, number=next(self.ids), crash_after=self.crash_after)
        self.runs[run.path] = run
        return run
