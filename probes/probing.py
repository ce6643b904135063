"""Probing runs: activations, then each probe, its files in the run's directory and in the tracker's run."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from threadpoolctl import threadpool_limits

from moe.data.datasets import named_stores, probe_stores
from moe.data.readers import Progress, no_progress
from moe.data.store import ImageStore
from moe.errors import UserError
from moe.files import remove
from moe.scratch import scratch
from probes import epochs as over_training
from probes.activations import activations
from probes.baselines import Baselines, untrained_together, write_baselines
from probes.failures import Failures
from probes.foreign import load_foreign
from probes.probe import SEPARATOR, Numbers, Probe, Result
from probes.registry import PROBES, chosen
from probes.snapshots import Snapshot, final_snapshot, of_foreign
from probes.subject import Subject, few_notes
from sweeps.console import err, progress_bar
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.opening import open_queue, open_sweep
from sweeps.queue.status import filled_cells, status
from sweeps.runs.files import write_json
from sweeps.runs.folders import RESULT
from sweeps.runs.foreign import ForeignRun
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore
from sweeps.tracking.pulling import find, pull_missing
from sweeps.tracking.results import Outbox, outbox, publish_findings

Report = Callable[[str], None]
Ask = Callable[[Path, Progress], Result | None]  # writes into the folder that it is given


def probe_run(
    run_id: str,
    names: Sequence[str] | None,
    images: Sequence[str] | None,
    report: Report,
    options: Sequence[str] | None = None,
    *,
    epochs: bool = False,
    baselines: bool = False,
) -> dict[str, Any]:
    """Probe one run on the images named, or on what is at hand.

    Args:
        run_id: the run, or an unambiguous beginning of its id.
        names: probes; None or none: all.
        images: datasets or stores; None or none: what is at hand for the run.
        report: takes lines of text.
        options: ``probe.option=value``.
        epochs: probe the checkpoints kept from training too, and the untrained model.
        baselines: probe what the numbers are to be compared with too.

    Returns:
        ``{"run_id": ..., "images": {store: {probe: numbers}}}``; results on several stores together are under their
        names joined by ``--``.

    Raises:
        UserError: no such run, it is not finished, or images, probes or options are unknown.
        ProbesFailedError: some probes failed, after all others.
    """
    probes = chosen(names, options)
    _name_broken(names, report)
    failures = Failures(report)
    results = _probe(
        find(run_id, RunStore(), report), probes, images, failures, report, epochs=epochs, baselines=baselines
    )
    failures.end()
    return results


def probe_model(
    reference: str,
    weights: Path | None,
    names: Sequence[str] | None,
    images: Sequence[str],
    report: Report,
    options: Sequence[str] | None = None,
    *,
    baselines: bool = False,
) -> dict[str, Any]:
    """Probe a model that this project did not train; `moe.foreign.base.ForeignModel` says what it has to offer.

    Args:
        reference: ``FILE.py:FACTORY``, or a name that an installed package brings (`moe.models`).
        weights: a safetensors file with its state_dict; None: the factory has taken care of them.
        names: probes; None or none: all.
        images: datasets or stores.
        report: takes lines of text.
        options: ``probe.option=value``.
        baselines: probe what the numbers are to be compared with too, but an untrained model, which is not known.

    Returns:
        ``{"model": ..., "folder": ..., "images": {store: {probe: numbers}}}``.

    Raises:
        UserError: no such model, weights, images, probes or options; or the model breaks a guarantee.
        ProbesFailedError: some probes failed, after all others.
    """
    probes, stores = chosen(names, options), named_stores(images)
    model, name = load_foreign(reference, weights)
    _name_broken(names, report)
    run, failures = ForeignRun(RunStore().root, name), Failures(report)
    run.describe({"model": reference, "weights": str(weights) if weights else None, "digest": model.digest})
    found = _asked(of_foreign(run, model), stores, probes, failures, report, epochs=False, baselines=baselines)
    failures.end()
    return {"model": name, "folder": str(run.path), "images": found}


def _name_broken(names: Sequence[str] | None, report: Report) -> None:
    for name, reason in PROBES.broken().items() if not names else ():
        report(f"the probe {name} cannot be loaded and is left out: {reason}")


def _probe(
    run: Run,
    probes: Mapping[str, Probe],
    images: Sequence[str] | None,
    failures: Failures,
    report: Report,
    *,
    epochs: bool = False,
    baselines: bool = False,
) -> dict[str, Any]:
    if not run.finished:
        raise UserError(f"run {run.id} is {run.state.state}, not finished; finish it with `moe sweep resume SWEEP`")
    stores = probe_stores(list(images or []), run.config.data)
    found = _asked(final_snapshot(run), stores, probes, failures, report, epochs=epochs, baselines=baselines)
    return {"run_id": run.id, "images": found}


def _asked(
    snapshot: Snapshot,
    stores: Sequence[ImageStore],
    probes: Mapping[str, Probe],
    failures: Failures,
    report: Report,
    *,
    epochs: bool,
    baselines: bool,
) -> dict[str, dict[str, Numbers]]:
    """Headline numbers of one model by images and probe; tables and figures go into its folder and the tracker."""
    for probe in probes.values():
        probe.check(stores)
    run, results = snapshot.run, dict[str, dict[str, Numbers]]()
    with outbox(run) as found:
        subjects = []
        for store in stores:
            subject = subject_of(snapshot, store, report)
            subjects.append(subject)
            found.add_activations(store.name)
            results[store.name] = {}
            beside = Baselines(snapshot, subject) if baselines else None
            for name, probe in probes.items():
                ask = partial(_one, subject, name, probe, found, report, snapshot, beside)
                numbers = failures.attempt(f"{name} on {store.name}, {run.title}", ask)
                if numbers is not None:
                    results[store.name][name] = numbers
            if beside is not None:
                beside.close()
            if epochs and isinstance(run, Run):
                able = {name: probes[name] for name in results[store.name]}
                for name in over_training.probe_epochs(run, store, able, failures, report):
                    found.add(store.name, probes[name].label(name))
        if len(subjects) > 1:
            results |= _across_images(subjects, probes, found, failures, report)
    return results


def _can(name: str, probe: Probe, store: ImageStore, report: Report) -> bool:
    reason = probe.skip(store)
    if reason is not None:
        report(f"  {name}: left out, {reason}")
    return reason is None


def subject_of(snapshot: Snapshot, store: ImageStore, report: Report) -> Subject:
    """A model with its activations to a store, and a line that says where they come from."""
    started = time.monotonic()
    with bar(f"activations of {len(store):,} images") as progress:
        found, reused = activations(snapshot, store, progress)
    how = "reused" if reused else f"computed in {time.monotonic() - started:.1f} s"
    report(f"{snapshot.run.title} on {store.name} ({len(store):,} images): activations {how}")
    subject = Subject(snapshot.run, store, found, snapshot.epoch, snapshot)
    for note in few_notes([subject]):
        report(f"  {note}")
    return subject


@contextlib.contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar in a terminal, nothing elsewhere: there the line at the end says it all."""
    with progress_bar(what) if err.is_terminal else contextlib.nullcontext(no_progress) as progress:
        yield progress


