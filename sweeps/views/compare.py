"""Runs of a sweep side by side: grouped by what was swept, mean and sd over seeds."""

import contextlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any, NamedTuple

from rich.table import Table

from callbacks.keys import Keys
from callbacks.tables import csv_text, latex_text
from moe.errors import UserError
from moe.wording import counted
from sweeps.plan.spec import Sweep
from sweeps.queue.launched import LaunchedSweep, QueuedCell, blank_number
from sweeps.queue.status import CellStatus, filled_cells, status
from sweeps.runs.endings import Ending
from sweeps.runs.numbers import UNTRAINED as BEFORE
from sweeps.runs.numbers import claim_rows, numbers, probe_key
from sweeps.runs.run import Run

UNTRAINED = "untrained val loss"
METRICS = {
    f"{BEFORE}/{Keys.VAL_LOSS}": UNTRAINED,
    Keys.VAL_LOSS: "val loss",
    Keys.AGREEMENT: "view agreement",
    Keys.CHANCE_OBSERVED: "chance (observed)",
    Keys.CHANCE_UNIFORM: "chance (uniform)",
    Keys.CV2: "CV2",
    Keys.ENTROPY: "entropy",
    Keys.DEAD: "dead",
    Keys.CLASS_INFORMATION: "class information",
    Keys.EMBEDDING_KNN: "kNN accuracy",
    Keys.EMBEDDING_LINEAR: "linear accuracy",
    Keys.EMBEDDING_RANK: "effective rank",
    Keys.EXPERTS_CKA: "CKA of experts",
    Keys.SATURATION: "sets kept since the epoch before",
}
_PROBES = {
    ("tuning", "gate_r2"): "gate r2",
    ("tuning", "readout_r2"): "readout r2",
    ("separability", "mean"): "separability",
    ("similarity", "mean_similarity"): "expert similarity",
    ("coupling", "mean_spearman"): "coupling",
    ("animacy", "gate"): "animacy of the gate",
    ("exciting", "overlap_gate_readout"): "overlap",
}


@dataclass(frozen=True)
class Cell:
    """Mean, sd (sample, over seeds) and number of values; NaN-free. `sd` is None for one value."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True)
class Group:
    """Runs that differ by seed alone.

    Attributes:
        values: the swept parameters they share.
        runs: finished runs.
        planned: how many runs the sweep has for this group.
        cells: one a column; None where no run has that number.
    """

    values: dict[str, Any]
    runs: list[Run]
    planned: int
    cells: dict[str, Cell | None]

    @property
    def label(self) -> str:
        """The cell in words: ``experts=4 temperature=0.5``."""
        return " ".join(f"{path.rsplit('.', 1)[-1]}={value}" for path, value in self.values.items()) or "all runs"

    @property
    def count(self) -> str:
        """Finished runs, with a mark when some are missing."""
        done = len(self.runs)
        return str(done) if done == self.planned else f"{done} of {self.planned} (incomplete)"


class Gap(NamedTuple):
    """Something that is not there to be shown.

    Attributes:
        text: what is missing.
        command: what to run for it.
    """

    text: str
    command: str


@dataclass(frozen=True)
class Comparison:
    """The whole table.

    Attributes:
        sweep: whose runs they are; of several sweeps the first.
        parameters: names of the values that tell the groups apart.
        columns: names of the numbers.
        groups: a row each.
        notes: what a reader has to know.
        gaps: runs without results, and what brings these.
        name: of the sweep, or of all.
        claims: what the probe `claims` says of all runs together, a row each; of several sweeps with the sweep's name.
    """

    sweep: LaunchedSweep
    parameters: list[str]
    columns: list[str]
    groups: list[Group]
    notes: list[str]
    gaps: list[Gap]
    name: str
    claims: list[dict[str, Any]]

    @property
    def said(self) -> list[str]:
        """What stands below the table: notes, and each gap with its command."""
        return [*self.notes, *(f"{gap.text}: `{gap.command}`" for gap in self.gaps)]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "sweep": self.name,
            "groups": [
                {
                    "values": group.values, "n": len(group.runs), "planned": group.planned,
                    "runs": [run.id for run in group.runs],
                    "metrics": {
                        name: {"mean": cell.mean, "sd": cell.sd, "n": cell.n} if cell else None
                        for name, cell in group.cells.items()
                    },
                }
                for group in self.groups
            ],
            "claims": self.claims,
            "notes": self.said,
        }  # fmt: skip


def compare(sweep: LaunchedSweep) -> Comparison:
    """Summarise a sweep over its seeds. Unfinished cells are counted, never averaged."""
    parameters = [path for path in sweep.swept if path != Sweep.replicate]
    grouped: dict[tuple[str, ...], list[QueuedCell]] = {}
    for cell in filled_cells(sweep):
        grouped.setdefault(tuple(repr(cell.values[path]) for path in parameters), []).append(cell)
    members = []
    for cells in grouped.values():
        runs = [run for run in (sweep.store.run(cell.run_id) for cell in cells) if run.finished]
        members.append(({path: cells[0].values[path] for path in parameters}, runs, len(cells)))
    found = {run.id: run_numbers(run) for _, runs, _ in members for run in runs}
    present = {column for values in found.values() for column in values}
    columns = list(METRICS.values())
    columns += sorted(column for column in present if column not in columns)
    columns = [column for column in columns if column in present]
    groups = [
        Group(values, runs, planned, {c: _cell([found[run.id].get(c) for run in runs]) for c in columns})
        for values, runs, planned in members
    ]
    notes, gaps = _unfinished(sweep, groups)
    notes += _made_alike(groups)
    return Comparison(sweep, parameters, columns, groups, notes, gaps, sweep.name, claim_rows(sweep.folder))


def run_numbers(run: Run) -> dict[str, float]:
    """A finished run's numbers by column name."""
    known = numbers(run)
    values = {label: known.get(key) for key, label in METRICS.items()}
    for images, probe, _ in run.probe_results():
        for (name, key), label in _PROBES.items():
            if name == probe:
                start = f"{probe_key(images, probe)}/"
                values[f"{label} [{images}]"] = known.get(f"{start}{key}")
                for other in _baselines(known, start, key):
                    values[f"{label} of {other} [{images}]"] = known[f"{start}{other}/{key}"]
    return {column: float(value) for column, value in values.items() if value is not None}


