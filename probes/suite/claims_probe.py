"""Which of the paper's claims hold for these runs: each with an effect, an interval and a verdict by one rule.

Axes: R runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.data.store import ImageStore
from moe.errors import UserError, suggest
from moe.wording import counted
from probes.drawing.base import save
from probes.drawing.forest import Line, forest
from probes.probe import Probe, Result
from probes.statistics.animacy import plain_name
from probes.statistics.verdicts import Verdict, verdict
from probes.subject import MAX_IMAGES, Subject, dead_note
from probes.suite.claims_asked import Asked, Measured, MissingError, Options
from probes.suite.claims_classes import (
    animacy_in_geometry,
    animacy_in_separability,
    separability_alike,
    separability_of_images,
)
from probes.suite.claims_clusters import (
    animacy_of_experts,
    clusters_by_animacy,
    clusters_in_every_run,
    experts,
    two_clusters,
)
from probes.suite.claims_responses import (
    KINDS,
    dimensions_beyond_categories,
    gate_above_readout,
    gate_readout_bent,
    gate_readout_loose,
    partitions,
)
from probes.suite.claims_words import COLUMNS, NOT_ASKED, claim_row, headline, published_claim, why_not
from probes.suite.published import PublishedClaim
from probes.tables import write_table

MEASURES: Mapping[str, Callable[[Asked], Measured]] = {
    "gate_above_readout": gate_above_readout,
    "gate_readout_bent": gate_readout_bent,
    "gate_readout_loose": gate_readout_loose,
    "separability_alike": separability_alike,
    "separability_of_images": separability_of_images,
    "animacy_in_separability": animacy_in_separability,
    "animacy_in_geometry": animacy_in_geometry,
    "two_clusters": two_clusters,
    "clusters_by_animacy": clusters_by_animacy,
    "clusters_in_every_run": clusters_in_every_run,
    "dimensions_beyond_categories_gate": dimensions_beyond_categories("gate"),
    "dimensions_beyond_categories_readout": dimensions_beyond_categories("readout"),
}

_ALONE = "one run has no verdicts, which are over seeds; `moe probe --sweep SWEEP` asks all of its runs together"


class ClaimsProbe(Probe):
    """The paper's claims."""

    about: ClassVar[str] = "claims: which of the paper's claims hold for these runs, with intervals and verdicts"

    images: int = Field(MAX_IMAGES, ge=20, description="at most so many for curves from gate to readout")
    clustered: int = Field(400, ge=20, description="at most so many for clusters of experts; rated ones if any")
    permutations: int = Field(99, ge=19, description="of rated dimensions over images, and experts of a continuum")
    halves: int = Field(40, ge=2, description="random halves of images and runs, for the number of clusters")
    bent: float = Field(0.01, ge=0, description="a curve has to explain so much more than a line (r2)")
    loose: float = Field(0.5, ge=0, le=1, description="a line has to explain less than this (r2)")
    alike: float = Field(0.05, gt=0, le=0.5, description="differences of accuracy below it count as none")
    correlated: float = Field(0.1, gt=0, le=1, description="differences of correlation below it count as none")
    recurring: float = Field(0.5, gt=0, lt=1, description="a larger share of runs has to have experts in both clusters")
    animate: tuple[str, ...] | None = Field(None, description="animate classes; default: known for STL-10 and THINGS")
    seed: int = Field(0, ge=0, description="of folds, halves and permutations")

    def check(self, stores: Sequence[ImageStore]) -> None:
        """Every class that `animate` names is one of some of the images."""
        classes = {plain_name(name): name for store in stores for name in store.manifest.classes}
        for name in self.animate or ():
            if plain_name(name) not in classes:
                raise UserError(f'claims.animate: no class "{name}": {suggest(name, classes.values())}')

    def skip(self, store: ImageStore) -> str | None:
        """Needs a few images."""
        return None if len(store) >= 20 else "too few images"

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """What one run says of the claims; no verdict can be had without other seeds."""
        found = self._ask([subject], folder, progress)
        return replace(found, notes=[*dead_note(subject.dead()), _ALONE])

    def across_runs(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        """The verdicts."""
        return self._ask(subjects, folder, progress)

    def _ask(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        asked = Asked(subjects, Options(**dict(self)))
        rows: list[dict[str, Any]] = []
        lines: list[Line] = []
        of_runs: list[list[Any]] = []
        for done, (name, measure) in enumerate(MEASURES.items()):
            progress(done, len(MEASURES))
            claim = published_claim(name)
            try:
                found = measure(asked)
            except MissingError as error:
                rows.append(claim_row(claim, None, NOT_ASKED, str(error)))
                continue
            said = verdict(*found.bounds, found.region, found.p)
            rows.append(claim_row(claim, found, said, why_not(found, said, len(subjects))))
            of_runs += [[name, s.run.id, s.experts, s.seed, value]
                        for s, value in zip(subjects, found.runs_R, strict=False)]  # fmt: skip
            if np.isfinite(found.effect):
                lines.append(_line(claim, found, said, found.runs_R if len(subjects) > 1 else np.empty(0)))
        progress(len(MEASURES), len(MEASURES))
        write_table(folder / "claims.csv", COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
        write_table(folder / "runs.csv", ["claim", "run", "experts", "seed", "effect"], of_runs)
        _write_details(folder, asked)
        if lines:
            many = counted(len(subjects), "run")
            save(forest(lines, f"The paper's claims on {asked.store.name}, {many}"), folder / "claims.png")
        dead = [note for subject in subjects for note in dead_note(subject.dead(), subject.run)]
        return Result(headline(rows), dead + [row["sentence"] for row in rows], record={"claims": rows})


def _line(claim: PublishedClaim, found: Measured, said: Verdict, runs_R: NDArray[np.float64]) -> Line:
    name = claim.name.replace("_", " ")
    return Line(name, claim.effect, found.effect, *found.bounds, found.region, runs_R, claim.value, said)


def _write_details(folder: Path, asked: Asked) -> None:
    """Clusters with their members' animacy, and the parts of every expert's variance, where they were asked for."""
    found, parts = asked.known(experts), asked.known(partitions)
    if found is not None:
        animacy_N = asked.known(animacy_of_experts)
        table: list[list[Any]] = []
        for place, (run, expert, pair) in enumerate(zip(found.runs_N, found.expert_N, found.pair_N, strict=True)):
            subject = asked.subjects[run]
            animacy = None if animacy_N is None else animacy_N[place]
            table.append([subject.run.id, subject.seed, int(expert), int(pair), animacy])
        write_table(folder / "clusters.csv", ["run", "seed", "expert", "cluster", "animacy"], table)
    if parts is not None:
        names, table = list(parts.sets), []
        for subject, one in zip(asked.subjects, parts.runs, strict=True):
            r2 = [one.together, *(one.alone[name] for name in names), *(one.unique[name] for name in names)]
            for target, row in enumerate(np.array([each.value_t for each in r2]).T.tolist()):
                kind, expert = divmod(target, subject.experts)
                table.append([subject.run.id, subject.seed, KINDS[kind], expert, *row])
        header = ["run", "seed", "target", "expert", "together"]
        header += [f"{name}_alone" for name in names] + [f"only_{name}" for name in names]
        write_table(folder / "partition.csv", header, table)
