"""Figures 6, S3 and S4 of a sweep: which experts come back in every run.

Axes: N experts of all runs with one number of experts E.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.drawing.cluster_sheets import ClusterMap, Shown, clusters, silhouettes
from probes.paper.experts import Gaps
from probes.paper.piece import Piece, Table
from probes.paper.sources import Row, Sources
from probes.statistics.exciting import most_exciting
from probes.statistics.similarity import mds
from probes.suite.similarity_probe import spread_over_runs

_LEAST_EXPERTS = 3  # to have clusters
_SHOWN = 5  # experts of a cluster (Figure 6)
_MOST_SHOWN = 30  # experts of all clusters: beyond, each has fewer
_PICTURES = 10
_DIMENSIONS = 2  # in a cluster's name


class Grouped(NamedTuple):
    """Experts of one E.

    Attributes:
        members: their rows of `members.csv`.
        similarity_NN: second-order similarities.
        labels_N: cluster of each.
    """

    members: list[Row]
    similarity_NN: NDArray[np.float64]
    labels_N: NDArray[np.int64]


def images_of(sources: Sources) -> str | None:
    """The images by which experts are compared: rated ones as in the paper, else those with classes."""
    done = [images for images, probe, _ in sources.sweep.folder.probe_results() if probe == "similarity"]
    return next((name for name in (sources.rated, sources.labelled) if name in done), next(iter(done), None))


def figure_6(sources: Sources, sizes: Sequence[int], name: str, title: str) -> Piece:
    """Experts in the plane and what excites those of each cluster."""
    gaps, tables, images = Gaps(), dict[str, Table](), images_of(sources)
    maps = []
    if images is None and sizes:
        gaps.append(sources.lacks("the comparison of the experts of all runs", "similarity").gap)
    for experts in sizes if images else []:
        grouped = gaps.unless_missing(grouped_experts, sources, str(images), experts)
        if grouped is not None:
            maps.append(_cluster_map(sources, str(images), experts, grouped, gaps, tables))
    letters = name != "figure_6"
    caption = (
        "Consistency of expert specialisations across independently trained models. "
        f"{'Left' if letters else '(a)'}: metric MDS of 1 - the second-order similarity (Spearman correlation of "
        f"RDMs) of all pairs of experts{'' if images is None else f' on {images}'}; a dot an expert of a run, coloured "
        "by cluster (average linkage, silhouette); a cluster is named by the rated dimensions whose weights in its "
        "experts' readouts exceed those of all others most, where there are ratings. "
        f"{'Right' if letters else '(b)'}: the {_PICTURES} images with the highest readout norm of the boxed experts."
    )
    return Piece(name, title, caption, clusters(maps, letters=letters) if maps else None, tables, gaps=gaps)


def grouped_experts(sources: Sources, images: str, experts: int) -> Grouped | None:
    """The experts of the runs with one E, by cluster; None where they are too few to have any.

    Raises:
        MissingError: the probe did not save what is needed.
    """
    folder = sources.sweep.folder
    members = sources.table(folder, images, "similarity", "members.csv", ["run", "experts", "expert", "cluster"])
    rows = sources.table(folder, images, "similarity", "similarity.csv", ["expert"])
    own = f"cluster_E{experts}"
    column = own if own in members[0] else "cluster"
    mine = [place for place, member in enumerate(members) if member["experts"] == str(experts) and member[column]]
    if len(mine) < _LEAST_EXPERTS or len(rows) != len(members):
        return None
    similarity_NN = np.array([list(row.values())[1:] for row in rows], dtype=float)[np.ix_(mine, mine)]
    kept = [members[place] for place in mine]
    _, labels_N = np.unique([int(member[column]) for member in kept], return_inverse=True)
    return Grouped(kept, similarity_NN, labels_N.astype(np.int64))


def _cluster_map(
    sources: Sources, images: str, experts: int, grouped: Grouped, gaps: Gaps, tables: dict[str, Table]
) -> ClusterMap:
    members, labels_N = grouped.members, grouped.labels_N
    points_N2 = mds(1 - grouped.similarity_NN, seed=0)
    names = cluster_names(sources, grouped)
    count = int(labels_N.max()) + 1
    each = max(1, min(_SHOWN, _MOST_SHOWN // count))
    runs = [member["run"] for member in members]
    places = [p for c in range(count) for p in spread_over_runs(runs, np.flatnonzero(labels_N == c))[:each]]
    pictured = gaps.unless_missing(lambda: [_excited(sources, members[place], images) for place in places]) or []
    shown = [Shown(place, pictures) for place, (pictures, _) in zip(places, pictured, strict=False)]
    boxed = set(places)
    tables[f"map_E{experts}"] = Table(
        ["run", "expert", "cluster", "name", "mds_1", "mds_2", "shown"],
        [
            [m["run"], m["expert"], int(label), names[label], *point, int(place in boxed)]
            for place, (m, label, point) in enumerate(zip(members, labels_N, points_N2.tolist(), strict=True))
        ],
    )
    tables[f"images_E{experts}"] = Table(
        ["run", "expert", "rank", "image", "value"],
        [
            [members[place]["run"], members[place]["expert"], rank, image, value]
            for place, (_, listed) in zip(places, pictured, strict=False)
            for rank, (image, value) in enumerate(listed, 1)
        ],
    )
    title = f"E = {experts}, {len(set(runs))} run{'s' if len(set(runs)) > 1 else ''}"
    return ClusterMap(title, points_N2, labels_N, names, shown)


def _excited(sources: Sources, member: Row, images: str) -> tuple[list[NDArray[np.uint8]], list[tuple[str, float]]]:
    """The pictures of an expert's highest readout norms, and their names with the norms."""
    run = sources.sweep.store.run(member["run"])
    store = sources.store(images)
    norms_n = np.linalg.norm(sources.activations(run, images).readouts_EnD[int(member["expert"])], axis=1)
    rows = most_exciting(norms_n, _PICTURES)
    return [store.images_NHWC[row] for row in rows], [(store.ids[row], float(norms_n[row])) for row in rows]