def _one(
    subject: Subject,
    name: str,
    probe: Probe,
    found: Outbox,
    report: Report,
    snapshot: Snapshot,
    beside: Baselines | None,
) -> Numbers | None:
    """The headline numbers of one probe; None if it cannot use the images."""
    if not _can(name, probe, subject.store, report):
        return None
    folder = subject.run.probe(subject.store.name, probe.label(name))
    provenance = {"model": snapshot.digest, "image_sets": {subject.store.name: subject.store.digest()}}
    ask: Ask = partial(probe.run, subject)
    if beside is not None:
        ask = partial(_with_baselines, name, ask, partial(beside.numbers, probe))
    result = write_result(folder, name, probe, report, provenance, [subject], ask)
    found.add(subject.store.name, folder.name)
    return result.numbers


def _with_baselines(
    name: str, ask: Ask, others: Callable[[], dict[str, Numbers]], folder: Path, progress: Progress
) -> Result:
    """A probe's result, and beside it the same numbers of each baseline."""
    result = ask(folder, progress) or Result({})
    found = others()
    write_baselines(folder, name, result.numbers, found)
    return replace(result, baselines=found)


def write_result(
    folder: Path,
    name: str,
    probe: Probe,
    report: Report,
    provenance: Mapping[str, Any],
    subjects: Sequence[Subject],
    ask: Ask,
) -> Result:
    """Let a probe write its files and put them in place of older ones, whole or not at all.

    Args:
        folder: where the results belong.
        name: of the probe.
        probe: with its options.
        report: takes one line with the headline numbers, and one for each note.
        provenance: what else stands in `result.json`.
        subjects: who is asked; experts that trained on few views a step are added to the notes.
        ask: writes into the folder it is given.
    """
    started = time.monotonic()
    with scratch(folder.parent.parent, folder.name) as partial:
        # thousands of small fits: threads only wait for each other
        with threadpool_limits(1, user_api="blas"), bar(f"{name} on {folder.parent.name}") as progress:
            result = ask(partial, progress) or Result({})
        notes = [*result.notes, *few_notes(subjects)]
        record = {"options": probe.options(), "notes": notes, **provenance}
        others = {f"{which}/{key}": value for which, of in result.baselines.items() for key, value in of.items()}
        write_json(partial / RESULT, {**result.numbers, **others, **record, **result.record})
        remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
    report(f"  {folder.name}: {words(result.numbers) or 'figures'} ({time.monotonic() - started:.1f} s) -> {folder}")
    for note in result.notes:
        report(f"    {note}")
    return result


