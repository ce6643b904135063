"""Probing runs: activations, then each probe, its files in the run's directory and in the tracker's run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from moe.data.datasets import probe_stores
from moe.data.store import ImageStore
from moe.errors import UserError, unknown
from probes.activations import activations
from probes.cross_run import SimilarityProbe, compare_experts
from probes.run_probes import ExcitingProbe, RoutingProbe, SeparabilityProbe, TuningProbe
from probes.subject import Numbers, Probe, Subject, representative_rows
from sweeps.artifacts import find
from sweeps.launch import LaunchedSweep
from sweeps.mirror import publish_results, reopened
from sweeps.runs import Run, RunStore, write_json

PROBES: dict[str, Probe] = {
    "routing": RoutingProbe(),
    "exciting": ExcitingProbe(),
    "tuning": TuningProbe(),
    "separability": SeparabilityProbe(),
    "similarity": SimilarityProbe(),
}
CROSS_RUN = "similarity"

Report = Callable[[str], None]


def chosen_probes(names: Sequence[str] | None) -> list[str]:
    """The probes named, or all.

    Raises:
        UserError: a name that is no probe.
    """
    for name in names or []:
        if name not in PROBES:
            raise unknown("probe", name, PROBES)
    return list(dict.fromkeys(names)) if names else list(PROBES)


def probe_run(run_id: str, names: Sequence[str] | None, images: Sequence[str] | None, report: Report) -> dict[str, Any]:
    """Probe one run on the images named, or on what is at hand.

    Returns:
        ``{"run_id": ..., "images": {store: {probe: numbers}}}``.

    Raises:
        UserError: no such run, it is not finished, or images or probes are unknown.
    """
    return _probe(find(run_id, RunStore(), report), chosen_probes(names), images, report)


def _probe(run: Run, names: list[str], images: Sequence[str] | None, report: Report) -> dict[str, Any]:
    if not run.finished:
        raise UserError(f"run {run.id} is {run.state.state}, not finished; finish it with `moe sweep resume SWEEP`")
    stores = probe_stores(list(images or []), run.config.data)
    results: dict[str, dict[str, Numbers]] = {}
    with reopened(run) as session:
        for store in stores:
            subject = _subject(run, store, report)
            results[store.name] = {}
            for name in names:
                reason = PROBES[name].skip(store)
                if reason is not None:
                    report(f"  {name}: left out, {reason}")
                    continue
                results[store.name][name] = _one(subject, name, session, report)
    return {"run_id": run.id, "images": results}


def _subject(run: Run, store: ImageStore, report: Report) -> Subject:
    started = time.monotonic()
    found, reused = activations(run, store, lambda _done, _total: None)
    how = "reused" if reused else f"computed in {time.monotonic() - started:.1f} s"
    report(f"run {run.id} on {store.name} ({len(store):,} images): activations {how}")
    return Subject(run, store, found)


def _one(subject: Subject, name: str, session: Any, report: Report) -> Numbers:
    started = time.monotonic()
    folder = subject.run.probe(subject.store.name, name)
    with threadpool_limits(1, user_api="blas"):  # thousands of small fits: threads only wait for each other
        numbers = PROBES[name].run(subject, folder)
    write_json(subject.run.probe_result(subject.store.name, name), numbers)
    publish_results(subject.run, session, subject.store.name, name)
    report(f"  {name}: {words(numbers)} ({time.monotonic() - started:.1f} s) -> {folder}")
    return numbers


def words(numbers: Numbers) -> str:
    """Headline numbers in one line."""
    shown = {
        key: f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        for key, value in numbers.items()
        if value is not None
    }
    return ", ".join(f"{key} {text}" for key, text in shown.items())


def probe_sweep(name: str, names: Sequence[str] | None, images: Sequence[str] | None, report: Report) -> dict[str, Any]:
    """Probe every finished run of a sweep, then compare the experts of all runs.

    Returns:
        ``{"sweep": ..., "runs": [...], "similarity": {store: numbers}}``.

    Raises:
        UserError: no such sweep, none of its runs is finished, or (after all others) some could not be probed.
    """
    sweep = LaunchedSweep(name)
    chosen = chosen_probes(names)
    runs = [sweep.store.run(job.run_id) for job in sweep.cells()]
    finished = [run for run in runs if run.finished]
    if not finished:
        raise UserError(f"no run of sweep {name} is finished; `moe sweep resume {name}` goes on")
    if len(finished) < len(runs):
        report(f"{len(runs) - len(finished)} of {len(runs)} runs are not finished and are left out")
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    for number, run in enumerate(finished, 1):
        report(f"[{number}/{len(finished)}]")
        try:
            results.append(_probe(run, chosen, images, report))
        except UserError as error:
            failures.append(f"{run.id}: {error}")
            report(f"  {error}")
    probed = {result["run_id"] for result in results}
    finished = [run for run in finished if run.id in probed]
    across = _across(sweep, finished, images, report) if CROSS_RUN in chosen and len(finished) > 1 else {}
    if failures:
        raise UserError(f"{len(failures)} of {len(failures) + len(results)} runs could not be probed: {failures[0]}")
    return {"sweep": name, "runs": results, CROSS_RUN: across}


def _across(sweep: LaunchedSweep, runs: list[Run], images: Sequence[str] | None, report: Report) -> dict[str, Numbers]:
    """Similarity over all runs."""
    result: dict[str, Numbers] = {}
    for store in probe_stores(list(images or []), runs[0].config.data):
        subjects = []
        for run in runs:
            found, _ = activations(run, store, lambda _done, _total: None)
            subjects.append(Subject(run, store, found))
        folder = cross_run_folder(sweep, store.name)
        result[store.name] = numbers = compare_experts(subjects, folder)
        write_json(folder / "result.json", numbers)
        report(
            f"{CROSS_RUN} of {numbers['experts']} experts of {len(runs)} runs on {store.name} "
            f"({len(representative_rows(store)):,} images): {words(numbers)} -> {folder}"
        )
    return result


def cross_run_folder(sweep: LaunchedSweep, images: str) -> Path:
    """Where the comparison of all experts of a sweep on an image store lies."""
    return sweep.folder / "probes" / images / CROSS_RUN
