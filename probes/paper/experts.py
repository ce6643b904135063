"""Figures 2 to 5, S1 and S2 of a sweep: what gates and experts of its example models do with images.

Axes: n images, E experts, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from probes.drawing.composites import Cloud, GateMap, Routed, Separable, clouds, exciting, gating, separability
from probes.paper.piece import Piece, Table
from probes.paper.sources import MissingError, Row, Sources
from probes.statistics.animacy import animate_classes
from probes.statistics.coupling import couplings, min_max
from sweeps.runs.run import Run
from sweeps.views.compare import Gap

Asked = ParamSpec("Asked")
Found = TypeVar("Found")
Picture = NDArray[np.uint8]
_TOP = 3  # images of the highest gate logits (Figure 2c)
IMAGES = 8  # most exciting images in Figure 3
IMAGES_OF_MANY = 4  # and in Figure S2


class Gaps(list[Gap]):
    """What is missing, each once."""

    def unless_missing(self, make: Callable[Asked, Found], *args: Asked.args, **kwargs: Asked.kwargs) -> Found | None:
        """What `make` gives; None where something is missing for it, which is noted."""
        try:
            return make(*args, **kwargs)
        except MissingError as missing:
            if missing.gap not in self:
                self.append(missing.gap)
            return None


def figure_2(sources: Sources) -> Piece:
    """The gate: a map of the smallest model, classes by experts of all, the images of the highest logits."""
    gaps, images = Gaps(), sources.labelled
    tables: dict[str, Table] = {}
    gate, models, classes = None, [], list[str]()
    if images is None or not sources.examples:
        gaps.append(sources.lacks("where the gate sends images with classes", "routing").gap)
    else:
        first = next(iter(sources.examples.values()))
        gate = gaps.unless_missing(_gate_map, sources, first, images, tables)
        for experts, run in sources.examples.items():
            title = sources.title(experts)
            rows = gaps.unless_missing(sources.table, run, images, "routing", "routing.csv", ["class"])
            if not rows:
                continue
            classes = [row["class"] for row in rows]
            share_CE = np.array([[float(row[str(e)] or "nan") for e in range(experts)] for row in rows])
            tables[f"b_E{experts}"] = Table(list(rows[0]), [list(row.values()) for row in rows])
            pictures = gaps.unless_missing(_pictures, sources, run, images, "gate", _TOP, tables, "c")
            models.append(Routed(title, share_CE, pictures))
    where = "" if images is None else f" on {images}"
    some = "" if gate is None else f" ({len(gate.labels_n):,} images, at even spacing)"
    caption = (
        f"Expert specialisation through the lens of gating{where}. (a) t-SNE of the gate logits of "
        f"{_example(sources, 0)}{some}; each panel colours the images that are routed to one expert. (b) Proportion of "
        "the images of each class that is routed to each expert; a row sums to k, k / E is chance. (c) The "
        f"{_TOP} images with the highest gate logit of each expert in (b)."
    )
    drawn = gating(gate, models, classes or _numbered(gate)) if gate is not None or models else None
    return Piece("figure_2", "Figure 2", caption, drawn, tables, gaps=gaps)


def _numbered(gate: GateMap | None) -> list[str]:
    """Names of classes that no table has."""
    return [] if gate is None else [f"class {number}" for number in range(int(gate.labels_n.max(initial=-1)) + 1)]


def _example(sources: Sources, place: int) -> str:
    """The words for an example model."""
    experts = list(sources.examples)[place : place + 1]
    return (
        f"the model with {sources.title(experts[0])} (run {sources.examples[experts[0]].id})" if experts else "a model"
    )


def _gate_map(sources: Sources, run: Run, images: str, tables: dict[str, Table]) -> GateMap:
    rows = sources.table(run, images, "routing", "map.csv", ["class", "tsne_1", "tsne_2", "experts"])
    experts = run.config.model.experts
    member_nE = np.zeros((len(rows), experts), np.bool_)
    for place, row in enumerate(rows):
        member_nE[place, [int(expert) for expert in row["experts"].split()]] = True
    tables["a"] = Table(list(rows[0]), [list(row.values()) for row in rows])
    points_n2 = np.array([[float(row["tsne_1"]), float(row["tsne_2"])] for row in rows])
    return GateMap(points_n2, member_nE, np.array([int(row["class"]) for row in rows]))


def _pictures(
    sources: Sources, run: Run, images: str, score: str, count: int, tables: dict[str, Table], part: str
) -> list[list[Picture]]:
    """The first pictures of each expert's list, from the table of the probe `exciting`."""
    columns = ["images", "score", "expert", "rank", "image", "value"]
    rows = sources.table(run, images, "exciting", "exciting.csv", columns)
    store = sources.store(images)
    places = {name: place for place, name in enumerate(store.ids)}
    mine = [row for row in rows if row["score"] == score and row["images"] == images and int(row["rank"]) <= count]
    experts = run.config.model.experts
    tables[f"{part}_E{experts}"] = Table(columns, [[row[column] for column in columns] for row in mine])
    listed: list[list[Picture]] = [[] for _ in range(experts)]
    for row in sorted(mine, key=lambda one: int(one["rank"])):
        if row["image"] in places:
            listed[int(row["expert"])].append(store.images_NHWC[places[row["image"]]])
    return listed


