"""Probing the checkpoints that a run keeps from training: how its headline numbers formed.

A run keeps its three best epochs and the last (Appendix A.1), so this is a few points, not a curve of all epochs.
"""

import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from moe.data.readers import no_progress
from moe.data.store import ImageStore, sha256
from moe.errors import UserError
from moe.export import load_model
from probes.activations import Snapshot, activations, digest
from probes.drawing.base import save
from probes.drawing.curves import over_epochs
from probes.probe import Numbers, Probe
from probes.subject import Subject
from probes.tables import write_table
from sweeps.runs.run import Run

_PREFIX = "model."  # of the network within the Lightning module


def checkpoint_snapshots(run: Run, report: Callable[[str], None]) -> list[Snapshot]:
    """The model of every checkpoint that can be read, by epochs trained; of equal ones the first by name.

    Only tensors and plain values are read, no pickled code.
    """
    found: dict[int, Snapshot] = {}
    for file in sorted(run.checkpoint_files()):
        try:
            stored = torch.load(file, map_location="cpu", weights_only=True)
            epoch = int(stored["epoch"]) + 1
            weights = {k.removeprefix(_PREFIX): v for k, v in stored["state_dict"].items() if k.startswith(_PREFIX)}
        except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
            report(f"  {file.name} cannot be read ({type(error).__name__}) and is left out")
            continue
        if epoch not in found:
            model, card = load_model(run.model)
            model.load_state_dict(weights)
            found[epoch] = Snapshot(run, model.eval(), card, digest(sha256(file), card), epoch)
    return [found[epoch] for epoch in sorted(found)]


def probe_epochs(
    final: Snapshot, store: ImageStore, probes: Mapping[str, Probe], report: Callable[[str], None]
) -> None:
    """Headline numbers of every probe after the epochs that are kept, as a table and a figure in its folder.

    Raises:
        UserError: the run has fewer than two checkpoints.
    """
    run = final.run
    snapshots = checkpoint_snapshots(run, report)
    if len(snapshots) < 2:
        raise UserError(
            f"run {run.id} has {len(snapshots)} checkpoints in {run.checkpoints}; results over epochs need two"
        )
    names = ", ".join(str(snapshot.epoch) for snapshot in snapshots)
    report(f"  over training on {store.name}: checkpoints after epochs {names}")
    subjects = [Subject(run, store, activations(s, store, no_progress)[0], s.epoch) for s in snapshots]
    for name, probe in probes.items():
        numbers = [_numbers(probe, subject) for subject in subjects]
        folder = run.probe(store.name, probe.label(name))
        _write(
            folder,
            [s.epoch for s in snapshots if s.epoch is not None],
            numbers,
            f"{name} on {store.name}, run {run.id}",
        )
    for snapshot in snapshots:  # large, and of little use once their numbers are known
        shutil.rmtree(snapshot.folder(store), ignore_errors=True)


def _numbers(probe: Probe, subject: Subject) -> Numbers:
    with tempfile.TemporaryDirectory() as folder:
        return probe.run(subject, Path(folder), no_progress).numbers


def _write(folder: Path, epochs: list[int], numbers: list[Numbers], title: str) -> None:
    keys = list(dict.fromkeys(key for row in numbers for key in row))
    rows = ([epoch, *(row.get(key) for key in keys)] for epoch, row in zip(epochs, numbers, strict=True))
    write_table(folder / "epochs.csv", ["epoch", *keys], rows)
    curves = {key: [row.get(key) for row in numbers] for key in keys}
    moving = {key: values for key, values in curves.items() if len(set(values)) > 1} or curves
    save(over_epochs(moving, epochs, title), folder / "epochs.png")
