"""What a probe's numbers are to be compared with: the same probe on something that is no trained expert.

All experts read the same shared features, which hold much of the image: experts that are alike, or that tell classes
apart, may say no more than their input does.

Axes: n images, E experts, K slots, D embedding.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe.config import flat, from_flat
from moe.data.readers import no_progress
from moe.errors import UserError
from moe.files import remove
from moe.model import build_model, drawn_from
from probes.activations import Activations, activations
from probes.drawing.base import save
from probes.drawing.curves import beside_baselines
from probes.features import pooled_shared, small_pictures
from probes.probe import Baseline, Numbers, Probe
from probes.snapshots import Snapshot, exported, final_snapshot, of_run
from probes.subject import Subject
from probes.tables import write_table
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore


def initial_snapshot(run: Run) -> Snapshot:
    """The run's model before training: the initial weights of its seed, after 0 epochs.

    In eval mode its batch norms use the statistics they begin with, mean 0 and variance 1.

    Raises:
        UserError: the run has no usable model.
    """
    _, card = exported(run)
    with drawn_from(card.seed):
        model = build_model(card.model, card.gate)
    return of_run(run, model.eval(), card, f"initial weights of seed {card.seed}", epoch=0)


def one_expert_run(run: Run) -> Run | None:
    """The finished run of the same recipe and seed with a single expert (E = 1, k = 1), if it lies beside this one."""
    if run.config.model.experts == 1:
        return None
    try:
        twin = from_flat(flat(run.config) | {"model.experts": 1, "model.top_k": 1})
    except UserError:  # a recipe that needs several
        return None
    found = RunStore(run.path.parent).run(twin.identity())
    return found if found.finished else None


class Baselines:
    """The subjects that stand beside a run's own, each made when a probe first asks for it.

    Args:
        snapshot: the run's model.
        subject: it, seen through a set of images.
    """

    def __init__(self, snapshot: Snapshot, subject: Subject) -> None:
        self._snapshot, self._subject = snapshot, subject
        self._made: dict[Baseline, Subject] = {}
        self._makers: dict[Baseline, Callable[[], Activations]] = {
            "untrained": self._untrained,
            "shared": lambda: _one_readout(pooled_shared(snapshot, subject.store)),
            "pixels": lambda: _one_readout(small_pictures(snapshot, subject.store)),
            "embedding": lambda: _one_readout(embedding(subject.activations)),
            "one_expert": self._one_expert,
            "random_router": lambda: random_router(subject.activations, int(subject.seed or 0)),
        }

    def subject(self, name: Baseline) -> Subject:
        """One of them."""
        if name not in self._made:
            snapshot = self._initial if name == "untrained" else self._snapshot
            self._made[name] = replace(self._subject, activations=self._makers[name](), epoch=None, snapshot=snapshot)
        return self._made[name]

    def numbers(self, probe: Probe) -> dict[str, Numbers]:
        """Headline numbers of a probe on each baseline that means something to it and can be had, under its options."""
        found: dict[str, Numbers] = {}
        for name in (name for name in probe.baselines if self._can_be_had(name)):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = probe.run(self.subject(name), Path(folder), no_progress).numbers
        return found

    def _can_be_had(self, name: Baseline) -> bool:
        """Not so without a run of one expert, nor, of a model trained elsewhere, what it does not tell."""
        if name == "one_expert":
            return self._twin is not None
        if name == "untrained":
            return isinstance(self._snapshot.run, Run)
        return name != "shared" or self._snapshot.model.has_shared

    def close(self) -> None:
        """Remove the untrained model's activations: large, and of little use once their numbers are known."""
        if "untrained" in self._made:
            remove(self._initial.folder(self._subject.store))

    def _untrained(self) -> Activations:
        return activations(self._initial, self._subject.store, no_progress)[0]

    def _one_expert(self) -> Activations:
        if self._twin is None:
            raise LookupError("there is no run with E = 1 beside this one")
        found, _ = activations(final_snapshot(self._twin), self._subject.store, no_progress)
        return _one_readout(found.readouts_EnD[0])

    @cached_property
    def _twin(self) -> Run | None:
        run = self._snapshot.run
        return one_expert_run(run) if isinstance(run, Run) else None

    @cached_property
    def _initial(self) -> Snapshot:
        run = self._snapshot.run
        assert isinstance(run, Run), "how it began is not known"
        return initial_snapshot(run)


def untrained_together(probe: Probe, runs: Iterable[Baselines]) -> dict[str, Numbers]:
    """Headline numbers over several runs of their models before training.

    Args:
        probe: one that compares runs.
        runs: the baselines of each, on the same images.
    """
    subjects = [run.subject("untrained") for run in runs]
    with tempfile.TemporaryDirectory() as folder:
        result = probe.across_runs(subjects, Path(folder), no_progress)
    return {"untrained": result.numbers} if result else {}


def _one_readout(readout_nD: NDArray[np.float32]) -> Activations:
    """As activations of a single expert whose gate says nothing."""
    n = len(readout_nD)
    return Activations(
        np.zeros((n, 1), np.float32), np.zeros((n, 1), np.int64), np.ones((n, 1), np.float32), readout_nD[None]
    )


def embedding(found: Activations) -> NDArray[np.float32]:
    """Z (n, D): the sum of the chosen experts' readouts, weighted by their gates (Equation 1)."""
    images = np.arange(len(found.indices_nK))
    z_nD = np.zeros(found.readouts_EnD.shape[1:], np.float32)
    for indices_n, weights_n in zip(found.indices_nK.T, found.weights_nK.T, strict=True):
        z_nD += weights_n[:, None] * found.readouts_EnD[indices_n, images]
    return z_nD


def random_router(found: Activations, seed: int) -> Activations:
    """The same experts and the same gates, but the gates of another image: a router that does not look."""
    order = np.random.default_rng(seed).permutation(len(found.logits_nE))
    return replace(
        found, logits_nE=found.logits_nE[order], indices_nK=found.indices_nK[order], weights_nK=found.weights_nK[order]
    )


def write_baselines(folder: Path, name: str, own: Numbers, baselines: Mapping[str, Numbers]) -> None:
    """`baselines.csv`, a row a headline number, and `baselines.png`.

    Args:
        folder: of the probe's results.
        name: of the probe, for the figure's title.
        own: the run's numbers.
        baselines: those of each baseline.
    """
    keys = [key for key in own if any(numbers.get(key) is not None for numbers in baselines.values())]
    columns = {"run": own, **baselines}
    rows = [[key, *(numbers.get(key) for numbers in columns.values())] for key in keys]
    write_table(folder / "baselines.csv", ["number", *columns], rows)
    shown = [key for key in keys if isinstance(own[key], float) and not _is_detail(key, own)]
    if shown:
        panels = {
            key: {which: (numbers.get(key), numbers.get(f"{key}_low"), numbers.get(f"{key}_high"))
                  for which, numbers in columns.items()}
            for key in shown
        }  # fmt: skip
        save(beside_baselines(panels, f"{name}: the run beside its baselines"), folder / "baselines.png")


def _is_detail(key: str, keys: Iterable[str]) -> bool:
    """Ends of intervals, nulls and p-values, which have no panel of their own."""
    stem = key.removesuffix("_low").removesuffix("_high")
    return (stem != key and stem in keys) or key.endswith(("_p", "_null"))
