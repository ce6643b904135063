"""A run's own files, sent on to the tracker: one step an epoch, with the epoch's metrics and pictures.

The files are the truth. Whatever the tracker lacks when a run begins or goes on (the process was killed, the server was
away, a W&B sweep gave the run another name) is sent first, so that the tracker holds every epoch once and in order.
"""

from functools import partial
from typing import Any

from callbacks.files import ROUTING, View
from sweeps.runs.endings import Ending
from sweeps.runs.files import read_json, unless_damaged
from sweeps.runs.folders import RESULT, FindingsFolder, ProbedFolder
from sweeps.runs.numbers import (
    figure_key,
    headlines,
    headlines_of,
    of_experts,
    probe_key,
    table_key,
    table_of_numbers,
)
from sweeps.runs.run import Run
from sweeps.tracking.artifacts import parcels, upload
from sweeps.tracking.connection import TrackerError, api, asking, connection
from sweeps.tracking.media import Picture, Table, Value
from sweeps.tracking.record import Record
from sweeps.tracking.session import TrackedRun, give_up


def send(run: Run, session: TrackedRun, until: int | None = None) -> None:
    """Send the epochs that the tracker lacks.

    Args:
        run: whose files.
        session: the tracker's run.
        until: last epoch to send; None: all there are.
    """
    if session.mode == "disabled":
        return
    record = Record.of(run)
    for row in run.history():
        epoch = int(row["epoch"] or 0)
        if epoch > record.sent and (until is None or epoch <= until):
            session.log(epoch, _numbers(row) | _pictures(run, epoch))
            record = Record.of(run)
            record.passed(run, epoch)


def tell_failure(run: Run, ending: Ending, reason: str) -> None:
    """Say in the tracker why a run was given up whose process could not say it itself, and send its log."""
    record = unless_damaged(partial(Record.of, run), None)
    if record is None or not (record.online_before and connection().online):
        return
    try:
        with asking():
            there = api().run(record.path)
            there.summary.update({"ending": ending.value, "failure": reason})
            if run.log_file.is_file():
                there.upload_file(str(run.log_file), root=str(run.path))
    except TrackerError as error:
        give_up(run, f"why it failed was not sent ({error})")


def publish(place: Run | FindingsFolder, session: TrackedRun, *, wait: bool = False) -> None:
    """Send all that a run or an analysis has and the tracker lacks: epochs, summary, models, results of probes.

    Args:
        place: whose files.
        session: the tracker's run.
        wait: until the server has the models, because results that are made from them follow.
    """
    if session.mode == "disabled":
        return
    if isinstance(place, Run):
        send(place, session)
    session.summarise(summary(place))
    upload(session, parcels(place), wait=wait)


def summary(place: Run | FindingsFolder) -> dict[str, Value]:
    """The whole summary of a run: last, best and untrained values, what the last epoch showed, results of probes.

    That of an analysis, or of a model trained elsewhere: the results of its probes.
    """
    return _of_run(place) if isinstance(place, Run) else _of_findings(place)


def _of_findings(place: FindingsFolder) -> dict[str, Value]:
    found = [results_of(*result) for result in place.found()]
    return {key: value for values in found for key, value in values.items()}


def _of_run(run: Run) -> dict[str, Value]:
    values: dict[str, Value] = {**headlines(run)}
    if rows := run.history():
        epoch, about = int(rows[-1]["epoch"] or 0), _about(run)
        values |= _pictures(run, epoch)
        for view in View:
            if (file := run.routing_files.table(view, epoch)).exists():
                values[table_key(ROUTING, view)] = Table(file, about)
        values[table_key(ROUTING, "experts")] = Table(of_experts(run), about)
        if (settled := run.routing_files.saturation).exists():
            values[table_key(ROUTING, "saturation")] = Table(settled, about)
    for images, probe, _ in run.probe_results():
        values |= results_of(run, images, probe)
    return values


def _about(folder: ProbedFolder) -> dict[str, Any]:
    """What a table of one run says about the run, so that those of many can be told apart."""
    return {"E": folder.config.model.experts, "seed": folder.config.seed} if isinstance(folder, Run) else {}


def _numbers(row: dict[str, float | None]) -> dict[str, Value]:
    return {key: value for key, value in row.items() if value is not None}


def _pictures(run: Run, epoch: int) -> dict[str, Value]:
    """What the callbacks drew for an epoch. No tables: each asks the server at once, and training waits for no one."""
    pictures = run.routing_files.pictures(epoch)
    return {view.key: Picture(file, f"epoch {epoch}") for view, file in pictures.items()}


def results_of(folder: ProbedFolder, images: str, probe: str) -> dict[str, Value]:
    """What a summary holds of a probe: headline numbers, pictures (.png) and tables (.csv).

    Numbers are `probe/<images>/<probe>/<number>`, pictures and tables below `figures/` and `tables/` of it. The table
    `all_numbers` has all numbers, with their intervals and baselines.
    """
    start, path, about = probe_key(images, probe), folder.probe(images, probe), _about(folder)
    result = read_json(path / RESULT)
    values: dict[str, Value] = {**headlines_of(start, result)}
    if len(rows := table_of_numbers(result)) > 1:
        values[table_key(start, "all_numbers")] = Table(rows, about)
    for file in sorted(path.iterdir()):
        if file.suffix == ".png":
            values[figure_key(start, file.stem)] = Picture(file)
        elif file.suffix == ".csv":
            values[table_key(start, file.stem)] = Table(file, about)
    return values
