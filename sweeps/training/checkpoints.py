"""The checkpoints of a run: written whole, checked before they are used, never executed.

checkpoints/epoch0003.ckpt    what Lightning needs to go on after 3 epochs: tensors and plain values
checkpoints/epoch0003.json    its record: checksum, steps, and the history that belongs to it
checkpoints/step00000123.ckpt, .json    the same after 123 steps, in mid-epoch

The record is written last, once the epoch's row of history is. So a checkpoint with a record can be gone on from though
every other file of the run were lost, and one without (its process was killed in between, or it is of an earlier
version) only where the run's own history has every row. Files are read with `weights_only=True`: a pickle in them that
would run code is an unreadable file.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from callbacks.keys import Keys
from moe.data.store import sha256
from sweeps.runs.files import DamagedFileError, read_json, write_json
from sweeps.runs.run import Row, Run, by_epoch

BEST = 3  # epochs with the lowest validation loss that a run keeps, beside the last (Appendix A.1)
_WHILE_TRAINING = 2  # last epochs kept until the run ends: if the newest is damaged, one epoch is repeated

# what torch raises at files that are cut short, changed, or no checkpoints at all
_UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, pickle.PickleError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")  # Lightning needs them


class UnusableError(ValueError):
    """A checkpoint that nothing can go on from; the text says why, to stand behind its name."""


class Record(BaseModel):
    """What stands beside a checkpoint.

    Attributes:
        run: id of the run whose it is; "" in records of earlier versions.
        sha256: of the checkpoint's file.
        steps: optimiser steps behind it.
        history: the run's rows up to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    run: str = ""
    sha256: str
    steps: int
    history: list[Row]


class Position(NamedTuple):
    """Where a run goes on: the checkpoint, the steps behind it, the history up to there, whether it has a record."""

    file: Path
    steps: int
    history: list[Row]
    confirmed: bool = True


def confirm(run: Run, file: Path, steps: int, history: Sequence[Row]) -> None:
    """Write the record of a run's checkpoint: from now on it counts."""
    record = Record(run=run.id, sha256=sha256(file), steps=steps, history=list(history))
    write_json(_record_file(file), record.model_dump())


def load(file: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU, its tensors mapped from the file.

    Raises:
        UnusableError: it is damaged, or holds what no checkpoint holds.
    """
    record = _record(file)
    try:
        whole = record is None or sha256(file) == record.sha256
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True) if whole else None
    except _UNREADABLE as error:
        raise UnusableError(f"cannot be read ({type(error).__name__})") from None
    if not whole:
        raise UnusableError("differs from its checksum")
    if not (isinstance(content, dict) and isinstance(content.get("state_dict"), dict)):
        raise UnusableError("is no checkpoint")
    return content


def newest(
    run: Run, weights: Mapping[str, Tensor], steps_per_epoch: int, report: Callable[[str], None]
) -> Position | None:
    """The checkpoint with the most steps behind it that the run can go on from; the others are named.

    Args:
        run: whose.
        weights: the module's state, whose names and shapes a checkpoint must have.
        steps_per_epoch: of the run.
        report: takes a sentence for every checkpoint that is passed over.
    """
    waiting = []
    for file in run.checkpoint_files():
        try:
            waiting.append((_steps(file), _record_file(file).exists(), file))
        except UnusableError as error:
            report(_passed_over(file, error))
    for steps, confirmed, file in sorted(waiting, reverse=True):
        try:
            return Position(file, steps, _usable(run, file, steps, steps_per_epoch, weights), confirmed)
        except UnusableError as error:
            report(_passed_over(file, error))
    return None


def _passed_over(file: Path, error: UnusableError) -> str:
    return f"{file.name} {error}; trying the one before"


def _steps(file: Path) -> int:
    """Steps behind a checkpoint, from its own content or its record."""
    record = _record(file)
    if record is not None:
        return record.steps
    steps = load(file).get("global_step")
    if not isinstance(steps, int) or steps < 1:
        raise UnusableError("is no checkpoint")
    return steps


def _usable(run: Run, file: Path, steps: int, steps_per_epoch: int, weights: Mapping[str, Tensor]) -> list[Row]:
    """The history up to a checkpoint that the run can go on from."""
    epochs = steps // steps_per_epoch
    content, record = load(file), _record(file)
    if record is not None and record.run not in ("", run.id):
        raise UnusableError(f"is one of run {record.run}")
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    there = {name: getattr(tensor, "shape", None) for name, tensor in content["state_dict"].items()}
    if content.get("global_step") != steps or there != shapes or any(part not in content for part in _PARTS):
        raise UnusableError("holds another model, or no training state")
    rows = _rows(run) if record is None else record.history
    rows = [row for row in rows if (row.get("epoch") or 0) <= epochs]
    if not complete(rows, epochs):
        raise UnusableError(f"has no complete history of its {epochs} epochs" if epochs else "has no history")
    return rows


def _rows(run: Run) -> list[Row]:
    try:
        return run.history_rows()
    except (OSError, ValueError):
        return []


def complete(rows: Sequence[Row], epochs: int) -> bool:
    """Whether rows have everything of the untrained model and of each epoch up to `epochs`."""
    found = by_epoch(rows)
    both = {Keys.VAL_LOSS, Keys.TRAIN_LOSS}
    needed = {epoch: both if epoch else {Keys.VAL_LOSS} for epoch in range(epochs + 1)}
    return all(keys <= found.get(epoch, {}).keys() for epoch, keys in needed.items())


def best_first(rows: Sequence[Row]) -> list[int]:
    """Epochs of training by validation loss, the lowest first; of equal ones the first; NaN last."""
    trained = {epoch: row.get(Keys.VAL_LOSS) for epoch, row in by_epoch(rows).items() if epoch}
    return sorted(trained, key=lambda epoch: (math.inf if trained[epoch] is None else trained[epoch], epoch))


def prune(run: Run, rows: Sequence[Row], *, besides: Path | None = None) -> None:
    """Remove all checkpoints but those of the best epochs and the last; what a killed process left behind too.

    Args:
        run: whose.
        rows: its history up to now.
        besides: the newest checkpoint of a run in training, which keeps the last epoch but one as well.
    """
    best = best_first(rows)
    last = sorted(best)[-1 if besides is None else -_WHILE_TRAINING :]
    kept = {run.epoch_checkpoint(epochs) for epochs in (*best[:BEST], *last)} | ({besides} if besides else set())
    kept |= {_record_file(file) for file in kept}
    for file in run.checkpoints.iterdir():
        ours = file.suffix in (".ckpt", ".json") or file.name.startswith(".")
        if ours and file not in kept and file.is_file():
            file.unlink(missing_ok=True)


def _record_file(file: Path) -> Path:
    return file.with_suffix(".json")


def _record(file: Path) -> Record | None:
    """A checkpoint's record; None where there is none.

    Raises:
        UnusableError: it is damaged.
    """
    try:
        found = read_json(_record_file(file))
        return None if found is None else Record.model_validate(found)
    except (DamagedFileError, ValidationError):
        raise UnusableError(f"has a damaged record, {_record_file(file).name}") from None
