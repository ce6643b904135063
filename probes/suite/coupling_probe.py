"""Is what routes to an expert what the expert responds to (Figures 4 and S1)?

Axes: n images, E experts.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from moe.data.readers import Progress
from moe.wording import numbered
from probes.drawing.base import save
from probes.drawing.points import gate_against_readout
from probes.probe import GATE_BASELINES, Baseline, Probe, Result
from probes.statistics.coupling import bootstrap_coupling, couplings, min_max
from probes.statistics.resampling import interval, mean_of_defined
from probes.subject import Subject, dead_note
from probes.tables import mean, number, write_table


class CouplingProbe(Probe):
    """Gate logit against readout norm."""

    about: ClassVar[str] = "coupling: gate logit against readout norm of each expert, with their correlations"
    baselines: ClassVar[tuple[Baseline, ...]] = GATE_BASELINES

    bootstrap: int = Field(500, ge=0, description="samples of the images (THINGS: of the concepts), for intervals")
    seed: int = Field(0, ge=0, description="of the samples")

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Scatter plot an expert; Pearson, Spearman, r2 with intervals."""
        logits_nE, norms_nE = subject.activations.logits_nE, subject.activations.norms_nE
        found, store, experts = couplings(logits_nE, norms_nE), subject.store, range(subject.experts)
        numbers = {f"mean_{name}": mean(values_E) for name, values_E in found._asdict().items()}
        bounds = np.full((3, subject.experts, 2), np.nan)
        progress(1, 3)
        if self.bootstrap:
            drawn = bootstrap_coupling(logits_nE, norms_nE, draws=self.bootstrap, seed=self.seed, units=subject.units)
            bounds = np.array([[interval(column) for column in values_bE.T] for values_bE in drawn])
            for name, values_bE in drawn._asdict().items():
                low, high = interval(mean_of_defined(values_bE))
                numbers |= {f"mean_{name}_low": number(low), f"mean_{name}_high": number(high)}
        progress(2, 3)
        header = [f"{name}{end}" for name in found._fields for end in ("", "_low", "_high")]
        write_table(
            folder / "coupling.csv",
            ["expert", *header],
            ([e, *(v for k in range(3) for v in (found[k][e], *bounds[k, e]))] for e in experts),
        )
        figure = gate_against_readout(
            min_max(logits_nE),
            min_max(norms_nE),
            [f"r = {found.pearson[e]:.2f}, rho = {found.spearman[e]:.2f}, r2 = {found.r2[e]:.2f}" for e in experts],
            store.labels_N,
            store.manifest.classes,
            f"Gate and readout on {store.name} ({subject.title}); dashed: equal",
        )
        save(figure, folder / "coupling.png")
        progress(3, 3)
        constant = np.flatnonzero(np.isnan(found.pearson)).tolist()
        notes = dead_note(subject.dead())
        if len(constant):
            notes.append(f"{numbered('expert', constant)}: no correlation, the gate or the readout's norm is constant")
        return Result(numbers, notes)
