"""What works on this machine, and the command that mends what does not."""

import importlib.metadata
import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from moe.data.store import data_root, open_all
from moe.errors import UserError
from moe.wording import counted, reason
from sweeps.queue.storage import ENVIRONMENT, open_engine, url_of, without_password
from sweeps.runs.folders import home
from sweeps.runs.store import RunStore
from sweeps.tracking.connection import connection
from sweeps.tracking.sync import waiting

_ROOM_GB = 5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `mend` is what to do about it, empty if nothing; `fatal` stops all work."""

    name: str
    found: str
    ok: bool = True
    mend: str = ""
    fatal: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def examine() -> list[Check]:
    """Look at everything that a run needs."""
    parts = {
        "device": _devices, "W&B": _tracker, "images": _data, "runs": _storage, "queue of sweeps": _queue,
        "Slurm": _cluster, "environment": _conflicts,
    }  # fmt: skip
    return [check for name, look in parts.items() for check in _checked(name, look)]


def _checked(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    """What a check found; one that cannot look says so, and the others go on."""
    try:
        return look()
    except (OSError, UserError) as error:
        return [Check(name, f"cannot be looked at ({reason(error)})", ok=False, mend="mend the others first")]


def _devices() -> list[Check]:
    import torch
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return [Check("device", f"{names} ({versions})")]
    found = f"CPU, {counted(torch.get_num_threads(), 'thread')} ({versions})"
    return [Check("device", found, ok=False, mend="no GPU: quickstart.yaml runs, paper.yaml would take weeks")]


def _tracker() -> list[Check]:
    try:
        here = connection()
    except UserError as error:
        return [Check("W&B", str(error), ok=False, mend="no run can tell W&B anything before")]
    pieces = len(waiting(RunStore()))
    found = f"{here.mode}: {here.why}" + (f"; waiting: {counted(pieces, 'offline run')}" if pieces else "")
    if not here.online:
        mend = f"{'`wandb login`' if here.keyless else 'unset WANDB_MODE'}; then `moe runs sync` uploads offline runs"
        return [Check("W&B", found, ok=False, mend=mend)]
    if problem := here.problem():
        return [Check("W&B", found, ok=False, mend=f"{problem}; sweeps run on the local queue meanwhile")]
    return [Check("W&B", found, ok=not pieces, mend="`moe runs sync` uploads what waits" if pieces else "")]


def _data() -> list[Check]:
    stores, damaged = open_all()
    found = ", ".join(f"{store.name} ({len(store):,})" for store in stores) or "no images prepared"
    if damaged:
        problems = "; ".join(one.problem for one in damaged)
        return [Check(f"images in {data_root()}", f"{found}; {len(damaged)} damaged", ok=False, mend=problems)]
    mend = (
        "" if stores else "`moe data prepare stl10` or `moe data import NAME PATH` (synthetic images make themselves)"
    )
    return [Check(f"images in {data_root()}", found, ok=bool(stores), mend=mend)]


def _storage() -> list[Check]:
    root = home()
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        found = f"nothing can be written ({reason(error)}): what is there can be looked at, nothing trained"
        return [Check(f"runs in {root}", found, ok=False, mend="set MOE_HOME to a folder of yours", fatal=True)]
    free = shutil.disk_usage(root).free / 1e9
    mend = "" if free > _ROOM_GB else "free some space, or set MOE_HOME to another disk"
    return [Check(f"runs in {root}", f"writable, {free:.0f} GB free", ok=free > _ROOM_GB, mend=mend)]


def _queue() -> list[Check]:
    """Where the queues of sweeps live."""
    try:
        url = url_of(home(), None)
        open_engine(url, sa.MetaData()).dispose()
    except UserError as error:
        return [Check("queue of sweeps", str(error), ok=False, mend=f"set {ENVIRONMENT}, or unset it to use SQLite")]
    return [Check("queue of sweeps", without_password(url))]


def _cluster() -> list[Check]:
    if not shutil.which("sbatch"):
        return [Check("Slurm", "no sbatch here; agents run on this machine")]
    found = importlib.util.find_spec("submitit") is not None
    mend = "" if found else 'pip install "moe-experts[slurm]"'
    return [Check("Slurm", "sbatch" + (" and submitit" if found else ", but no submitit"), ok=found, mend=mend)]


def _conflicts() -> list[Check]:
    """W&B's optional local sweep controller installs a package that is also called `sweeps`."""
    try:
        version = importlib.metadata.version("sweeps")
    except importlib.metadata.PackageNotFoundError:
        return []
    found = f"the package sweeps {version} (extra wandb[sweeps]) hides ours"
    return [Check("conflict", found, ok=False, mend="pip uninstall sweeps, then reinstall moe-experts", fatal=True)]
