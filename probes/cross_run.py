"""Representational similarity of experts, within one run or across the runs of a sweep (Section 4, Figure 6).

Axes: N experts of all runs together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from callbacks import figures as common
from moe.data.store import ImageStore
from probes import figures
from probes.exciting import most_exciting
from probes.similarity import Clusters, cluster, mds, second_order
from probes.subject import Numbers, Subject, number, representative_rows, write_table

_MIN_EXPERTS = 3
_SHOWN_EXPERTS, _SHOWN_IMAGES = 3, 10


@dataclass(frozen=True)
class Member:
    """One expert of one run."""

    subject: Subject
    expert: int

    @property
    def name(self) -> str:
        """`<run>/<expert>`, the run shortened."""
        return f"{self.subject.run.id[:4]}/{self.expert}"


class SimilarityProbe:
    """Do experts represent images alike, and in how many kinds do they fall?"""

    about = "similarity: second-order RSA between experts, clustered"

    def skip(self, store: ImageStore) -> str | None:
        """Needs a few images."""
        return None if len(store) >= _MIN_EXPERTS else "too few images"

    def run(self, subject: Subject, folder: Path) -> Numbers:
        """Similarity among the experts of one run."""
        return compare_experts([subject], folder)


def compare_experts(subjects: Sequence[Subject], folder: Path) -> Numbers:
    """Second-order similarity matrix, clusters, MDS and each cluster's most exciting inputs.

    Dead experts (the same readout for every image) have no geometry; they are counted and left out.
    """
    store = subjects[0].store
    rows = representative_rows(store)
    members = [Member(subject, expert) for subject in subjects for expert in range(subject.experts)]
    similarity = second_order([m.subject.activations.readouts_EnD[m.expert][rows] for m in members])
    alive = np.isfinite(np.diag(similarity))
    dead = [member.name for member, lives in zip(members, alive, strict=True) if not lives]
    members = [member for member, lives in zip(members, alive, strict=True) if lives]
    similarity = similarity[np.ix_(alive, alive)]
    names = [member.name for member in members]
    write_table(
        folder / "similarity.csv",
        ["expert", *names],
        ([n, *row] for n, row in zip(names, similarity.tolist(), strict=True)),
    )
    numbers: Numbers = {"experts": len(members), "dead_experts": len(dead), "images": len(rows)}
    numbers["mean_similarity"] = _off_diagonal_mean(similarity)
    if len(members) < _MIN_EXPERTS:
        return numbers
    found = cluster(similarity)
    numbers |= {"clusters": found.k, "silhouette": number(found.silhouette[found.k])}
    _write_members(folder, members, found)
    order = np.argsort(found.labels, kind="stable")
    common.save(_matrix(similarity[np.ix_(order, order)], [names[i] for i in order], store), folder / "similarity.png")
    points = mds(1 - similarity, seed=0)
    common.save(figures.clusters(points, found.labels, names, found.silhouette), folder / "clusters.png")
    common.save(_exciting(members, found.labels), folder / "cluster_images.png")
    return numbers


def _off_diagonal_mean(similarity_NN: NDArray[np.float64]) -> float | None:
    upper = similarity_NN[np.triu_indices(len(similarity_NN), k=1)]
    return number(upper.mean()) if len(upper) else None


def _write_members(folder: Path, members: Sequence[Member], found: Clusters) -> None:
    write_table(
        folder / "members.csv",
        ["run", "experts", "seed", "expert", "cluster"],
        (
            [m.subject.run.id, m.subject.experts, m.subject.run.config.seed, m.expert, int(label)]
            for m, label in zip(members, found.labels, strict=True)
        ),
    )
    write_table(folder / "silhouette.csv", ["clusters", "silhouette"], found.silhouette.items())


def _matrix(similarity_NN: NDArray[np.float64], names: Sequence[str], store: ImageStore) -> Figure:
    return figures.matrix_row(
        [similarity_NN], ["experts in cluster order"], names,
        title=f"Second-order similarity on {store.name}", label="Spearman correlation of RDMs", limits=(0.0, 1.0),
    )  # fmt: skip


def _exciting(members: Sequence[Member], labels_N: NDArray[np.int64]) -> Figure:
    """The most exciting inputs of up to three experts of each cluster, from different runs where possible."""
    pictures, titles, scores = [], [], []
    for label in np.unique(labels_N):
        for member in _spread([m for m, mine in zip(members, labels_N, strict=True) if mine == label]):
            norms = member.subject.activations.norms_nE[:, member.expert]
            rows = most_exciting(norms, _SHOWN_IMAGES)
            pictures.append([member.subject.store.images_NHWC[row] for row in rows])
            scores.append(norms[rows].tolist())
            titles.append(f"cluster {label}: {member.name}")
    return figures.picture_grid(pictures, titles, scores, "Most exciting inputs by cluster")


def _spread(members: Sequence[Member]) -> list[Member]:
    """The first expert of each run, then the second of each, ...; the first three of that order."""
    rank: dict[str, int] = {}
    keyed = []
    for position, member in enumerate(members):
        run = member.subject.run.id
        keyed.append((rank.get(run, 0), position, member))
        rank[run] = rank.get(run, 0) + 1
    return [member for _, _, member in sorted(keyed, key=lambda item: item[:2])[:_SHOWN_EXPERTS]]
