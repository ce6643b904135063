"""What lies where: every file name of a run, of a sweep and of MOE_HOME is spelled here and nowhere else.

MOE_HOME/<run id>/           RunFolder
MOE_HOME/sweeps/<name>/      SweepFolder
MOE_HOME/models/<id>/        ForeignFolder
MOE_HOME/                    HomeFolder

Names alone: nothing here writes, and nothing has to exist. What the callbacks write is named in `callbacks/files.py`.
"""

import os
import socket
import uuid
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from callbacks.files import RoutingFolder
from sweeps.runs.files import read_typed, unless_damaged

RESULT = "result.json"  # a probe's headline numbers, in its folder
OVER_TRAINING = "epochs.csv"  # the same by epoch, beside it

_CONFIG, _STATE, _CHECKPOINTS = "config.json", "state.json", "checkpoints"
_SWEEPS, _DEFINITION = "sweeps", "sweep.json"
_MODELS, _ABOUT = "models", "about.json"
_ANALYSIS, _TRACKER = "analysis", "tracker.json"
_KEPT, _KEPT_MODEL = "kept", "epoch"
_PROBES, _SUBMISSION = "probes", "jobs.json"

_RESULT_OF_PROBE: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])

# what to do about a damaged file; from its last checkpoint a run goes on in seconds, and ends with all its files
PROBE_AGAIN = "`moe probe` makes it anew"
TRAIN_AGAIN = f"`moe sweep resume SWEEP` writes it again once {_STATE} beside it is deleted"
WAITS_AGAIN = "its run counts as waiting, and `moe sweep resume SWEEP` goes on from the last checkpoint"
PASSES = "it is written anew while the run is trained; delete it otherwise"


def home() -> Path:
    """Root of runs, sweeps and the study database: `MOE_HOME`, else `./runs`."""
    return Path(os.environ.get("MOE_HOME", "runs")).expanduser()


