"""A sweep's page in the W&B dashboard, made by code: a workspace with its panels laid out, and a report.

W&B's panels have no heatmap, so routing heatmaps and the probes' figures appear as the pictures that the runs logged.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from callbacks.files import PICTURED
from callbacks.keys import Keys
from moe.errors import UserError
from sweeps.plan.spec import Sweep
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.opening import open_queue
from sweeps.queue.status import filled_cells
from sweeps.runs.files import write_json
from sweeps.runs.numbers import figure_key, probe_key
from sweeps.runs.run import Run
from sweeps.tracking.connection import connection
from sweeps.tracking.record import Record

_LOSSES = (Keys.VAL_LOSS, Keys.TRAIN_LOSS)
_BALANCE = ((Keys.CV2, "CV² of importance"), (Keys.DEAD, "dead experts"), (Keys.ENTROPY, "entropy"))
_AGREEMENT = (Keys.AGREEMENT, Keys.CHANCE_OBSERVED, Keys.CHANCE_UNIFORM)
_ROUTING = tuple(view.key for view in PICTURED)


def save(sweep: LaunchedSweep) -> dict[str, str]:
    """Save the workspace and the report, in place of those saved before; returns their addresses.

    Raises:
        UserError: no server answers, or no run of the sweep is there.
    """
    if problem := connection().problem():
        raise UserError(f"the dashboard needs a W&B server: {problem}")
    runs = [run for run in (sweep.store.run(cell.run_id) for cell in filled_cells(sweep)) if run.tracker_file.exists()]
    records = [Record.of(run) for run in runs]
    there = [record for record in records if record.entity is not None]
    if not there:
        raise UserError(f"no run of sweep {sweep.name} is on the server; `moe runs sync` uploads offline runs")
    entity, project = str(there[0].entity), there[0].project
    with _on_stderr():
        workspace, report = _workspace(sweep, entity, project, runs), _report(sweep, entity, project, runs)
        saved = {"workspace": workspace.save().url, "report": report.save().url}
    write_json(sweep.folder.dashboard, saved)
    return saved


def _workspace(sweep: LaunchedSweep, entity: str, project: str, runs: Sequence[Run]) -> ws.Workspace:
    grouped: list[Any] = [expr.Config(path) for path in sweep.swept if path != Sweep.replicate]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"sweep {sweep.name}",
        sections=[
            ws.Section(name="Training", panels=_training(), is_open=True),
            ws.Section(name="Routing", panels=_routing(), is_open=True),
            ws.Section(name="Compared", panels=_compared(sweep), is_open=True),
            ws.Section(name="Probes", panels=_probes(runs), is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=ws.RunsetSettings(filters=[_of(sweep)], groupby=grouped),
    )


def _report(sweep: LaunchedSweep, entity: str, project: str, runs: Sequence[Run]) -> wr.Report:
    chosen = wr.Runset(entity=entity, project=project, name=sweep.name, filters=[_of(sweep)])
    swept = ", ".join(sweep.swept) or "nothing"
    count = len(filled_cells(sweep))
    intro = f"{count} runs; swept: {swept}. The seed is the replicate axis: lines and bars are over seeds."

    def grid(panels: list[Any]) -> wr.PanelGrid:
        return wr.PanelGrid(runsets=[chosen], panels=panels)

    return wr.Report(
        entity=entity,
        project=project,
        title=f"Sweep {sweep.name}",
        description="Training, routing and what each expert encodes.",
        blocks=[
            wr.P(intro),
            wr.H2("Training"),
            grid(_training(_by(sweep))),
            wr.H2("Routing: which class goes to which expert"),
            grid(_routing()),
            wr.H2("What each expert encodes"),
            grid(_probes(runs)),
            wr.H2("Side by side"),
            grid(_compared(sweep)),
        ],
    )


def _of(sweep: LaunchedSweep) -> Any:
    """The sweep's runs: those of its W&B sweep, else those of its group."""
    with contextlib.closing(open_queue(sweep)) as queue:
        known = queue.tracker_sweep
    return expr.Metric("Sweep") == known if known else expr.Metric("Group") == sweep.name


def _by(sweep: LaunchedSweep) -> str | None:
    """What lines are grouped by: the first parameter beside the seed."""
    return next((path for path in sweep.swept if path != Sweep.replicate), None)


def _training(by: str | None = None) -> list[Any]:
    grouping = {"groupby": wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"} if by else {}
    return [
        *(wr.LinePlot(title=f"{key} (nats)", x="epoch", y=[key], **grouping) for key in _LOSSES),
        wr.LinePlot(title="view agreement and chance", x="epoch", y=list(_AGREEMENT), **grouping),
        *(wr.LinePlot(title=title, x="epoch", y=[key], **grouping) for key, title in _BALANCE),
    ]


def _routing() -> list[Any]:
    return [wr.MediaBrowser(title=key, media_keys=[key], num_columns=3) for key in _ROUTING]


def _compared(sweep: LaunchedSweep) -> list[Any]:
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(path)) for path in sweep.swept]
    columns += [wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(key)) for key in (Keys.CV2, Keys.VAL_LOSS)]
    return [
        wr.ParallelCoordinatesPlot(title="parameters, balance and loss", columns=columns),
        wr.BarPlot(title="view agreement, last epoch", metrics=[Keys.AGREEMENT]),
        wr.RunComparer(diff_only="split"),
    ]


def _probes(runs: Sequence[Run]) -> list[Any]:
    """The figures and headline numbers of every probe that was run."""
    pictures: dict[str, list[str]] = {}
    numbers: dict[str, None] = {}
    for run in runs:
        for images, probe, result in run.probe_results():
            prefix = probe_key(images, probe)
            found = sorted(file.stem for file in run.probe(images, probe).glob("*.png"))
            pictures.setdefault(prefix, [figure_key(prefix, name) for name in found])
            numbers |= dict.fromkeys(f"{prefix}/{key}" for key, value in result.items() if isinstance(value, float))
    panels: list[Any] = [
        wr.MediaBrowser(title=prefix.removeprefix("probe/"), media_keys=keys, num_columns=2)
        for prefix, keys in pictures.items()
        if keys
    ]
    return panels + [wr.BarPlot(title=key.removeprefix("probe/"), metrics=[key]) for key in numbers]


@contextlib.contextmanager
def _on_stderr() -> Iterator[None]:
    """Without the library's own words on standard output; its notices are shown by the caller."""
    wandb.setup()
    with contextlib.redirect_stdout(sys.stderr):
        yield
