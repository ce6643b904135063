"""A sweep's page in the W&B dashboard, made by code: a workspace with its panels laid out, and a report.

W&B's panels have no heatmap, so routing heatmaps and the probes' figures appear as the pictures that the runs logged.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.workspaces import internal

from callbacks.files import PICTURED, ROUTING
from callbacks.keys import Keys
from moe.errors import UserError
from moe.wording import counted
from sweeps.plan.spec import Sweep
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.opening import open_queue
from sweeps.queue.status import filled_cells
from sweeps.runs.files import write_json
from sweeps.runs.numbers import table_key
from sweeps.tracking.connection import TrackerError, api, asking, connection
from sweeps.tracking.record import place_of_runs, place_of_sweep
from sweeps.tracking.session import ANALYSIS

_LOSSES = (Keys.VAL_LOSS, Keys.TRAIN_LOSS)
_BALANCE = ((Keys.CV2, "CV² of importance"), (Keys.DEAD, "dead experts"), (Keys.ENTROPY, "entropy"))
_AGREEMENT = (Keys.AGREEMENT, Keys.CHANCE_OBSERVED, Keys.CHANCE_UNIFORM)
_ROUTING = tuple(view.key for view in PICTURED)
_ROUTING_TABLES = tuple(table_key(ROUTING, name) for name in ("experts", "classes"))


@dataclass(frozen=True)
class Logged:
    """Keys of what some runs have in their summaries on the server, by what the keys are about.

    Attributes:
        keys: all of them; no panel asks for another.
        figures: keys of pictures, by probe and images.
        tables: keys of tables, likewise.
        numbers: keys of headline numbers, likewise.
    """

    keys: frozenset[str]
    figures: dict[str, list[str]]
    tables: dict[str, list[str]]
    numbers: dict[str, list[str]]

    @classmethod
    def of(cls, summaries: Sequence[Mapping[str, Any]]) -> "Logged":
        """Of these summaries the union; what is sorted by probe and images are the results of probes."""
        union = {key: value for summary in summaries for key, value in summary.items()}
        found = cls(frozenset(union), {}, {}, {})
        for key, value in sorted(union.items()):
            if not key.startswith("probe/"):
                continue
            kind = value.get("_type") if isinstance(value, Mapping) else type(value).__name__
            by_kind = {"image-file": found.figures, "table-file": found.tables}
            kept = found.numbers if isinstance(value, int | float) else by_kind.get(str(kind))
            if kept is not None:
                kept.setdefault("/".join(key.split("/")[:3]), []).append(key)
        return found


def save(sweep: LaunchedSweep) -> dict[str, str]:
    """Save the workspace and the report, in place of those saved before from any machine; returns their addresses.

    Everything shown is asked of the server: no run needs to lie here.

    Raises:
        UserError: no server answers, or no run of the sweep is there.
    """
    if problem := connection().problem():
        raise UserError(f"the dashboard needs a W&B server: {problem}")
    try:
        with _on_stderr(), asking():
            return _save(sweep)
    except TrackerError as error:
        raise UserError(f"the dashboard of sweep {sweep.name} was not saved: {error}") from None


def _save(sweep: LaunchedSweep) -> dict[str, str]:
    entity, project = _place(sweep)
    with contextlib.closing(open_queue(sweep)) as queue:
        known = queue.tracker_sweep
    cells = [] if known else [cell.run_id for cell in filled_cells(sweep)]  # W&B's sweep has runs of its own
    there = _runs(entity, project, sweep.name, cells)
    if not there:
        raise UserError(f"no run of sweep {sweep.name} is on the server; `moe runs sync` uploads offline runs")
    analyses = [dict(run.summary_metrics) for run in there if run.job_type == ANALYSIS]
    each = Logged.of([dict(run.summary_metrics) for run in there if run.job_type != ANALYSIS])
    mine = [expr.Metric("Sweep") == known] if known else _of(sweep.name, cells, there)
    workspace = _workspace(sweep, entity, project, each, mine)
    report = _report(sweep, entity, project, each, Logged.of(analyses), mine)
    _take_the_place_of_earlier(workspace, report, sweep.name)
    saved = {"workspace": workspace.save().url, "report": report.save().url}
    write_json(sweep.folder.dashboard, saved)
    return saved


def _runs(entity: str, project: str, sweep: str, cells: Sequence[str]) -> list[Any]:
    """W&B's objects of a sweep's runs and analyses; none where there is no such project.

    A run lies in the group of the sweep that trained it first. Other sweeps with such a cell show it all the same.
    """
    group = {"group": sweep}
    asked = {"$or": [group, {"config.identity": {"$in": list(cells)}}]} if cells else group
    try:
        with asking():
            found = list(api().runs(f"{entity}/{project}", asked, lazy=False))
    except TrackerError as error:
        if "ould not find project" in str(error):
            return []
        raise
    mine = [run for run in found if run.group == sweep]
    shown = {_identity(run) for run in mine}
    others = {_identity(run): run for run in found if _identity(run) not in shown}  # one of each cell
    return [*mine, *others.values()]


def _identity(run: Any) -> str:
    return str(run.config.get("identity", ""))


def _place(sweep: LaunchedSweep) -> tuple[str, str]:
    """Entity and project of its runs."""
    entity, project = place_of_sweep(sweep.folder)
    if sweep.address is None:
        entity, project = place_of_runs(sweep.folder, [sweep.store.run(cell.run_id) for cell in filled_cells(sweep)])
    return entity or api().default_entity, project


def _take_the_place_of_earlier(workspace: ws.Workspace, report: wr.Report, sweep: str) -> None:
    """Give both the ids that they have on the server already, so that saving changes these."""
    name = hashlib.sha256(sweep.encode()).hexdigest()[:12]  # as it stands in the address, behind `?nw=`
    workspace._internal_name = f"nw-{name}-v"  # noqa: SLF001 - the library draws a new one each time
    with contextlib.suppress(ValueError, LookupError):  # its way to say that there is none
        found = internal.get_view_dict(workspace.entity, workspace.project, name)
        workspace._internal_id = found["id"]  # noqa: SLF001
    there = api().reports(f"{report.entity}/{report.project}")
    report.id = next((one.id for one in there if one.display_name == report.title), "")


def _workspace(sweep: LaunchedSweep, entity: str, project: str, each: Logged, mine: Any) -> ws.Workspace:
    grouped: list[Any] = [expr.Config(path) for path in sweep.swept if path != Sweep.replicate]
    probes = [ws.Section(name=prefix.removeprefix("probe/"), panels=panels, is_open=True)
              for prefix, panels in _probes(each, _by(sweep)).items()]  # fmt: skip
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"sweep {sweep.name}",
        sections=[
            ws.Section(name="Training", panels=_training(each), is_open=True),
            ws.Section(name="Routing", panels=_routing(each), is_open=True),
            ws.Section(name="Compared", panels=_compared(sweep, each), is_open=True),
            *probes,
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(filters=mine, groupby=grouped),
    )


def _report(sweep: LaunchedSweep, entity: str, project: str, each: Logged, together: Logged, mine: Any) -> wr.Report:
    runs = wr.Runset(entity=entity, project=project, name=sweep.name, filters=mine)
    in_group = [expr.Metric("Group") == sweep.name, expr.Metric("JobType") == ANALYSIS]
    analysis = wr.Runset(entity=entity, project=project, name="all experts", filters=in_group)
    swept = ", ".join(sweep.swept) or "nothing"
    count = counted(len(sweep.cells), "run")
    intro = f"{count}; swept: {swept}. The seed is the replicate axis: lines and bars are over seeds."

    def grid(panels: list[Any], of: wr.Runset = runs) -> wr.PanelGrid:
        return wr.PanelGrid(runsets=[of], panels=panels)

    def sections(found: dict[str, list[Any]], of: wr.Runset = runs) -> list[Any]:
        headed = ((wr.H3(prefix.removeprefix("probe/")), grid(panels, of)) for prefix, panels in found.items())
        return [block for pair in headed for block in pair]

    across = sections(_probes(together), analysis)
    return wr.Report(
        entity=entity,
        project=project,
        title=f"Sweep {sweep.name}",
        description="Training, routing and what each expert encodes.",
        blocks=[
            wr.P(intro),
            wr.H2("Training"),
            grid(_training(each, _by(sweep))),
            wr.H2("Routing: which class goes to which expert"),
            grid(
                [
                    *_routing(each),
                    *(wr.WeavePanelSummaryTable(table_name=key) for key in _ROUTING_TABLES if key in each.keys),
                ]
            ),
            wr.H2("What each expert encodes"),
            *sections(_probes(each, _by(sweep))),
            *([wr.H2("The experts of all runs together"), *across] if across else []),
            wr.H2("Side by side"),
            grid(_compared(sweep, each)),
        ],
    )


def _of(sweep: str, cells: Sequence[str], there: Sequence[Any]) -> Any:
    """What selects a sweep's runs: its group, and by their ids those that lie in another one; no analysis."""
    mine = {_identity(run) for run in there if run.group == sweep}
    found = {_identity(run): run.id for run in there}
    # of cells that are not there yet too: another sweep that is at work on one may be first
    ids = [found.get(cell, cell) for cell in cells if cell not in mine]
    grouped, trained = expr.Metric("Group") == sweep, expr.Metric("JobType") != ANALYSIS
    return expr.And(expr.Or(grouped, expr.Metric("ID").isin(ids)), trained) if ids else [grouped, trained]


