"""What a launched sweep is: its cells, what its file says, and which queue hands the cells out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from moe.config import check_paths, from_flat
from moe.errors import UserError
from sweeps.plan.parameters import as_yaml
from sweeps.plan.spec import Cell, Sweep, budget, replicates, restore
from sweeps.queue.storage import without_password
from sweeps.runs.files import unless_damaged
from sweeps.runs.folders import SweepFolder
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore

LOCAL = "local"  # the queue of a sweep that names none
_SERVER = "wandb"  # the queue of a sweep whose definition, written by an earlier version, names a W&B sweep
_BLANK = "place-"
_GOALS = ("metric", "early_terminate")  # keys of a file that say by what a sweep goes on


@dataclass(frozen=True)
class QueuedCell:
    """One cell of a launched sweep, as its queue keeps it.

    Attributes:
        run_id: the cell's run. A blank cell, whose values are still to be found, has a number instead, such as
            "place-00003".
        values: the sweep's parameters for it, by dotted path; of a blank cell, its seed.
    """

    run_id: str
    values: dict[str, Any]


@dataclass(frozen=True)
class LaunchedSweep:
    """A sweep that was launched, here or on another machine that shares its storage.

    Attributes:
        name: what it is called by.
        root: `MOE_HOME`.
        cells: its cells, in order; those of a bayes sweep are blank.
        swept: parameters that vary, in the order of its file.
        raw: its file's contents.
        digest: of its file.
        steered: whether results decide how it goes on: a bayes sweep, or one with early termination.
        queue: name of the queue that hands its cells out.
        address: of the sweep in a service that the queue belongs to; None where there is no such service.
        storage: URL of the queue's database; None: the one in `root`.
    """

    name: str
    root: Path
    cells: tuple[QueuedCell, ...] = ()
    swept: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    steered: bool = False
    queue: str = LOCAL
    address: str | None = None
    storage: str | None = None

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        cells: Sequence[Cell],
        root: Path,
        queue: str = LOCAL,
        address: str | None = None,
        storage: str | None = None,
        *,
        blanks: tuple[QueuedCell, ...] | None = None,
    ) -> "LaunchedSweep":
        """A checked sweep file with the cells that it expands to (none for a bayes sweep), and where it is launched.

        `blanks` are its cells instead, where a service finds their values.
        """
        queued = blanks or tuple(QueuedCell(cell.run_id, cell.values) for cell in cells) or blank_cells(sweep)
        return cls(
            sweep.name, root, queued, sweep.swept, sweep.raw, sweep.digest, steered(sweep), queue, address, storage
        )

    @classmethod
    def read(cls, definition: Mapping[str, Any], root: Path, storage: str | None) -> "LaunchedSweep":
        """From what `definition` gave, by this version or an earlier one."""
        address = definition.get("address") or definition.get("remote")
        return cls(
            name=definition["name"],
            root=root,
            cells=tuple(QueuedCell(cell["run_id"], cell["values"]) for cell in definition["cells"]),
            swept=tuple(definition["swept"]),
            raw=definition["raw"],
            digest=definition["digest"],
            steered=definition["steered"],
            queue=definition.get("queue") or (_SERVER if address else LOCAL),
            address=address,
            storage=storage or definition.get("storage"),
        )

    def definition(self) -> dict[str, Any]:
        """What another process needs to know of it, as plain JSON types and without passwords."""
        return {
            "name": self.name,
            "swept": list(self.swept),
            "raw": dict(self.raw),
            "digest": self.digest,
            "steered": self.steered,
            "cells": [{"run_id": cell.run_id, "values": cell.values} for cell in self.cells],
            "storage": without_password(self.storage) if self.storage else None,
            "queue": self.queue,
            "address": self.address,
        }

    @property
    def folder(self) -> SweepFolder:
        """Where the sweep itself and what concerns all its runs lies."""
        return SweepFolder(self.root, self.name)

    @property
    def store(self) -> RunStore:
        """Where its runs lie."""
        return RunStore(self.root)

    @property
    def file(self) -> Sweep:
        """The sweep's file, read and checked anew from the stored text."""
        return restore(self.name, self.raw, self.digest)

    @property
    def drawn(self) -> bool:
        """Whether the values of its cells are found while it runs."""
        return any(blank_number(cell) is not None for cell in self.cells)

    @property
    def devices(self) -> int:
        """GPUs that a run of it takes, at most."""
        fixed = self.raw.get("parameters", {}).get("machine.devices", {}).get("value", 1)
        return max((int(cell.values.get("machine.devices", fixed)) for cell in self.cells), default=int(fixed))

    def prepare(self, cell: QueuedCell) -> Run:
        """The cell's run; its folder and configuration are written if they are not there."""
        run = self.store.run(cell.run_id)
        if not run.config_file.exists() or unless_damaged(lambda: run.config, None) is None:
            self.store.create(from_flat(cell.values))
        return run