class TrackedFolder:
    """A folder whose contents have a run of their own in the tracker.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def tracker_file(self) -> Path:
        """What it has in the tracker."""
        return self.path / _TRACKER


class ProbedFolder:
    """A folder that holds results of probes, by images and probe.

    Attributes:
        path: the folder.
    """

    path: Path

    def probe(self, images: str, name: str) -> Path:
        """Folder with one probe's results on an image store."""
        return self.path / _PROBES / images / name

    def probe_result(self, images: str, name: str) -> Path:
        """One probe's headline numbers."""
        return self.probe(images, name) / RESULT

    def activations(self, images: str, epoch: int | None = None) -> Path:
        """Folder with cached activations for an image store: of the final model, or of the checkpoint of an epoch."""
        return self.path / "activations" / (images if epoch is None else f"{images}@epoch{epoch:04d}")

    def probe_results(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(images, probe, headline numbers) of every probe that was run; damaged ones are named and left out."""
        found = []
        for file in sorted((self.path / _PROBES).glob(f"*/*/{RESULT}")):
            numbers = unless_damaged(partial(read_typed, file, _RESULT_OF_PROBE, {}, PROBE_AGAIN), None)
            if numbers is not None:
                found.append((file.parts[-3], file.parts[-2], numbers))
        return found

    def probe_pictures(self) -> list[Path]:
        """Every figure of every probe that was run."""
        return sorted((self.path / _PROBES).glob("*/*/*.png"))


class RunFolder(TrackedFolder, ProbedFolder):
    """One run's folder, named by the run's id."""

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / _CONFIG

    @property
    def provenance_file(self) -> Path:
        """Versions, device, data checksums, git state."""
        return self.path / "provenance.json"

    @property
    def state_file(self) -> Path:
        """How the run stands: RunState."""
        return self.path / _STATE

    @property
    def history_file(self) -> Path:
        """Metrics of every epoch, one JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def summary_file(self) -> Path:
        """Last and best values."""
        return self.path / "summary.json"

    @property
    def progress_file(self) -> Path:
        """Where training is now."""
        return self.path / "progress.json"

    @property
    def log_file(self) -> Path:
        """What the worker process printed."""
        return self.path / "log.txt"

    @property
    def lock_file(self) -> Path:
        """Held while a process trains this run."""
        return self.path / "train.lock"

    @property
    def checkpoints(self) -> Path:
        """Folder of Lightning's checkpoints."""
        return self.path / _CHECKPOINTS

    def step_checkpoint(self, steps: int) -> Path:
        """The checkpoint after so many steps, in mid-epoch."""
        return self.checkpoints / f"step{steps:08d}.ckpt"

    def epoch_checkpoint(self, epoch: int) -> Path:
        """The checkpoint after so many epochs; the best three and the last are kept."""
        return self.checkpoints / f"epoch{epoch:04d}.ckpt"

    def checkpoint_files(self) -> list[Path]:
        """The checkpoints by name; `sweeps.training.checkpoints` says which are whole, and which is the newest."""
        return sorted(f for f in self.checkpoints.glob("*.ckpt") if f.is_file() and not f.name.startswith("."))

    @property
    def model(self) -> Path:
        """Folder of the exported model."""
        return self.path / "model"

    @property
    def best_model(self) -> Path:
        """The exported model of the epoch with the lowest validation loss; absent where that is the last."""
        return self.path / "model_best"

    def kept_model(self, epoch: int) -> Path:
        """Folder of the model that was kept after so many epochs."""
        return self.path / _KEPT / f"{_KEPT_MODEL}{epoch:04d}"

    def kept_models(self) -> dict[int, Path]:
        """The kept models by epoch."""
        numbered = ((file.name.removeprefix(_KEPT_MODEL), file) for file in self.path.glob(f"{_KEPT}/{_KEPT_MODEL}*"))
        return dict(sorted((int(number), file) for number, file in numbered if number.isdigit()))

    @property
    def data_card(self) -> Path:
        """What the images were: origin, size, statistics, checksums."""
        return self.path / "data.json"

    @property
    def portable(self) -> list[Path]:
        """The small files that travel with the model."""
        return [self.config_file, self.provenance_file, self.summary_file, self.history_file, self.data_card]

    @property
    def routing(self) -> Path:
        """Folder of every epoch's routing tables and pictures."""
        return self.path / "routing"

    @property
    def routing_files(self) -> RoutingFolder:
        """What lies in `routing`, by name."""
        return RoutingFolder(self.routing)


class SweepFolder(ProbedFolder):
    """A sweep's own folder: its definition, and what concerns all its runs. Probes in it compare runs.

    Args:
        root: `MOE_HOME`.
        name: of the sweep.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / _SWEEPS / name

    @property
    def definition(self) -> Path:
        """The sweep as launched: its file's text, its cells, its swept parameters."""
        return self.path / _DEFINITION

    def analysis(self, images: str) -> "AnalysisFolder":
        """What the tracker has of the comparison of all runs on an image store."""
        return AnalysisFolder(self, images)

    @property
    def agents(self) -> Path:
        """Folder of the lock files of agents."""
        return self.path / "agents"

    @property
    def jobs(self) -> Path:
        """Folder of what was submitted to a cluster, a numbered folder each time."""
        return self.path / "jobs"

    @staticmethod
    def submission(folder: Path) -> Path:
        """The record of one submission, in its folder."""
        return folder / _SUBMISSION

    def submissions(self) -> list[Path]:
        """Folders of all submissions, oldest first."""
        return sorted((file.parent for file in self.jobs.glob(f"*/{_SUBMISSION}")), key=lambda one: int(one.name))

    def server_agent_log(self, process: int) -> Path:
        """What an agent of W&B's printed that this process looks after."""
        return self.path / f"wandb-agent-{process}.log"

    @property
    def dashboard(self) -> Path:
        """Addresses of what was saved in the tracker's dashboard."""
        return self.path / "dashboard.json"


class FindingsFolder(TrackedFolder, ABC):
    """What the tracker has of results of probes that are no run's of ours: a run of their own there."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """`MOE_HOME`."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def found(self) -> list[tuple[ProbedFolder, str, str]]:
        """Where, on which images, which probe, of every result."""

    @abstractmethod
    def run_ids(self) -> list[str]:
        """The runs of ours that they are made from."""


class ForeignFolder(FindingsFolder, ProbedFolder):
    """The folder of a model that was trained elsewhere, named by the model's id.

    Args:
        root: `MOE_HOME`.
        name: the model's id.
    """

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root / _MODELS / name)

    @property
    def root(self) -> Path:
        """`MOE_HOME`."""
        return self.path.parents[1]

    @property
    def title(self) -> str:
        """Its id."""
        return f"model {self.id}"

    @property
    def about_file(self) -> Path:
        """What the model is."""
        return self.path / _ABOUT

    def found(self) -> list[tuple[ProbedFolder, str, str]]:
        """Every result."""
        return [(self, images, probe) for images, probe, _ in self.probe_results()]

    def run_ids(self) -> list[str]:
        """None."""
        return []


