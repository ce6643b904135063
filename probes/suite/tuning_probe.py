"""Which rated dimensions drive gate and readout of each expert (Appendix A.2, Tables 1 and S1)?

Axes: n images, E experts, p dimensions, t = 2 E targets: the gate logits of all experts, then their readout norms.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.data.store import ImageStore
from probes.drawing.base import save
from probes.drawing.matrices import tuning_profiles
from probes.probe import READOUT_BASELINES, Baseline, Numbers, Probe, Result
from probes.statistics.resampling import matched_null, mean_of_defined, p_value
from probes.statistics.tuning import Tuning, fit_tuning
from probes.statistics.tuning_null import TuningNull, chosen, tuning_null
from probes.subject import Subject, rated_rows
from probes.suite.published import published_tuning
from probes.tables import as_printed, mean, number, write_latex, write_table

_LEAST_RATED = 50  # below, ten or fewer images are held out in each of five folds
_SHOWN = 24  # dimensions in the figure
KINDS = ("gate", "readout")


class TuningProbe(Probe):
    """Dimensions behind gate and readout."""

    about: ClassVar[str] = "tuning: non-negative Lasso from rated dimensions to gate logits and readout norms"
    baselines: ClassVar[tuple[Baseline, ...]] = READOUT_BASELINES

    standardize: bool = Field(True, description="z-score dimensions and responses; false: raw units")
    top: int = Field(5, ge=1, description="dimensions listed for each target")
    permutations: int = Field(99, ge=0, description="of the images, for p-values; 0: none")
    seed: int = Field(0, ge=0, description="of folds and permutations")

    def skip(self, store: ImageStore) -> str | None:
        """Needs rated dimensions."""
        count = len(rated_rows(store))
        return None if count >= _LEAST_RATED else f"{count} images have rated dimensions, {_LEAST_RATED} are needed"

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Table of r2, penalty and top dimensions; all coefficients; agreement of gate and readout; figure."""
        rows = rated_rows(subject.store)
        factors_NF = subject.store.factors_NF
        assert factors_NF is not None  # `skip` looked
        some = subject.activations.rows(rows)
        X_np, Y_nt = factors_NF[rows], np.concatenate([some.logits_nE, some.norms_nE], axis=1)
        progress(0, self.permutations + 2)
        fit, other = (
            fit_tuning(X_np, Y_nt, seed=self.seed, standardize=standardize)
            for standardize in (self.standardize, not self.standardize)
        )
        progress(2, self.permutations + 2)
        null = tuning_null(
            X_np, Y_nt, draws=self.permutations, seed=self.seed, standardize=self.standardize,
            progress=lambda done, total: progress(done + 2, total + 2),
        )  # fmt: skip
        names = subject.store.manifest.factors
        self._tables(folder, fit, null.r2, names, subject.experts)
        _write_selection(folder, fit, null, names, subject.experts)
        readings = {_reading(standardize): found for standardize, found in
                    ((self.standardize, fit), (not self.standardize, other))}  # fmt: skip
        _write_readings(folder, readings, subject.experts)
        self._figure(folder, fit, subject, len(rows))
        numbers = {"images": len(rows)} | self._headline(fit, null.r2, subject.experts)
        for kind, part in _parts(subject.experts).items():
            numbers[f"{kind}_r2_{_reading(not self.standardize).replace(' ', '_')}"] = mean(other.r2[part].mean(axis=1))
        numbers |= self._agreement(folder, fit, subject.experts)
        return Result(numbers, self._notes(fit, subject))

    def _tables(self, folder: Path, fit: Tuning, null_bt: NDArray[np.float64], names: list[str], experts: int) -> None:
        r2_t = fit.r2.mean(axis=1)
        highest_b = null_bt.max(axis=1, initial=-np.inf, where=np.isfinite(null_bt))
        table, printed = [], []
        for target, (kind, expert) in enumerate((kind, expert) for kind in KINDS for expert in range(experts)):
            top = fit.top(target, names, self.top)
            top += [("", float("nan"))] * (self.top - len(top))
            table.append([
                kind, expert, r2_t[target], fit.r2[target].std(), fit.alpha[target], int(fit.at_edge[target]),
                int(fit.dead[target]), p_value(r2_t[target], null_bt[:, target]), p_value(r2_t[target], highest_b),
                *(cell for pair in top for cell in pair),
            ])  # fmt: skip
            printed.append([
                f"{kind} {expert}", as_printed(r2_t[target]), as_printed(fit.r2[target].std()),
                *(cell for name, weight in top for cell in (name, as_printed(weight))),
            ])  # fmt: skip
        pairs = [(f"dimension_{n}", f"weight_{n}") for n in range(1, self.top + 1)]
        header = ["target", "expert", "r2_mean", "r2_sd", "alpha", "alpha_at_edge", "dead", "p", "p_any_target"]
        write_table(folder / "tuning.csv", [*header, *(name for pair in pairs for name in pair)], table)
        features = [f"{what} {n}" for n in range(1, self.top + 1) for what in ("Feature", "Weight")]
        write_latex(folder / "tuning.tex", ["Expert", "r2 Mean", "r2 Std", *features], printed, rules=[experts])
        write_table(
            folder / "coefficients.csv",
            ["target", "expert", *names],
            ([kind, expert, *fit.coef[k * experts + expert].tolist()] for k, kind in enumerate(KINDS)
             for expert in range(experts)),
        )  # fmt: skip
        write_table(
            folder / "folds.csv",
            ["target", "expert", "fold", "r2", "alpha"],
            ([kind, expert, fold, fit.r2[k * experts + expert, fold], fit.fold_alpha[k * experts + expert, fold]]
             for k, kind in enumerate(KINDS) for expert in range(experts) for fold in range(fit.r2.shape[1])),
        )  # fmt: skip

    def _figure(self, folder: Path, fit: Tuning, subject: Subject, n: int) -> None:
        experts, names = subject.experts, subject.store.manifest.factors
        strongest = np.argsort(-np.nan_to_num(fit.coef).max(axis=0), kind="stable")
        shown = strongest[:_SHOWN]
        what = f", the {_SHOWN} strongest of {len(names)} dimensions" if len(names) > _SHOWN else ""
        figure = tuning_profiles(
            [("gate logits", fit.coef[:experts, shown]), ("readout norms", fit.coef[experts:, shown])],
            [f"expert {expert}" for expert in range(experts)],
            [names[column] for column in shown],
            f"Tuning on {n:,} images of {subject.store.name}{what} ({subject.title})",
            "sd of the response per sd" if self.standardize else "response units per unit",
        )
        save(figure, folder / "tuning.png")

    @staticmethod
    def _headline(fit: Tuning, null_bt: NDArray[np.float64], experts: int) -> Numbers:
        numbers: Numbers = {}
        for kind, part in _parts(experts).items():
            r2_E = fit.r2[part].mean(axis=1)
            numbers[f"{kind}_r2"] = mean(r2_E)
            if len(null_bt):
                null_b = mean_of_defined(null_bt[:, part])
                numbers[f"{kind}_r2_null"] = mean(null_b)
                numbers[f"{kind}_r2_p"] = number(p_value(float(mean_of_defined(r2_E)), null_b))
        numbers |= {"dead_targets": int(fit.dead.sum()), "alphas_at_edge": int(fit.at_edge.sum())}
        return numbers

    def _agreement(self, folder: Path, fit: Tuning, experts: int) -> Numbers:
        """Cosine of the gate's profile with the readout's, each expert with itself and with all others."""
        cosine_EE = profile_cosines(fit.coef[:experts], fit.coef[experts:])
        write_table(
            folder / "agreement.csv",
            ["gate_of_expert", *(f"readout_{expert}" for expert in range(experts))],
            ([expert, *row] for expert, row in enumerate(cosine_EE.tolist())),
        )
        own = np.diagonal(cosine_EE)
        numbers: Numbers = {
            "agreement": mean(own),
            "agreement_others": mean(cosine_EE[~np.eye(experts, dtype=bool)]),
        }
        if experts > 1 and np.isfinite(own).any() and self.permutations:
            null = matched_null(cosine_EE, 999, self.seed)
            numbers["agreement_p"] = number(p_value(float(mean_of_defined(own)), null))
        return numbers

    @staticmethod
    def _notes(fit: Tuning, subject: Subject) -> list[str]:
        notes = list(subject.store.manifest.notes)
        names = [f"{kind} of expert {expert}" for kind in KINDS for expert in range(subject.experts)]
        dead = [name for name, is_dead in zip(names, fit.dead, strict=True) if is_dead]
        if dead:
            notes.append(f"dead, the same response to all images: {', '.join(dead)}")
        edges = [name for name, edge in zip(names, fit.at_edge, strict=True) if edge]
        if edges:
            notes.append(f"the chosen penalty is at the edge of the grid: {', '.join(edges)}")
        return notes


