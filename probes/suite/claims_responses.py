"""Claims about responses, gate logits and readout norms: what explains them, and how one follows from the other.

Axes: n images, R runs, E experts of a run, t = 2 E targets: the gate logits of all experts, then their readout norms.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moe.wording import counted
from probes.statistics.held_out import FOLDS, HeldOutR2, held_out_r2
from probes.statistics.image_statistics import image_statistics
from probes.statistics.nonlinearity import curve_r2
from probes.statistics.resampling import mean_of_defined, p_value
from probes.statistics.spreads import mean_over_cells, student_interval
from probes.statistics.tuning import held_out_predictions
from probes.statistics.variance_partitioning import Partition, partition, unique_null
from probes.subject import Subject, evenly
from probes.suite.claims_asked import Asked, Floats, Measured, MissingError

KINDS = ("gate", "readout")
_LEAST_LABELLED = 50


def gate_above_readout(asked: Asked) -> Measured:
    """Rated dimensions explain more of the gate than of the readout, paired by expert (Tables 1 and S1)."""
    rows, factors_NF = asked.rated, asked.store.factors_NF
    assert factors_NF is not None  # some are rated
    gates, both = [], []
    for subject in asked.subjects:
        Y_nt = _responses(subject, rows)
        r2 = held_out_r2(Y_nt, held_out_predictions(factors_NF[rows], Y_nt, seed=asked.options.seed))
        gate, readout = (_of_kind(r2, kind) for kind in KINDS)
        gates.append(float(mean_of_defined(gate.value_t)))
        both.append(_less(gate, readout))
    found = _over_seeds_and_images(asked, both, rows, (0.0, math.inf))
    gate_r2 = mean_over_cells(np.array(gates), asked.cells_R)
    return replace(found, more={"gate_r2": gate_r2, "readout_r2": gate_r2 - found.effect})


def gate_readout_bent(asked: Asked) -> Measured:
    """A monotone curve from gate logit to readout norm predicts unseen images better than a line (Figures 4 and S1)."""
    rows, runs = asked.once(_curves)
    gain, smooth = ([_less(curves[which], curves["line"]) for curves in runs] for which in ("monotone", "smooth"))
    found = _over_seeds_and_images(asked, gain, rows, (asked.options.bent, math.inf))
    of_experts = np.concatenate([one.value_t for one in gain])
    of_experts = of_experts[np.isfinite(of_experts)]
    share = float((of_experts > asked.options.bent).mean()) if len(of_experts) else float("nan")
    return replace(found, more={"share_of_experts": share, "smooth_less_line": _mean(asked, smooth)})


def gate_readout_loose(asked: Asked) -> Measured:
    """A line from gate logit to readout norm explains less than a bound."""
    rows, runs = asked.once(_curves)
    return _over_seeds_and_images(asked, [curves["line"] for curves in runs], rows, (-math.inf, asked.options.loose))


def _curves(asked: Asked) -> tuple[NDArray[np.intp], list[dict[str, HeldOutR2]]]:
    """Rows of the images used, and each run's curves.

    Raises:
        MissingError: the images are of too few concepts to hold any of these out.
    """
    rows = evenly(len(asked.store), asked.options.images)
    units = asked.subjects[0].units_of(rows)
    if units is not None and units.max() + 1 < FOLDS:
        raise MissingError(f"the images are of {counted(int(units.max()) + 1, 'concept')}, {FOLDS} are needed")
    found = []
    for subject in asked.subjects:
        logits_nE, norms_nE = subject.activations.logits_nE[rows], subject.activations.norms_nE[rows]
        found.append(curve_r2(logits_nE, norms_nE, seed=asked.options.seed, units=subject.units_of(rows)))
    return rows, found


@dataclass(frozen=True)
class Partitions:
    """How much of each run's responses sets of predictors explain.

    Attributes:
        rows: of the images: rated ones with a class.
        sets: the predictors by name.
        runs: of each run, by target.
        null_bRt: what rated dimensions explain uniquely when they are dealt to the images at random, for each run.
    """

    rows: NDArray[np.intp]
    sets: dict[str, Floats]
    runs: list[Partition]
    null_Rbt: list[Floats]


def partitions(asked: Asked) -> Partitions:
    """Rated dimensions, categories and low-level statistics as predictors of gate logits and readout norms.

    Raises:
        MissingError: too few images are rated and have a class.
    """
    rated, factors_NF = asked.rated, asked.store.factors_NF
    assert factors_NF is not None  # some are rated
    rows = rated[asked.labels_n[rated] >= 0]
    if len(rows) < _LEAST_LABELLED:
        raise MissingError(f"{len(rows)} rated images have a category, {_LEAST_LABELLED} are needed")
    present = np.unique(asked.labels_n[rows])
    sets = {
        "dimensions": factors_NF[rows].astype(np.float64),
        "categories": (asked.labels_n[rows, None] == present).astype(np.float64),
        "low_level": image_statistics(asked.store.images_NHWC[rows]),
    }
    seed, runs, null = asked.options.seed, [], []
    for subject in asked.subjects:
        Y_nt = _responses(subject, rows)
        runs.append(partition(sets, Y_nt, seed=seed))
        null.append(unique_null(sets, "dimensions", Y_nt, draws=asked.options.permutations, seed=seed))
    return Partitions(rows, sets, runs, null)


def dimensions_beyond_categories(kind: str) -> Callable[[Asked], Measured]:
    """Rated dimensions explain something of gate or readout that neither categories nor low-level statistics do."""

    def measure(asked: Asked) -> Measured:
        found = asked.once(partitions)
        unique = [_of_kind(one.unique["dimensions"], kind) for one in found.runs]
        measured = _over_seeds_and_images(asked, unique, found.rows, (0.0, math.inf))
        null_Rb = [mean_of_defined(null_bt[:, _part(null_bt.shape[1], kind)]) for null_bt in found.null_Rbt]
        null_b = np.array([mean_over_cells(of_draw, asked.cells_R) for of_draw in np.array(null_Rb).T])
        more = {"together": _mean(asked, [_of_kind(one.together, kind) for one in found.runs])}
        more |= {f"only_{name}": _mean(asked, [_of_kind(one.unique[name], kind) for one in found.runs])
                 for name in found.sets}  # fmt: skip
        more |= {f"{name}_alone": _mean(asked, [_of_kind(one.alone[name], kind) for one in found.runs])
                 for name in found.sets}  # fmt: skip
        return replace(measured, p=p_value(measured.effect, null_b), p_over="images", more=more)

    return measure


def _responses(subject: Subject, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    some = subject.activations.rows(rows)
    return np.concatenate([some.logits_nE, some.norms_nE], axis=1)


def _part(t: int, kind: str) -> slice:
    return slice(t // 2) if kind == KINDS[0] else slice(t // 2, None)


def _of_kind(r2: HeldOutR2, kind: str) -> HeldOutR2:
    part = _part(len(r2.value_t), kind)
    return HeldOutR2(r2.value_t[part], r2.influence_nt[:, part])


def _less(a: HeldOutR2, b: HeldOutR2) -> HeldOutR2:
    return HeldOutR2(a.value_t - b.value_t, a.influence_nt - b.influence_nt)


def _mean(asked: Asked, runs: Sequence[HeldOutR2]) -> float:
    return mean_over_cells(np.array([float(mean_of_defined(one.value_t)) for one in runs]), asked.cells_R)


def _over_seeds_and_images(
    asked: Asked, runs: Sequence[HeldOutR2], rows: NDArray[np.intp], region: tuple[float, float]
) -> Measured:
    """The mean over a run's experts, then over runs, with its interval over seeds and images (or concepts)."""
    runs_R = np.array([float(mean_of_defined(one.value_t)) for one in runs])
    influence_Rn = np.array([mean_of_defined(one.influence_nt) for one in runs])
    spread = asked.over_images(influence_Rn, asked.subjects[0].units_of(rows))
    effect, bounds = asked.over_seeds(runs_R, spread)
    return Measured(effect, bounds, "seeds and images", region, runs_R=runs_R, images=student_interval(effect, spread))