def figure_3(sources: Sources, sizes: Sequence[int], name: str, title: str, count: int) -> Piece:
    """Most exciting images by readout norm, the sets one above the other.

    Args:
        sources: of the sweep.
        sizes: numbers of experts shown.
        name: of the files.
        title: of the figure.
        count: images of each expert.
    """
    gaps, tables = Gaps(), dict[str, Table]()
    models: dict[str, dict[str, list[list[Picture]]]] = {}
    for experts in sizes:
        for images in sources.sets:
            run = sources.examples[experts]
            found = gaps.unless_missing(_pictures, sources, run, images, "readout", count, tables, images)
            if found and any(found):
                models.setdefault(sources.title(experts), {})[images] = found
    if not sources.sets:
        gaps.append(sources.lacks("what excites experts most", "exciting").gap)
    caption = (
        f"Images eliciting the highest response magnitudes at the readout layer for each expert: the top {count}, from "
        f"{' (top) and '.join(sources.sets) or 'no images yet'}{' (bottom)' if len(sources.sets) > 1 else ''}, every "
        "image forced through every expert. Experts without pictures answer all images alike."
    )
    return Piece(name, title, caption, exciting(models, count) if models else None, tables, gaps=gaps)


def figure_4(sources: Sources, sizes: Sequence[int], name: str, title: str) -> Piece:
    """Gate logit against readout norm, every image a point."""
    gaps, tables, images = Gaps(), dict[str, Table](), sources.labelled
    models: dict[str, list[Cloud]] = {}
    labels_n, classes = np.zeros(0, np.int64), list[str]()
    for experts in sizes if images else []:
        run = sources.examples[experts]
        found = gaps.unless_missing(sources.activations, run, str(images))
        if found is None:
            continue
        store = sources.store(str(images))
        labels_n, classes = store.labels_N, list(store.manifest.classes)
        logits_nE, norms_nE = min_max(found.logits_nE), min_max(found.norms_nE)
        r_E = couplings(found.logits_nE, found.norms_nE).pearson
        models[sources.title(experts)] = [
            Cloud(f"expert {e}", logits_nE[:, e], norms_nE[:, e], _line(logits_nE[:, e], norms_nE[:, e]), float(r_E[e]))
            for e in range(experts)
        ]
        header = ["image", "class", *(f"{what}_{e}" for what in ("logit", "norm") for e in range(experts))]
        named = ["" if label < 0 else classes[label] for label in labels_n] if classes else [""] * len(labels_n)
        both = np.concatenate([logits_nE, norms_nE], axis=1).round(5).tolist()
        tables[f"E{experts}"] = Table(header, [[*one] for one in _joined(store.ids, named, both)])
    if images is None:
        gaps.append(sources.lacks("what gates and readouts say of images with classes", "coupling").gap)
    caption = (
        f"Gate logits against readout norms{'' if images is None else f' on {images}'}, all {len(labels_n):,} images, "
        "both min-max normalised. Points are coloured by class. Dashed: equal. Solid: the least-squares line, with "
        "Pearson's r; were what routes to an expert what it responds to, r would be 1."
    )
    return Piece(name, title, caption, clouds(models, labels_n, classes) if models else None, tables, gaps=gaps)


def _joined(ids: Sequence[str], named: Sequence[str], values: Sequence[Sequence[float]]) -> list[list[Any]]:
    return [[image, label, *row] for image, label, row in zip(ids, named, values, strict=True)]


def _line(x_n: NDArray[np.float64], y_n: NDArray[np.float64]) -> tuple[float, float] | None:
    """Intercept and slope of the least-squares line; None where one of the two is constant."""
    if not (np.isfinite(x_n).all() and np.isfinite(y_n).all()):
        return None
    slope = float(np.cov(x_n, y_n, bias=True)[0, 1] / x_n.var())
    return float(y_n.mean() - slope * x_n.mean()), slope


def figure_5(sources: Sources) -> Piece:
    """Category separability of the smallest model's experts, the sets of images one above the other."""
    gaps, tables, sets = Gaps(), dict[str, Table](), []
    for run in list(sources.examples.values())[:1]:
        for images in sources.sets:
            found = gaps.unless_missing(_separable, sources, run, images, tables)
            if found is not None:
                sets.append(found)
    if not sources.sets:
        gaps.append(sources.lacks("how well readouts tell classes apart", "separability").gap)
    caption = (
        f"Category separability of the readouts of {_example(sources, 0)}: balanced accuracy of five-fold "
        "cross-validated logistic regression between every two classes (chance .5; grey: the same class, or too few "
        "images). Dashed: animate | inanimate, where that is known. Where images belong to concepts, a cell's sides "
        "grow with its classes' numbers of concepts."
    )
    return Piece("figure_5", "Figure 5", caption, separability(sets) if sets else None, tables, gaps=gaps)


def _separable(sources: Sources, run: Run, images: str, tables: dict[str, Table]) -> Separable | None:
    rows = sources.table(
        run, images, "separability", "separability.csv", ["expert", "class_a", "class_b", "balanced_accuracy"]
    )
    tables[images] = Table(list(rows[0]), [list(row.values()) for row in rows])
    names = list(dict.fromkeys([rows[0]["class_a"], *(row["class_b"] for row in rows)]))
    at = {name: place for place, name in enumerate(names)}
    accuracy_ECC = np.full((run.config.model.experts, len(names), len(names)), np.nan)
    sizes_C = np.ones(len(names))
    for row in rows:
        a, b = at[row["class_a"]], at[row["class_b"]]
        accuracy_ECC[int(row["expert"]), [a, b], [b, a]] = _number(row, "balanced_accuracy")
        for place, end in ((a, "a"), (b, "b")):
            if f"concepts_{end}" in row:
                sizes_C[place] = _number(row, f"concepts_{end}")
    result = next(numbers for one, probe, numbers in run.probe_results() if (one, probe) == (images, "separability"))
    sides_C = animate_classes(names, (result.get("options") or {}).get("animate"))
    return Separable(images, accuracy_ECC, names, None if sides_C is None else int(sides_C.sum()), sizes_C)


def _number(row: Row, column: str) -> float:
    return float(row[column]) if row[column] else float("nan")