def _by(sweep: LaunchedSweep) -> dict[str, Any]:
    """How lines and bars are summed up: by the first parameter beside the seed, mean and standard deviation."""
    by = next((path for path in sweep.swept if path != Sweep.replicate), None)
    return {"groupby": wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"} if by else {}


def _training(known: Logged, grouping: Mapping[str, Any] = MappingProxyType({})) -> list[Any]:
    asked = [
        *((f"{key} (nats)", [key]) for key in _LOSSES),
        ("view agreement and chance", list(_AGREEMENT)),
        *((title, [key]) for key, title in _BALANCE),
    ]
    logged = ((title, [key for key in keys if key in known.keys]) for title, keys in asked)
    return [wr.LinePlot(title=title, x="epoch", y=keys, **grouping) for title, keys in logged if keys]


def _routing(known: Logged) -> list[Any]:
    return [wr.MediaBrowser(title=key, media_keys=[key], num_columns=3) for key in _ROUTING if key in known.keys]


def _compared(sweep: LaunchedSweep, known: Logged) -> list[Any]:
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(path)) for path in sweep.swept]
    columns += [
        wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(key))
        for key in (Keys.CV2, Keys.VAL_LOSS)
        if key in known.keys
    ]
    bars = [wr.BarPlot(title="view agreement, last epoch", metrics=[Keys.AGREEMENT], **_by(sweep))]
    return [
        wr.ParallelCoordinatesPlot(title="parameters, balance and loss", columns=columns),
        *(bars if Keys.AGREEMENT in known.keys else []),
        wr.RunComparer(diff_only="split"),
    ]


def _probes(found: Logged, grouping: Mapping[str, Any] = MappingProxyType({})) -> dict[str, list[Any]]:
    """The figures, headline numbers and tables of every probe, by what their keys begin with."""
    panels: dict[str, list[Any]] = {}
    for prefix in dict.fromkeys([*found.figures, *found.numbers, *found.tables]):
        kept = panels.setdefault(prefix, [])
        if figures := found.figures.get(prefix):
            kept.append(wr.MediaBrowser(title="figures", media_keys=figures, num_columns=2))
        for key in found.numbers.get(prefix, ()):
            kept.append(wr.BarPlot(title=key.removeprefix(f"{prefix}/"), metrics=[key], **grouping))
        kept += [wr.WeavePanelSummaryTable(table_name=key) for key in found.tables.get(prefix, ())]
    return panels


@contextlib.contextmanager
def _on_stderr() -> Iterator[None]:
    """Without the library's own words on standard output; its notices are shown by the caller."""
    wandb.setup()
    with contextlib.redirect_stdout(sys.stderr):
        yield