def words(numbers: Numbers) -> str:
    """Headline numbers in one line; `x_low` and `x_high` stand behind `x` in brackets."""
    shown = {
        key: f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        for key, value in numbers.items()
        if value is not None
    }
    ends = {key: (f"{key}_low", f"{key}_high") for key in shown if {f"{key}_low", f"{key}_high"} <= shown.keys()}
    hidden = {end for pair in ends.values() for end in pair}
    parts = []
    for key in (key for key in shown if key not in hidden):
        between = f" [{', '.join(shown[end] for end in ends[key])}]" if key in ends else ""
        parts.append(f"{key} {shown[key]}{between}")
    return ", ".join(parts)


def _across_images(
    subjects: Sequence[Subject], probes: Mapping[str, Probe], found: Outbox, failures: Failures, report: Report
) -> dict[str, dict[str, Numbers]]:
    """Probes that set several sets of images side by side."""
    run, images = subjects[0].run, SEPARATOR.join(subject.store.name for subject in subjects)
    results: dict[str, Numbers] = {}
    for name, probe in probes.items():
        if type(probe).across_images is Probe.across_images:
            continue
        able = [subject for subject in subjects if probe.skip(subject.store) is None]
        if len(able) < 2:
            continue
        folder = run.probe(images, probe.label(name))
        provenance = {"image_sets": {subject.store.name: subject.store.digest() for subject in able}}
        ask = partial(write_result, folder, name, probe, report, provenance, able, partial(probe.across_images, able))
        result = failures.attempt(f"{name} on {images}, {run.title}", ask)
        if result is not None:
            found.add(images, folder.name)
            results[name] = result.numbers
    return {images: results} if results else {}