def _baselines(known: Mapping[str, float], start: str, key: str) -> list[str]:
    """The baselines that a probe's number was measured on as well."""
    places = (name.removeprefix(start).rpartition("/") for name in known if name.startswith(start))
    return [other for other, _, name in places if other and name == key]


def _cell(values: Sequence[float | None]) -> Cell | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Cell(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def _unfinished(sweep: LaunchedSweep, groups: Sequence[Group]) -> tuple[list[str], list[Gap]]:
    """What to know of cells without results, and the others of them with the command that fills them."""
    notes, gaps, cells = list[str](), list[Gap](), list[CellStatus]()
    with contextlib.suppress(UserError):  # its queue's service does not answer: what lies here counts
        cells += status(sweep).cells
    name = quote(sweep.name)
    early = sum(cell.ending is Ending.STOPPED_EARLY for cell in cells)
    if early:
        notes.append(f"{counted(early, 'run', 'was')} stopped early, as the sweep's file asks; not averaged")
    needless = [cell for cell in cells if cell.ending is Ending.NOT_NEEDED]
    reasons = Counter(cell.note for cell in needless)
    notes += [f"{counted(number, 'run', 'was')} {why}" for why, number in reasons.items()]
    filled = sum(blank_number(cell.cell) is None for cell in needless)  # a search's others are in no group
    stopped = sum(cell.ending is Ending.STOPPED for cell in cells)
    if stopped:
        gaps.append(Gap(f"{counted(stopped, 'run', 'was')} stopped by you", f"moe sweep retry {name} --stopped"))
    failed = [cell for cell in cells if cell.state == "failed"]
    if failed:
        first = f"{failed[0].run.id} by: {failed[0].error}"
        gaps.append(Gap(f"{counted(len(failed), 'run')} failed, {first}", f"moe sweep retry {name} --failed"))
    trained = (cell for cell in cells if cell.state == "finished" and cell.ending is Ending.FINISHED)
    elsewhere = sum(not cell.run.finished for cell in trained)
    if elsewhere:
        gaps.append(Gap(f"{counted(elsewhere, 'run', 'was')} finished on another machine", f"moe probe --sweep {name}"))
    missing = sum(group.planned - len(group.runs) for group in groups)
    missing -= early + filled + stopped + len(failed) + elsewhere
    if missing > 0:
        gaps.append(Gap(f"{counted(missing, 'run', 'is')} not finished", f"moe sweep resume {name}"))
    return notes, gaps


def _made_alike(groups: Sequence[Group]) -> list[str]:
    """What the runs should have in common and do not: the code, and the images that go by one name."""
    said, versions, images = [], set(), defaultdict[tuple[Any, ...], set[str]](set)
    for group in groups:
        named = tuple(value for path, value in group.values.items() if path.startswith("data."))
        for run in group.runs:
            facts = run.provenance
            if (whose := facts.get("run_id", run.id)) != run.id:
                said.append(f"{run.path} holds the results of run {whose}: rename it")
            versions.add(_code_version(facts))
            images[named] |= {repr(facts["data"])} if "data" in facts else set()
    if len(versions) > 1:
        said.append(f"these runs were made by {len(versions)} versions of the code: {', '.join(sorted(versions))}")
    if (most := max(map(len, images.values()), default=0)) > 1:
        said.append(f"of images of one name there were {most} versions, on which different runs were trained")
    return said


def _code_version(facts: Mapping[str, Any]) -> str:
    git = facts.get("git") or {}
    sha = git.get("sha", "")[:8] + ("+changes" if git.get("dirty") else "")
    return sha or f"moe-experts {facts.get('packages', {}).get('moe-experts')}"


def header(comparison: Comparison) -> list[str]:
    """Names of the columns."""
    return [*comparison.parameters, "n", *comparison.columns]


def rows_of(comparison: Comparison) -> list[list[str]]:
    """One row of text a group, in the order of `header`."""
    return [
        [*(str(value) for value in group.values.values()), group.count]
        + [str(cell) if (cell := group.cells[column]) else "" for column in comparison.columns]
        for group in comparison.groups
    ]


def terminal_table(comparison: Comparison) -> Table:
    """A row a group of runs."""
    table = Table(
        title=f"sweep {comparison.name}: last epoch, mean ± sd over seeds",
        caption="\n".join([*comparison.said, *claim_lines(comparison.claims)]),
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    numbers_from = len(comparison.parameters)
    for place, name in enumerate(header(comparison)):  # names hold [images], which rich would read as style
        table.add_column(name, justify="left" if place < numbers_from else "right", vertical="bottom")
    for row in rows_of(comparison):
        table.add_row(*row)
    return table


def claim_lines(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each claim that was asked of all runs together, with its verdict, effect and interval; nothing of others."""
    lines = []
    for claim in claims:
        if claim.get("effect") is None:
            continue
        low, high, published = (claim.get(key) for key in ("low", "high", "published"))
        found = f"{claim['effect']:.3f}" + (
            f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
        )
        paper = "" if published is None else f"; the paper {published:.3f}"
        where = f"{claim['images']}, {claim['sweep']}" if "sweep" in claim else claim["images"]
        lines.append(f"claim {claim['claim']} on {where}: {claim['verdict']}, {found}{paper}")
    return lines


def to_csv(comparison: Comparison) -> str:
    """One row a group; three columns (mean, sd, n) a number."""
    names = [f"{column} {what}" for column in comparison.columns for what in ("mean", "sd", "n")]
    rows = []
    for group in comparison.groups:
        cells = [group.cells[column] for column in comparison.columns]
        parts = [part for cell in cells for part in ((cell.mean, cell.sd, cell.n) if cell else (None, None, 0))]
        rows.append([*group.values.values(), len(group.runs), group.planned, *parts])
    return csv_text([*comparison.parameters, "runs", "planned", *names], rows)


def to_latex(comparison: Comparison) -> str:
    """A booktabs table, one column for each group of runs, its parameters and number of runs above the rule."""
    rows = rows_of(comparison)
    lines = ([name, *(row[place] for row in rows)] for place, name in enumerate(header(comparison)))
    return latex_text(lines, align="l" + "r" * len(rows), rules=[len(comparison.parameters) + 1])
