"""Probing the models that a run keeps from training: how its headline numbers formed.

These are the checkpoints of its three best epochs and the last (Appendix A.1), and the models of `machine.keep_epochs`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from moe.data.readers import no_progress
from moe.data.store import ImageStore, sha256
from moe.errors import UserError
from moe.export import ModelCard
from moe.files import remove
from moe.model import MoE
from probes.activations import activations
from probes.baselines import initial_snapshot
from probes.drawing.base import save
from probes.drawing.curves import over_epochs
from probes.failures import Failures
from probes.probe import Numbers, Probe
from probes.snapshots import Snapshot, exported, of_run
from probes.subject import Subject
from probes.tables import write_table
from sweeps.runs.folders import OVER_TRAINING
from sweeps.runs.run import Run
from sweeps.training.checkpoints import UnusableError, load

_PREFIX = "model."  # of the network within the Lightning module


def checkpoint_snapshots(run: Run, report: Callable[[str], None]) -> list[Snapshot]:
    """The model of every checkpoint that can be read, by epochs trained; of equal ones the first by name.

    Only tensors and plain values are read, no pickled code.
    """
    found: dict[int, Snapshot] = {}
    for file in sorted(run.checkpoint_files()):
        try:
            epoch, model, card = _model(run, file)
        except UnusableError as error:
            report(f"  {file.name} {error} and is left out")
            continue
        if epoch not in found:
            found[epoch] = of_run(run, model, card, sha256(file), epoch)
    return [found[epoch] for epoch in sorted(found)]


def kept_snapshots(run: Run, report: Callable[[str], None]) -> list[Snapshot]:
    """The models that the run was asked to keep and that can be read, by epochs trained."""
    found = []
    for epoch, folder in run.kept_models().items():
        try:
            model, card = exported(run, folder)
        except UserError as error:
            report(f"  {error}; it is left out")
            continue
        found.append(of_run(run, model, card, card.sha256, epoch))
    return found


def training_snapshots(run: Run, report: Callable[[str], None]) -> list[Snapshot]:
    """The untrained model, every kept one and every checkpoint, by epochs trained.

    Raises:
        UserError: there are fewer than two trained ones.
    """
    every = [initial_snapshot(run), *checkpoint_snapshots(run, report), *kept_snapshots(run, report)]
    found = {snapshot.epoch or 0: snapshot for snapshot in every}
    if len(found) < 3:
        raise UserError(
            f"run {run.id} has models of {len(found) - 1} trained epochs in {run.path}; results over epochs need two "
            "(machine.keep_epochs keeps more)"
        )
    return [found[epoch] for epoch in sorted(found)]


def _model(run: Run, file: Path) -> tuple[int, MoE, ModelCard]:
    """The epochs behind a checkpoint and its model, with the card of the run's exported one.

    Raises:
        UnusableError: it is damaged, or holds another model.
    """
    stored = load(file)
    model, card = exported(run)
    weights = {k.removeprefix(_PREFIX): v for k, v in stored["state_dict"].items() if str(k).startswith(_PREFIX)}
    try:
        model.load_state_dict(weights)
        return int(stored["epoch"]) + 1, model.eval(), card
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        raise UnusableError("holds another model") from None


def probe_epochs(
    run: Run, store: ImageStore, probes: Mapping[str, Probe], failures: Failures, report: Callable[[str], None]
) -> list[str]:
    """Headline numbers of every probe untrained and after the epochs that are kept: a table, a figure in its folder.

    Returns:
        The probes that did not fail.

    Raises:
        UserError: the run has models of fewer than two trained epochs.
    """
    snapshots = training_snapshots(run, report)
    names = ", ".join(str(snapshot.epoch) for snapshot in snapshots)
    report(f"  over training on {store.name}: after epochs {names}")
    subjects = [Subject(run, store, activations(s, store, no_progress)[0], s.epoch, s) for s in snapshots]
    epochs = [s.epoch for s in snapshots if s.epoch is not None]
    done = []
    for name, probe in probes.items():
        what = f"{name} on {store.name}, run {run.id}"
        numbers = failures.attempt(f"{what}, over training", partial(_all_numbers, probe, subjects))
        if numbers is not None:
            _write(run.probe(store.name, probe.label(name)), epochs, numbers, what)
            done.append(name)
    for snapshot in snapshots:  # large, and of little use once their numbers are known
        remove(snapshot.folder(store))
    return done


def _all_numbers(probe: Probe, subjects: Sequence[Subject]) -> list[Numbers]:
    found = []
    for subject in subjects:
        with tempfile.TemporaryDirectory() as folder:
            found.append(probe.run(subject, Path(folder), no_progress).numbers)
    return found


def _write(folder: Path, epochs: list[int], numbers: list[Numbers], title: str) -> None:
    keys = list(dict.fromkeys(key for row in numbers for key in row))
    rows = ([epoch, *(row.get(key) for key in keys)] for epoch, row in zip(epochs, numbers, strict=True))
    write_table(folder / OVER_TRAINING, ["epoch", *keys], rows)
    curves = {key: [row.get(key) for row in numbers] for key in keys}
    moving = {key: values for key, values in curves.items() if len(set(values)) > 1} or curves
    save(over_epochs(moving, epochs, title), folder / "epochs.png")