def probe_sweep(
    name: str,
    names: Sequence[str] | None,
    images: Sequence[str] | None,
    report: Report,
    options: Sequence[str] | None = None,
    *,
    epochs: bool = False,
    baselines: bool = False,
) -> dict[str, Any]:
    """Probe every finished run of a sweep, then the experts of all runs together.

    Returns:
        ``{"sweep": ..., "runs": [...], "across_runs": {probe: {store: numbers}}}``.

    Raises:
        UserError: no such sweep, none of its runs is finished, or (after all others) some could not be probed.
        ProbesFailedError: some probes failed, after all others.
    """
    sweep = open_sweep(name)
    probes = chosen(names, options)
    _name_broken(names, report)
    with contextlib.closing(open_queue(sweep)) as queue:
        pull_missing(queue.trained_elsewhere(), sweep.store, report)
    runs = [sweep.store.run(cell.run_id) for cell in filled_cells(sweep)]
    finished = [run for run in runs if run.finished]
    if not finished:
        raise UserError(f"no run of sweep {name} is finished; `moe sweep resume {quote(name)}` goes on")
    if left := len(runs) - len(finished):
        stopped = _stopped(sweep)
        why = f"{stopped} stopped in W&B or early, {left - stopped} not finished" if stopped else "not finished"
        report(f"{left} of {len(runs)} runs are left out: {why}")
    results: list[dict[str, Any]] = []
    failures, not_probed = Failures(report), list[str]()
    for number, run in enumerate(finished, 1):
        report(f"[{number}/{len(finished)}]")
        try:
            results.append(_probe(run, probes, images, failures, report, epochs=epochs, baselines=baselines))
        except UserError as error:
            not_probed.append(f"{run.id}: {error}")
            report(f"  {error}")
    probed = {result["run_id"] for result in results}
    joint = [run for run in finished if run.id in probed]
    across = _across_runs(sweep, joint, probes, images, failures, report, baselines=baselines)
    failures.end()
    if not_probed:
        total = len(not_probed) + len(results)
        raise UserError(f"{len(not_probed)} of {total} runs could not be probed: {not_probed[0]}")
    return {"sweep": name, "runs": results, "across_runs": across}


def _stopped(sweep: LaunchedSweep) -> int:
    """How many runs of a sweep were stopped for good; 0 where its queue does not answer."""
    with contextlib.suppress(UserError):
        return sum(cell.ending is not None and cell.ending.for_good for cell in status(sweep).cells)
    return 0


def _across_runs(
    sweep: LaunchedSweep,
    runs: Sequence[Run],
    probes: Mapping[str, Probe],
    images: Sequence[str] | None,
    failures: Failures,
    report: Report,
    *,
    baselines: bool,
) -> dict[str, dict[str, Numbers]]:
    """Probes that set several runs side by side; with one run they have said what they can."""
    joint = {name: probe for name, probe in probes.items() if type(probe).across_runs is not Probe.across_runs}
    if not joint or len(runs) < 2:
        return {}
    results: dict[str, dict[str, Numbers]] = {name: {} for name in joint}
    snapshots = [final_snapshot(run) for run in runs]
    for store in probe_stores(list(images or []), runs[0].config.data):
        able = {name: probe for name, probe in joint.items() if probe.skip(store) is None}
        if not able:
            continue
        report(f"all {len(runs)} runs together on {store.name}")
        subjects = [Subject(s.run, store, activations(s, store, no_progress)[0], snapshot=s) for s in snapshots]
        provenance = {"models": {s.run.id: s.digest for s in snapshots}, "image_sets": {store.name: store.digest()}}
        beside = [Baselines(*pair) for pair in zip(snapshots, subjects, strict=True)] if baselines else []
        for name, probe in able.items():
            folder = sweep.folder.probe(store.name, probe.label(name))
            across: Ask = partial(probe.across_runs, subjects)
            if beside:
                across = partial(_with_baselines, name, across, partial(untrained_together, probe, beside))
            ask = partial(write_result, folder, name, probe, report, provenance, subjects, across)
            result = failures.attempt(f"{name} on {store.name}, all runs", ask)
            if result is not None:
                results[name][store.name] = result.numbers
        for one in beside:
            one.close()
        publish_findings(sweep.folder.analysis(store.name))
    return results