def cluster_names(sources: Sources, grouped: Grouped) -> list[str]:
    """``0: animal-related, fine-grained pattern``: the dimensions that set a cluster's readouts apart, where rated.

    A dimension counts by the mean of its coefficients over the cluster's experts, less the mean over all others'.
    """
    labels_N, rated = grouped.labels_N, sources.rated
    count = int(labels_N.max()) + 1
    plain = [f"{number}" for number in range(count)]
    if rated is None:
        return plain

    @cache
    def profiles(run: str) -> dict[str, Row]:
        rows = sources.table(sources.sweep.store.run(run), rated, "tuning", "coefficients.csv", ["target", "expert"])
        return {row["expert"]: row for row in rows if row["target"] == "readout"}

    found = Gaps().unless_missing(lambda: [profiles(m["run"])[m["expert"]] for m in grouped.members])
    if not found:
        return plain
    dimensions = [column for column in found[0] if column not in ("target", "expert")]
    coef_Np = np.nan_to_num([[float(row[d] or 0) for d in dimensions] for row in found])
    named = []
    for number in range(count):
        mine = labels_N == number
        others = coef_Np[~mine].mean(axis=0) if (~mine).any() else 0.0
        above_p = coef_Np[mine].mean(axis=0) - others
        top = [dimensions[p] for p in np.argsort(-above_p, kind="stable")[:_DIMENSIONS] if above_p[p] > 0]
        named.append(f"{number}: {', '.join(top)}" if top else f"{number}")
    return named


def figure_s3(sources: Sources) -> Piece:
    """Silhouette by number of clusters, a panel an E."""
    gaps, images = Gaps(), images_of(sources)
    curves: dict[str, dict[int, float]] = {}
    rows: list[Row] = []
    if images is None:
        gaps.append(sources.lacks("the choice of the number of clusters", "similarity").gap)
    else:
        columns = ["experts", "clusters", "silhouette"]
        read = gaps.unless_missing(sources.table, sources.sweep.folder, images, "similarity", "silhouette.csv", columns)
        rows = [row for row in read or [] if row["silhouette"]]
        sizes = list(sources.examples)
        for row in rows:
            title = f"E = {sizes[0]}" if row["experts"] == "all" and len(sizes) == 1 else row["experts"]
            if title != "all":
                curves.setdefault(title, {})[int(row["clusters"])] = float(row["silhouette"])
    caption = (
        "Mean silhouette by the number of clusters, from -1 to 1; the number with the highest one (dashed) is chosen. "
        "0: experts lie between clusters."
    )
    data = {"": Table(["experts", "clusters", "silhouette"], [list(row.values()) for row in rows])} if rows else {}
    return Piece("figure_s3", "Figure S3", caption, silhouettes(curves) if curves else None, data, gaps=gaps)