def differences(before: LaunchedSweep, after: LaunchedSweep) -> list[str]:
    """What one file says otherwise than another, as ``model.top_k: {"value": 1} -> {"value": 2}``."""
    old, new = (json.loads(json.dumps(sweep.raw, default=str)) for sweep in (before, after))
    pairs = [(key, old.get(key), new.get(key)) for key in ("method", *_GOALS, "run_cap")]
    parameters, others = old.get("parameters", {}), new.get("parameters", {})
    pairs += [(path, parameters.get(path), others.get(path)) for path in dict.fromkeys([*parameters, *others])]
    return [f"{what}: {_said(was)} -> {_said(now)}" for what, was, now in pairs if was != now]


def _said(value: Any) -> str:
    return "nothing" if value is None else as_yaml(value)


def check_goes_on(before: LaunchedSweep, after: LaunchedSweep) -> str | None:
    """Refuse a file that under the same name asks for something else; one that asks for more goes on.

    A sweep only grows: all its cells stay, and what decides how it goes on stays as it was, so that neither its table
    nor a search mixes runs of several recipes, and no cell that was asked for is forgotten.

    Args:
        before: the sweep as it was launched.
        after: the sweep as its file says now.

    Returns:
        In words, how it grows; None if it does not.

    Raises:
        UserError: it is another sweep; says what differs.
    """
    changed = differences(before, after)
    kept = {cell.run_id for cell in before.cells} <= {cell.run_id for cell in after.cells}
    decided = before.steered or after.steered or before.drawn
    if not kept or (decided and _steered_otherwise(before, after)):
        what = "; ".join(changed) or "its file is the same, but this version of moe makes other runs of it"
        raise UserError(
            f'sweep "{after.name}" was launched with another file ({what}); launch the changed one with '
            f"--name {quote(after.name + '-2')}, say, or undo the change"
        )
    more = len(after.cells) - len(before.cells)
    why = "; ".join(changed) or "this version of moe draws on where draws repeat"
    return f"sweep {after.name} grows by {more} to {len(after.cells)} cells: {why}" if more else None


def _steered_otherwise(before: LaunchedSweep, after: LaunchedSweep) -> bool:
    """Whether what a search or early termination goes by is another: its goals and, of a search, its parameters."""
    old, new = (json.loads(json.dumps(sweep.raw, default=str)) for sweep in (before, after))
    searched = before.drawn or "bayes" in (old.get("method"), new.get("method"))
    keys = ["method", *_GOALS]
    parameters = [
        {path: entry for path, entry in raw.get("parameters", {}).items() if not path.startswith("machine.")}
        for raw in (old, new)
    ]
    return any(old.get(key) != new.get(key) for key in keys) or (searched and parameters[0] != parameters[1])


def steered(sweep: Sweep) -> bool:
    """Whether results decide how a sweep goes on; not so for a plain grid or random one."""
    return sweep.method == "bayes" or sweep.early_terminate is not None


def blank_cells(sweep: Sweep) -> tuple[QueuedCell, ...]:
    """One cell for every suggestion of a bayes sweep with every seed; its values are found while the sweep runs."""
    seeds = replicates(sweep)
    return tuple(
        QueuedCell(f"{_BLANK}{number * len(seeds) + place:05d}", {sweep.replicate: seed})
        for number in range(budget(sweep))
        for place, seed in enumerate(seeds)
    )


def blanks(count: int) -> tuple[QueuedCell, ...]:
    """So many cells of which nothing is known yet."""
    return tuple(QueuedCell(f"{_BLANK}{number:05d}", {}) for number in range(count))


def blank_number(cell: QueuedCell) -> int | None:
    """The number of a blank cell in its sweep; None for one that has its values."""
    return int(cell.run_id.removeprefix(_BLANK)) if cell.run_id.startswith(_BLANK) else None


def run_id_of(config: Mapping[str, Any]) -> str:
    """Run id of the cell with a configuration as W&B has it; "" if it is none of moe's.

    A run that crashed at once has only the values that it was handed, by dotted path.
    """
    if "identity" in config:
        return str(config["identity"])
    flat = {path: value for path, value in config.items() if not isinstance(value, dict)}
    try:
        check_paths(flat)
        return from_flat(flat).identity()
    except UserError:
        return ""


def values_of(config: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The values of some parameters, as far as such a configuration has them."""
    found: dict[str, Any] = {}
    for path in paths:
        value: Any = config.get(path, config)
        for name in () if path in config else path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found[path] = value
    return found