class AnalysisFolder(FindingsFolder):
    """What the tracker has of the comparison of all runs of a sweep on an image store.

    Args:
        sweep: the sweep's folder, which holds the results themselves.
        images: name of the image store.
    """

    def __init__(self, sweep: SweepFolder, images: str) -> None:
        super().__init__(sweep.path / _ANALYSIS / images)
        self.sweep, self.images = sweep, images

    @property
    def root(self) -> Path:
        """`MOE_HOME`."""
        return self.sweep.path.parents[1]

    @property
    def title(self) -> str:
        """The sweep and the images."""
        return f"{self.sweep.path.name} on {self.images}"

    def found(self) -> list[tuple[ProbedFolder, str, str]]:
        """Every result on these images."""
        return [(self.sweep, self.images, probe) for probe, _ in self.results()]

    def results(self) -> list[tuple[str, dict[str, Any]]]:
        """(probe, headline numbers) of every probe that compared the runs."""
        return [(probe, numbers) for images, probe, numbers in self.sweep.probe_results() if images == self.images]

    def run_ids(self) -> list[str]:
        """The runs that were compared."""
        return list(dict.fromkeys(run for _, numbers in self.results() for run in numbers.get("models", {})))


class HomeFolder:
    """`MOE_HOME`.

    Args:
        path: the folder; None: as the environment says.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home()

    @property
    def database(self) -> Path:
        """The queues of all sweeps, where no other database is named."""
        return self.path / "studies.db"

    @property
    def identity_file(self) -> Path:
        """A word that no other `MOE_HOME` has."""
        return self.path / _SWEEPS / ".home"

    def devices(self, device: str) -> Path:
        """Folder of the lock files of a device of this machine."""
        return self.path / _SWEEPS / ".devices" / f"{socket.gethostname()}-{device}"

    @property
    def launching(self) -> Path:
        """The lock file of a launch that looks whether a name is taken, and takes it."""
        return self.path / _SWEEPS / ".launching"

    def incoming(self) -> Path:
        """A new name for a folder that is being downloaded."""
        return self.path / f".pull-{uuid.uuid4().hex[:8]}"

    def sweeps(self) -> list[str]:
        """Names of the sweeps launched here."""
        return sorted(file.parent.name for file in self.path.glob(f"{_SWEEPS}/*/{_DEFINITION}"))

    def analyses(self) -> list[AnalysisFolder]:
        """The comparisons of runs that have something in the tracker, of all sweeps."""
        files = sorted(self.path.glob(f"{_SWEEPS}/*/{_ANALYSIS}/*/{_TRACKER}"))
        return [SweepFolder(self.path, file.parts[-4]).analysis(file.parts[-2]) for file in files]

    def models(self) -> list[str]:
        """Ids of the models that were trained elsewhere and probed here."""
        return sorted(file.parent.name for file in self.path.glob(f"{_MODELS}/*/{_ABOUT}"))

    def configs(self) -> list[Path]:
        """The configuration file of every run."""
        return list(self.path.glob(f"*/{_CONFIG}"))

    def states(self) -> list[Path]:
        """The state file of every run that was begun."""
        return list(self.path.glob(f"*/{_STATE}"))

    def checkpoints(self) -> list[Path]:
        """The folder of checkpoints of every run that has one."""
        return list(self.path.glob(f"*/{_CHECKPOINTS}"))
