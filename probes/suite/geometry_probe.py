"""Whose geometry is an expert's: that of human ratings, of categories, of its own input, of another seed's experts?

Axes: n images, N living experts of all runs together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moe.data.readers import Progress
from moe.data.store import ImageStore
from moe.errors import UserError
from probes.drawing.base import save
from probes.drawing.geometry import Bar, beside_references, clusters_across
from probes.drawing.matrices import heatmap
from probes.probe import READOUT_BASELINES, Baseline, Numbers, Probe, Result
from probes.statistics.agreement import Agreement, clusters_by_measure
from probes.statistics.constancy import is_constant
from probes.statistics.pair_vectors import DISTANCES, MEASURES, MIN_IMAGES, Distance, Measure
from probes.subject import MAX_IMAGES, Subject, dead_note, representative_rows
from probes.suite.geometry_compare import Finding, Setting, Similarities, compare_all, merged, other_seeds
from probes.suite.geometry_references import Reference, brought_references, found_references
from probes.suite.rdm_files import match_rdm, read_rdm
from probes.suite.similarity_probe import Member
from probes.tables import mean, write_table

_LEAST_EXPERTS = 3  # to have clusters
_WORDS: dict[Distance, str] = {"euclidean": "Euclidean", "correlation": "correlation", "unit_length": "norm removed"}
_MEASURES: dict[Measure, str] = {"spearman": "Spearman of RDMs", "cka": "CKA", "procrustes": "Procrustes"}
_WHO = ["run", "E", "seed", "expert"]
_HEADER = [
    *_WHO, "reference", "distance", "measure", "value", "low", "high", "p", "p_adjusted", "ceiling_low", "ceiling_high",
]  # fmt: skip


class GeometryProbe(Probe):
    """Experts' geometries beside references, under several distances and measures."""

    about: ClassVar[str] = "geometry: experts' RDMs beside human ratings, categories, pixels, other seeds, your own RDM"
    baselines: ClassVar[tuple[Baseline, ...]] = READOUT_BASELINES

    rdm: tuple[str, ...] = Field((), description="files with dissimilarities of your own, .npy or .csv (--rdm)")
    distances: tuple[Distance, ...] = Field(
        DISTANCES, min_length=1,
        description="between readouts; intervals and p are the first's",
    )  # fmt: skip
    measures: tuple[Measure, ...] = Field(
        MEASURES, min_length=1, description="of two geometries; the first is the headline"
    )
    images: int = Field(MAX_IMAGES, ge=MIN_IMAGES, description="at most so many, at even spacing; rated ones if any")
    permutations: int = Field(99, ge=0, description="of the references' images, for p; 0: no p")
    seed: int = Field(0, ge=0, description="of the permutations")

    def check(self, stores: Sequence[ImageStore]) -> None:
        """Every file can be read, and is about some of the images."""
        for path in self.rdm:
            rdm, problems = read_rdm(Path(path)), []
            for store in stores:
                try:
                    match_rdm(rdm, store, self.images)
                    break
                except UserError as error:
                    problems.append(error)
            else:
                raise problems[0]

    def skip(self, store: ImageStore) -> str | None:
        """Needs a few images."""
        return None if len(self._rows(store)) >= MIN_IMAGES else "too few images"

    def _rows(self, store: ImageStore) -> NDArray[np.intp]:
        """The images: `representative_rows`, and of several of one concept the first, so that images are the units."""
        rows = representative_rows(store, self.images)
        if store.groups is None:
            return rows
        return rows[np.sort(np.unique(np.array(store.groups)[rows], return_index=True)[1])]

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """The experts of one run."""
        return self._compare([subject], folder, progress)

    def across_runs(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        """The experts of all runs, beside other seeds too."""
        return self._compare(subjects, folder, progress)

    def _compare(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result:
        notes: list[str] = []
        rows = self._rows(subjects[0].store)
        living, of_run = _living(subjects, rows, notes)
        numbers: Numbers = {"experts": len(living), "images": len(rows)}
        if not living:
            progress(1, 1)
            write_table(folder / "reference_similarity.csv", _HEADER, [])
            return Result(numbers, [*notes, "no living expert"])
        every = slice(0, len(living))
        references = found_references(subjects, of_run, rows, notes)
        references += brought_references(self.rdm, subjects[0], every, self.images, notes)
        setting = Setting(
            self.distances, self.measures, self.permutations, self.seed,
            np.array([member.subject.run.id for member in living]),
            np.array([member.subject.experts for member in living]),
        )  # fmt: skip
        found, similarities = self._findings(living, references, rows, setting, progress)
        _write_references(folder, references)
        _write_similarity(folder, living, found, setting)
        numbers |= self._means(folder, found, setting, single=len(subjects) == 1)
        self._draw(folder, living, found, setting, subjects)
        if len(living) >= _LEAST_EXPERTS:
            numbers |= self._clusters(folder, living, similarities, setting)
        else:
            notes.append(f"{len(living)} living experts are too few to cluster; {_LEAST_EXPERTS} are needed")
        return Result(numbers, notes)

    def _findings(
        self,
        living: Sequence[Member],
        references: Sequence[Reference],
        rows: NDArray[np.intp],
        setting: Setting,
        progress: Progress,
    ) -> tuple[list[Finding], Similarities]:
        """Of all references, those about the same images together; similarities between experts are on `rows`."""
        scenes: dict[bytes, tuple[NDArray[np.intp], list[Reference]]] = {rows.tobytes(): (rows, [])}
        for reference in references:
            scenes.setdefault(reference.rows.tobytes(), (reference.rows, []))[1].append(reference)
        total, done = len(scenes) * len(self.distances) * len(self.measures), 0

        def step() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        progress(0, total)
        found: list[Finding] = []
        similarities: Similarities = {}
        for of_scene, mine in scenes.values():
            readouts = [
                np.asarray(member.subject.activations.readouts_EnD[member.expert][of_scene]) for member in living
            ]
            first = not similarities  # the first scene is `rows`
            parts, of_experts = compare_all(readouts, mine, setting, step, others=first)
            found += parts
            similarities = of_experts if first else similarities
        order = [reference.name for reference in references]
        found = sorted(merged(found), key=lambda one: order.index(one.reference))
        return [*found, *other_seeds(similarities, setting)], similarities

    def _means(self, folder: Path, found: Sequence[Finding], setting: Setting, *, single: bool) -> Numbers:
        """`reference_means.csv`, and the headline: means over the experts of one size."""
        numbers: Numbers = {}
        table = []
        for size in np.unique(setting.sizes_N):
            for one in found:
                which_m = _of_size(one, setting, size)
                if not which_m.any():
                    continue
                value, (low, high) = float(one.value_m[which_m].mean()), one.interval(which_m, setting)
                ends, p = [mean(end_m[which_m]) for end_m in one.ceiling], one.p(which_m)
                chance = one.chance(which_m)
                table.append([size, one.reference, one.distance, one.measure, value, low, high, p, chance, *ends])
                if one.distance != self.distances[0]:
                    continue
                key = one.reference + ("" if single else f"_E{size}")
                if one.measure != self.measures[0]:
                    numbers[f"{key}_{one.measure}"] = value
                    continue
                numbers[key] = value
                beside = {"low": low, "high": high, "p": p, "ceiling_low": ends[0], "ceiling_high": ends[1]}
                numbers |= {
                    f"{key}_{name}": end for name, end in beside.items() if end is not None and np.isfinite(end)
                }
        header = ["experts", "reference", "distance", "measure", "value", "low", "high", "p", "chance"]
        write_table(folder / "reference_means.csv", [*header, "ceiling_low", "ceiling_high"], table)
        return numbers

    def _clusters(
        self, folder: Path, living: Sequence[Member], similarities: Similarities, setting: Setting
    ) -> Numbers:
        """Whether clusters survive distance and measure: of all experts, and where runs differ in E, of each E."""
        numbers: Numbers = {}
        summary, members = [], []
        sizes = np.unique(setting.sizes_N)
        groups = [("all", "", np.arange(len(living)))]
        groups += [(f"E = {s}", f"_E{s}", np.flatnonzero(setting.sizes_N == s)) for s in sizes if len(sizes) > 1]
        for name, suffix, places in groups:
            if len(places) < _LEAST_EXPERTS:
                continue
            parts = {key: matrix_NN[np.ix_(places, places)] for key, matrix_NN in similarities.items()}
            parts = {key: part for key, part in parts.items() if np.isfinite(part).all()}
            if not parts:
                continue
            found: Agreement[tuple[Distance, Measure]] = clusters_by_measure(parts)
            for (key, clusters), rand, same in zip(
                found.clusters.items(), found.rand_MM[0], found.rand_same_k_M, strict=True
            ):
                summary.append([name, *key, clusters.k, clusters.silhouette[clusters.k], rand, same])
                for place, label in zip(places.tolist(), clusters.labels, strict=True):
                    members.append([name, *key, *_who(living[place]), label])
            others = found.rand_same_k_M[1:]
            if len(others):
                numbers |= {
                    f"clusters_agree{suffix}": mean(others),
                    f"clusters_agree_least{suffix}": float(others.min()),
                }
            figure = clusters_across(
                {_words(*key): one.labels for key, one in found.clusters.items()},
                found.rand_MM, [living[place].name for place in places.tolist()],
                f"Clusters of experts by measure and distance on {living[0].subject.store.name} ({name})",
            )  # fmt: skip
            save(figure, folder / f"clusters_by_measure{suffix}.png")
        header = ["experts", "distance", "measure"]
        write_table(
            folder / "clusters_by_measure.csv",
            [*header, "clusters", "silhouette", "rand_index", "rand_index_same_number"], summary,
        )  # fmt: skip
        write_table(folder / "members_by_measure.csv", [*header, *_WHO, "cluster"], members)
        return numbers

    def _draw(
        self, folder: Path, living: Sequence[Member], found: Sequence[Finding], setting: Setting,
        subjects: Sequence[Subject],
    ) -> None:  # fmt: skip
        if not found:
            return
        where = f"on {subjects[0].store.name} ({subjects[0].title if len(subjects) == 1 else f'{len(subjects)} runs'})"
        first = [one for one in found if one.distance == self.distances[0]]
        panels = {
            f"E = {size}": {
                _MEASURES[measure]: [
                    bar for one in first if one.measure == measure and (bar := _bar(one, setting, size))
                ]
                for measure in self.measures
            }
            for size in np.unique(setting.sizes_N)
        }
        title = f"Experts beside references {where}; {_WORDS[self.distances[0]]}"
        save(beside_references(panels, title), folder / "references.png")
        names = list(dict.fromkeys(one.reference for one in found))
        kinds = [(distance, measure) for measure in self.measures for distance in self.distances]
        table = np.full((len(kinds), len(names)), np.nan)
        for one in found:
            table[kinds.index((one.distance, one.measure)), names.index(one.reference)] = mean(one.value_m)
        figure = heatmap(
            table, [_words(*kind) for kind in kinds], [name.replace("_", " ") for name in names],
            title=f"Mean similarity {where}", label="mean over experts", limits=(0.0, 1.0),
        )  # fmt: skip
        save(figure, folder / "references_by_measure.png")


def _living(subjects: Sequence[Subject], rows: NDArray[np.intp], notes: list[str]) -> tuple[list[Member], list[slice]]:
    """Experts that do not answer all images alike, in the order of runs, and which of them are each run's."""
    living: list[Member] = []
    of_run = []
    for subject in subjects:
        readouts = subject.activations.readouts_EnD
        dead = [expert for expert in range(subject.experts) if is_constant(np.asarray(readouts[expert][rows]))]
        notes += dead_note(dead, subject.run if len(subjects) > 1 else None)
        start = len(living)
        living += [Member(subject, expert) for expert in range(subject.experts) if expert not in dead]
        of_run.append(slice(start, len(living)))
    return living, of_run


def _words(distance: Distance, measure: Measure) -> str:
    return f"{_MEASURES[measure].removesuffix(' of RDMs')}, {_WORDS[distance]}"


def _who(member: Member) -> list[str | int]:
    return [member.subject.run.id, member.subject.experts, member.subject.seed, member.expert]


def _of_size(found: Finding, setting: Setting, size: int) -> NDArray[np.bool_]:
    """Which experts of a finding belong to runs of `size` experts and have a value."""
    return np.asarray((setting.sizes_N[found.places] == size) & np.isfinite(found.value_m))


def _bar(found: Finding, setting: Setting, size: int) -> Bar | None:
    which_m = _of_size(found, setting, size)
    if not which_m.any():
        return None
    values = found.value_m[which_m]
    low, high = found.interval(which_m, setting)
    ends = [mean(end_m[which_m]) for end_m in found.ceiling]
    ceiling = (np.nan, np.nan) if ends[0] is None or ends[1] is None else (ends[0], ends[1])
    return Bar(
        found.reference.replace("_", " "), values, float(values.mean()), low, high, found.chance(which_m), ceiling
    )


def _write_references(folder: Path, references: Sequence[Reference]) -> None:
    """`references.csv`: what each is made of."""
    rows = {
        one.name: [
            one.name, len(one.rows), None if one.features_nk is None else one.features_nk.shape[1],
            one.subjects, one.file and str(one.file.path), one.file and one.file.sha256,
        ]
        for one in references
    }  # fmt: skip
    write_table(
        folder / "references.csv", ["reference", "images", "features", "subjects", "file", "sha256"], rows.values()
    )


def _write_similarity(folder: Path, living: Sequence[Member], found: Sequence[Finding], setting: Setting) -> None:
    """`reference_similarity.csv`: every expert beside every reference."""
    table = []
    for one in found:
        adjusted = np.full(len(one.places), np.nan)
        for size in np.unique(setting.sizes_N):
            which_m = _of_size(one, setting, size)
            adjusted[which_m] = one.p_adjusted(which_m)
        for place, value in enumerate(one.value_m):
            alone_m = np.arange(len(one.places)) == place
            table.append([
                *_who(living[one.places[place]]), one.reference, one.distance, one.measure, value,
                *one.interval(alone_m), one.p(alone_m), adjusted[place],
                one.ceiling.low_S[place], one.ceiling.high_S[place],
            ])  # fmt: skip
    write_table(folder / "reference_similarity.csv", _HEADER, table)
