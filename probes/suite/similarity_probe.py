"""Which experts, of one run or of several, represent images alike (Section 4, Figures 6, S3 and S4)?

Axes: n images, N experts of all runs together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.data.store import ImageStore
from probes.drawing.base import save
from probes.drawing.curves import silhouettes
from probes.drawing.matrices import similarity_matrix
from probes.drawing.pictures import Block, picture_grid
from probes.drawing.points import cluster_map
from probes.probe import Numbers, Probe, Result
from probes.statistics.cluster_null import continuum, within_runs
from probes.statistics.exciting import most_exciting
from probes.statistics.mean_similarity import MIN_RUNS, image_spread, run_spread, similarity_interval
from probes.statistics.recurrence import recurrence
from probes.statistics.resampling import interval, p_value
from probes.statistics.similarity import Clusters, cluster, correlations, mds, ranked_rdms
from probes.statistics.stability import cluster_stability, subsampled
from probes.subject import MAX_IMAGES, Subject, dead_note, representative_rows
from probes.suite.exciting_probe import exciting_block
from probes.tables import mean, number, write_table

_LEAST_EXPERTS = 3  # to have clusters
_LEAST_TO_TELL = 4  # whether there are any
_CLEAR = 95  # percent of experts without clusters whose silhouette is lower
_LEAST_IMAGES = 3


@dataclass(frozen=True)
class Member:
    """One expert of one run."""

    subject: Subject
    expert: int

    @property
    def name(self) -> str:
        """`<run>/<expert>`, the run shortened."""
        return f"{self.subject.run.id[:4]}/{self.expert}"


@dataclass(frozen=True)
class Group:
    """Experts that are clustered together: all, or those of the runs with one number of experts.

    Attributes:
        name: "all" or "E = 8".
        suffix: for file names, "" or "_E8".
        places: which of all living members belong to it.
        found: their clusters.
        null_b: silhouettes of experts that have no clusters, at the number that is best for each; of none where they
            are too few to tell.
    """

    name: str
    suffix: str
    places: NDArray[np.intp]
    found: Clusters
    null_b: NDArray[np.float64]

    @property
    def silhouette(self) -> float:
        """Mean silhouette of the clusters."""
        return self.found.silhouette[self.found.k]

    @property
    def p(self) -> float:
        """How often experts without clusters have so high a silhouette; NaN where that is not known."""
        return p_value(self.silhouette, self.null_b)


class SimilarityProbe(Probe):
    """Representational similarity of experts."""

    about: ClassVar[str] = "similarity: second-order RSA between experts of one or several runs, clustered"

    images: int = Field(MAX_IMAGES, ge=_LEAST_IMAGES, description="at most so many, at even spacing; rated ones if any")
    shown: int = Field(5, ge=1, description="experts of a cluster whose pictures are shown")
    pictures: int = Field(10, ge=1, description="pictures of each expert")
    permutations: int = Field(999, ge=0, description="clouds without clusters, and dealings of clusters to experts")
    draws: int = Field(20, ge=0, description="random halves of the images, for the stability of clusters; 0: none")
    seed: int = Field(0, ge=0, description="of halves, clouds and dealings")

    def skip(self, store: ImageStore) -> str | None:
        """Needs a few images, of rated ones where there are any."""
        return None if len(representative_rows(store, self.images)) >= _LEAST_IMAGES else "too few images"

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Similarity among the experts of one run."""
        return self._compare([subject], folder, progress)

    def across_runs(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        """Similarity among the experts of all runs, which may differ in E."""
        return self._compare(subjects, folder, progress)

    def _compare(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        """Second-order similarity matrix, clusters, MDS and each cluster's most exciting inputs.

        Dead experts (the same readout for every image) have no geometry; they are named and left out.
        """
        total = self.draws + 2
        progress(0, total)
        rows = representative_rows(subjects[0].store, self.images)
        members = [Member(subject, expert) for subject in subjects for expert in range(subject.experts)]
        readouts = [np.asarray(m.subject.activations.readouts_EnD[m.expert][rows]) for m in members]
        ranks_NP = ranked_rdms(readouts)
        alive = np.flatnonzero(ranks_NP.any(axis=1))
        living = [members[place] for place in alive]
        ranks_NP = ranks_NP if len(alive) == len(members) else ranks_NP[alive]
        similarity_NN = correlations(ranks_NP)
        numbers: Numbers = {"experts": len(living), "dead_experts": len(members) - len(living), "images": len(rows)}
        notes = _dead_notes(subjects, members, set(alive.tolist()))
        numbers |= _mean_similarity(living, ranks_NP, similarity_NN, len(rows), subjects[0].units_of(rows), notes)
        del ranks_NP  # gigabytes
        progress(1, total)
        write_table(
            folder / "similarity.csv",
            ["expert", *(member.name for member in living)],
            ([member.name, *row] for member, row in zip(living, similarity_NN.tolist(), strict=True)),
        )
        if len(living) < _LEAST_EXPERTS:
            notes.append(f"{len(living)} living experts are too few to cluster; {_LEAST_EXPERTS} are needed")
            progress(total, total)
            return Result(numbers, notes)
        groups = self._groups(living, similarity_NN)
        for group in groups:
            numbers |= _said(group)
        if len(subjects) > 1:
            numbers |= self._within_runs(living, similarity_NN)
            numbers |= self._recurrence(folder, living, groups)
        if self.draws:
            numbers |= self._stability(folder, [readouts[place] for place in alive], living, groups, progress)
        self._write(folder, living, similarity_NN, groups, subjects[0].store)
        progress(total, total)
        return Result(numbers, notes)

    def _groups(self, living: Sequence[Member], similarity_NN: NDArray[np.float64]) -> list[Group]:
        """All experts; where runs differ in E, those of each E as well, as the paper has them."""
        sizes = np.array([member.subject.experts for member in living])
        wanted = [("all", "", np.arange(len(living)))]
        if len(np.unique(sizes)) > 1:
            wanted += [(f"E = {size}", f"_E{size}", np.flatnonzero(sizes == size)) for size in np.unique(sizes)]
        groups = []
        for name, suffix, places in wanted:
            part = similarity_NN[np.ix_(places, places)]
            if len(places) >= _LEAST_EXPERTS:
                draws = self.permutations if len(places) >= _LEAST_TO_TELL else 0
                null_b = continuum(part, draws=draws, seed=self.seed).best_b
                groups.append(Group(name, suffix, places, cluster(part), null_b))
        return groups

    def _within_runs(self, living: Sequence[Member], similarity_NN: NDArray[np.float64]) -> Numbers:
        """Whether the experts of single runs have clusters, which are not those that their shared blocks make."""
        runs_N = np.array([member.subject.run.id for member in living])
        found = within_runs(similarity_NN, runs_N, draws=self.permutations, seed=self.seed)
        return {
            "silhouette_within_runs": number(found.silhouette),
            "silhouette_within_runs_null": mean(found.null_b),
            "silhouette_within_runs_p": number(p_value(found.silhouette, found.null_b)),
        }

    def _recurrence(self, folder: Path, living: Sequence[Member], groups: Sequence[Group]) -> Numbers:
        """For the runs of each E, whether every cluster comes back in each run."""
        numbers: Numbers = {}
        table: list[list[str | int]] = []
        for group in groups if len(groups) == 1 else groups[1:]:
            mine = [living[place] for place in group.places]
            runs = sorted({member.subject.run.id for member in mine})
            experts = mine[0].subject.experts
            if len(runs) < 2 or any(member.subject.experts != experts for member in mine):
                continue
            found = recurrence(
                group.found.labels, np.array([member.subject.run.id for member in mine]), draws=self.permutations,
                seed=self.seed,
            )  # fmt: skip
            numbers |= {
                f"runs_in_every_cluster_E{experts}": number(found.share),
                f"runs_in_every_cluster_E{experts}_null": number(found.null),
                f"runs_in_every_cluster_E{experts}_p_more": number(found.p_more),
                f"runs_in_every_cluster_E{experts}_p_fewer": number(found.p_fewer),
            }
            table += [
                [experts, run, cluster_of, int(count)]
                for run, counts_K in zip(runs, found.counts_RK, strict=True)
                for cluster_of, count in enumerate(counts_K)
            ]
        write_table(folder / "recurrence.csv", ["experts", "run", "cluster", "experts_in_cluster"], table)
        return numbers

    def _stability(
        self,
        folder: Path,
        readouts: list[NDArray[np.float32]],
        living: Sequence[Member],
        groups: Sequence[Group],
        progress: Progress,
    ) -> Numbers:
        parts = []
        for number_of, part in enumerate(subsampled(readouts, draws=self.draws, seed=self.seed), 1):
            parts.append(part)
            progress(number_of + 1, self.draws + 2)
        table = []
        for group in groups:
            mine = np.ix_(group.places, group.places)
            stable = cluster_stability([part[mine] for part in parts], group.found.labels)
            table += [
                [group.name, draw, k, rand] for draw, (k, rand) in enumerate(zip(stable.k, stable.rand, strict=True))
            ]
            if group is groups[0]:
                first = stable
        write_table(folder / "stability.csv", ["experts", "half", "clusters", "rand_index"], table)
        names = [member.name for member in living]
        write_table(
            folder / "together.csv",
            ["expert", *names],
            ([name, *row] for name, row in zip(names, first.together_NN.tolist(), strict=True)),
        )
        low, high = interval(first.rand)
        return {
            "stability": mean(first.rand), "stability_low": number(low), "stability_high": number(high),
            "same_number_of_clusters": mean((first.k == groups[0].found.k).astype(float)),
        }  # fmt: skip

    def _write(
        self,
        folder: Path,
        living: Sequence[Member],
        similarity_NN: NDArray[np.float64],
        groups: Sequence[Group],
        store: ImageStore,
    ) -> None:
        _write_members(folder, living, groups)
        curves = {group.name: group.found.silhouette for group in groups}
        clear = {group.name: float(np.percentile(group.null_b, _CLEAR)) for group in groups if len(group.null_b)}
        title = f"Choice of the number of clusters on {store.name}"
        save(silhouettes(curves, clear, title), folder / "silhouette.png")
        for group in groups:
            mine, labels_N = [living[place] for place in group.places], group.found.labels
            names = [member.name for member in mine]
            part = similarity_NN[np.ix_(group.places, group.places)]
            order = np.argsort(labels_N, kind="stable")
            title = f"Second-order similarity on {store.name} ({group.name})"
            figure = similarity_matrix(
                part[np.ix_(order, order)], [names[i] for i in order], np.bincount(labels_N).tolist(), title,
                "Spearman correlation of RDMs",
            )  # fmt: skip
            save(figure, folder / f"similarity{group.suffix}.png")
            runs = [member.subject.run.id for member in mine]
            shown = [
                place for c in range(group.found.k)
                for place in spread_over_runs(runs, np.flatnonzero(labels_N == c))[: self.shown]
            ]  # fmt: skip
            title = f"Experts by representational similarity on {store.name} ({group.name}); boxes: shown by pictures"
            figure = cluster_map(mds(1 - part, seed=self.seed), labels_N, names, shown, title)
            save(figure, folder / f"clusters{group.suffix}.png")
            save(self._pictures(mine, labels_N, shown, store), folder / f"cluster_images{group.suffix}.png")

    def _pictures(
        self, members: Sequence[Member], labels_N: NDArray[np.int64], shown: Sequence[int], store: ImageStore
    ) -> Figure:
        """Most exciting inputs, by readout norm over all images of the store, of the experts shown."""
        pictures, values = [], []
        for place in shown:
            member = members[place]
            rows = most_exciting(member.subject.activations.norms_nE[:, member.expert], self.pictures)
            block = exciting_block(member.subject, [(member.expert, rows)])
            pictures.append(block.pictures[0])
            values.append(block.scores[0])
        return picture_grid(
            [Block(store.name, pictures, values)],
            [f"cluster {labels_N[place]}: {members[place].name}" for place in shown],
            "Most exciting inputs by cluster",
            "readout norm",
        )


def spread_over_runs(runs: Sequence[str], places: Sequence[int] | NDArray[np.intp]) -> list[int]:
    """The first expert of each run, then the second of each, ...: whoever shows a few shows many runs.

    Args:
        runs: of all experts.
        places: those to put in order.
    """
    rank: dict[str, int] = {}
    keyed = []
    for place in map(int, places):
        keyed.append((rank.get(runs[place], 0), place))
        rank[runs[place]] = rank.get(runs[place], 0) + 1
    return [place for _, place in sorted(keyed)]


def _mean_similarity(
    living: Sequence[Member],
    ranks_NP: NDArray[np.float32],
    similarity_NN: NDArray[np.float64],
    n: int,
    units: NDArray[np.int64] | None,
    notes: list[str],
) -> Numbers:
    """The mean over pairs of experts, with an interval over images and, with several runs, over runs."""
    found = mean(similarity_NN[np.triu_indices(len(living), k=1)])
    if found is None:
        return {"mean_similarity": None}
    runs_N = np.array([member.subject.run.id for member in living])
    spreads = [image_spread(ranks_NP, n, units)]
    if len(np.unique(runs_N)) > 1:
        spreads.append(run_spread(similarity_NN, runs_N))
        if np.isnan(spreads[1].variance):
            notes.append(
                f"no interval of mean_similarity: {MIN_RUNS} runs are needed to tell how far it hangs on the run"
            )
    low, high = similarity_interval(found, *spreads)
    return {"mean_similarity": found, "mean_similarity_low": number(low), "mean_similarity_high": number(high)}


def _dead_notes(subjects: Sequence[Subject], members: Sequence[Member], alive: set[int]) -> list[str]:
    notes = []
    for subject in subjects:
        dead = [m.expert for place, m in enumerate(members) if m.subject is subject and place not in alive]
        notes += dead_note(dead, subject.run)
    return notes


def _said(group: Group) -> Numbers:
    return {
        f"clusters{group.suffix}": group.found.k,
        f"silhouette{group.suffix}": number(group.silhouette),
        f"silhouette{group.suffix}_null": mean(group.null_b),
        f"silhouette{group.suffix}_p": number(group.p),
    }


def _write_members(folder: Path, living: Sequence[Member], groups: Sequence[Group]) -> None:
    """Which cluster every expert is in, among all and among those of its E; the silhouettes."""
    columns = {f"cluster{group.suffix}": dict(zip(group.places.tolist(), group.found.labels.tolist(), strict=True))
               for group in groups}  # fmt: skip
    write_table(
        folder / "members.csv",
        ["run", "experts", "seed", "expert", *columns],
        (
            [m.subject.run.id, m.subject.experts, m.subject.seed, m.expert]
            + [cluster_of.get(place) for cluster_of in columns.values()]
            for place, m in enumerate(living)
        ),
    )
    write_table(
        folder / "silhouette.csv",
        ["experts", "clusters", "silhouette"],
        ([group.name, k, value] for group in groups for k, value in group.found.silhouette.items()),
    )
