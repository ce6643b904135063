"""The experiment tracker, W&B. Without a server or key the same calls write offline runs for `wandb sync`.

This is the only module that knows which mode W&B is in.
"""

import contextlib
import logging
import netrc
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from sweeps.runs import Run

Mode = Literal["online", "offline", "disabled"]


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


@contextlib.contextmanager
def tracked(run: Run, *, job: str, group: str | None = None) -> Iterator[Any]:
    """The tracker's run of this id, begun or continued; finished on the way out.

    Args:
        run: its id is the tracker's run id, its directory holds the offline files.
        job: "train" or "probe".
        group: the sweep, so that the dashboard groups its runs.
    """
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    config = run.config
    tracker = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "moe"),
        id=run.id,
        name=f"{config.data.name}-E{config.model.experts}-s{config.seed}-{run.id[:4]}",
        group=group,
        job_type=job,
        dir=str(run.path),
        config=config.scientific(),
        mode=mode()[0],
        resume="allow" if mode()[0] == "online" else None,
        settings=wandb.Settings(silent=True, console="off"),
    )
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.finish(exit_code=1 if failed else 0)


def log_files(tracker: Any, prefix: str, folder: Path) -> None:
    """Log a folder's tables (.csv) and pictures (.png) under `prefix/<file name>`."""
    import csv

    import wandb

    media: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png":
            media[f"{prefix}/{path.stem}"] = wandb.Image(str(path))
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                header, *rows = list(csv.reader(file))
            media[f"{prefix}/{path.stem}_table"] = wandb.Table(columns=list[str | int](header), data=_typed(rows))
    tracker.log(media)


def _typed(rows: list[list[str]]) -> list[Iterable[Any]]:
    """CSV cells with a column's numbers as numbers, if it holds nothing else: W&B refuses a mixture."""
    columns = [[_number(cell) for cell in column] for column in zip(*rows, strict=True)]
    texts = [any(isinstance(cell, str) for cell in column) for column in columns]
    return [
        [cell if text else number for cell, text, number in zip(row, texts, numbers, strict=True)]
        for row, numbers in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def _number(cell: str) -> float | str | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def log_numbers(tracker: Any, values: Mapping[str, float]) -> None:
    """Put headline numbers into the run's summary."""
    tracker.summary.update(dict(values))


def log_model(tracker: Any, run: Run) -> None:
    """Log the exported model as the artifact `model-<id>`."""
    import wandb

    artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=run.config.scientific())
    for file in sorted(run.model.iterdir()):
        artifact.add_file(str(file))
    tracker.log_artifact(artifact, aliases=["last"])