def _parts(experts: int) -> dict[str, slice]:
    """Where among the targets those of each kind are."""
    return dict(zip(KINDS, (slice(experts), slice(experts, None)), strict=True))


def _reading(standardize: bool) -> str:
    return "standardised" if standardize else "raw units"


def _write_selection(folder: Path, fit: Tuning, null: TuningNull, names: Sequence[str], experts: int) -> None:
    """How often each dimension is chosen over the outer folds, and how often by chance."""
    shares = {"folds": chosen(fit.fold_coef), "permutations": null.chosen}
    write_table(
        folder / "selection.csv",
        ["target", "expert", "over", *names],
        ([kind, expert, over, *share_tp[k * experts + expert].tolist()] for k, kind in enumerate(KINDS)
         for expert in range(experts) for over, share_tp in shares.items()),
    )  # fmt: skip


def _write_readings(folder: Path, readings: Mapping[str, Tuning], experts: int) -> None:
    """Magnitudes under both readings of what the paper leaves open, and the paper's own for every E."""
    table: list[list[Any]] = []
    for reading, fit in readings.items():
        for kind, part in _parts(experts).items():
            largest_E = fit.coef[part].max(axis=1)
            table.append([reading, kind, experts, *_magnitudes(fit.r2[part].mean(axis=1), largest_E)])
    for place, size in dict.fromkeys((row.place, row.experts) for row in published_tuning()):
        for kind in KINDS:
            rows = [row for row in published_tuning() if (row.experts, row.target) == (size, kind)]
            r2_E, largest_E = np.array([row.r2 for row in rows]), np.array([row.top[0][1] for row in rows])
            table.append([f"{place} of the paper", kind, size, *_magnitudes(r2_E, largest_E)])
    columns = [f"{what}_{end}" for what in ("r2", "largest_weight") for end in ("mean", "lowest", "highest")]
    write_table(folder / "readings.csv", ["reading", "target", "experts", *columns], table)


def _magnitudes(*values: NDArray[np.float64]) -> list[float | None]:
    """Mean, lowest and highest of the finite ones of each."""
    cells: list[float | None] = []
    for values_E in values:
        finite = values_E[np.isfinite(values_E)]
        cells += [float(finite.mean()), float(finite.min()), float(finite.max())] if len(finite) else [None] * 3
    return cells


def profile_cosines(a_Ep: NDArray[np.float64], b_Ep: NDArray[np.float64]) -> NDArray[np.float64]:
    """(E, E) cosine of every profile of `a` (rows) with every one of `b`; NaN where one is 0 throughout or NaN.

    Profiles are non-negative, so that it lies within 0 (no dimension in common) and 1.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        a_Ep, b_Ep = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (a_Ep, b_Ep))
    return np.asarray(a_Ep @ b_Ep.T, dtype=np.float64)
