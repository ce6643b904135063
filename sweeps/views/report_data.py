"""What the report page shows, gathered from the files of a sweep and its runs: plain JSON types, rounded.

Axes: N images, M experts of all runs, H height, W width.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from callbacks.files import View
from callbacks.keys import Keys, importance, load
from moe.data.store import ImageStore
from moe.errors import UserError
from sweeps.runs.files import read_table, reading, unless_damaged
from sweeps.runs.folders import PROBE_AGAIN
from sweeps.runs.run import Run
from sweeps.views.compare import Comparison, Group

EPOCHS = 40  # of routing, kept for the slider; of longer runs evenly many, first and last among them
PICTURES = 6  # most exciting images a card shows
_SIDE = 56  # pixels of a thumbnail
_DIMENSIONS = 5
_CLASSES = 3
_FIRST = (Keys.VAL_LOSS, Keys.TRAIN_LOSS, Keys.AGREEMENT, Keys.CV2, Keys.ENTROPY, Keys.DEAD, Keys.GATE_ENTROPY)
_CHANCE = {Keys.AGREEMENT: Keys.CHANCE_OBSERVED, Keys.TRAIN_AGREEMENT: Keys.TRAIN_CHANCE_OBSERVED}


def collect(comparison: Comparison) -> dict[str, Any]:
    """Everything of a sweep that the page shows.

    Returns:
        ``cells`` (label, values, runs), ``columns`` and ``rows`` of the comparison, ``runs``, ``history`` (metric ->
        values by epoch, a run), ``first`` (metrics to begin with), ``chance`` (metric -> its
        chance level), ``routing`` (by epoch, a run), ``experts`` (one a card), ``maps`` (experts in the
        plane by similarity, one for each image set), ``thumbnails`` (image -> data URI).
    """
    runs = described(comparison)
    gallery = Gallery()
    experts = [card for run in runs for card in cards(run, gallery)]
    return {
        "name": comparison.sweep.name,
        "parameters": comparison.parameters,
        "notes": comparison.notes,
        "cells": [_cell(group, runs) for group in comparison.groups],
        "columns": comparison.columns,
        "rows": [[_number(group, column) for column in comparison.columns] for group in comparison.groups],
        "runs": [_run(run) for run in runs],
        "history": {run.id: history(run) for run in runs},
        "routing": {run.id: found for run in runs if (found := routing(run))},
        "first": _FIRST,
        "chance": _CHANCE,
        "experts": experts,
        "maps": maps(comparison),
        "thumbnails": gallery.pictures,
    }


def described(comparison: Comparison) -> list[Run]:
    """The runs of a comparison whose configuration can be read; damaged ones are named."""
    runs = [run for group in comparison.groups for run in group.runs]
    return [run for run in runs if unless_damaged(partial(getattr, run, "config"), None) is not None]


def table(file: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a CSV file; none where there is no file, or (which is said) it is damaged.

    Args:
        file: the table.
        columns: that it must have.
    """
    return unless_damaged(partial(_table, file, columns), [])


def _table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    rows = read_table(file, PROBE_AGAIN)
    with reading(file, PROBE_AGAIN):
        for row in rows[:1]:
            if missing := sorted(set(columns) - row.keys()):
                raise ValueError(f"it has no column {missing[0]}")
    return rows


def rounded(value: Any) -> float | None:
    """A number to five digits; None for what is none, or is not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return float(f"{number:.5g}") if np.isfinite(number) else None


def _cell(group: Group, shown: Sequence[Run]) -> dict[str, Any]:
    return {
        "label": group.label,
        "values": group.values,
        "planned": group.planned,
        "runs": [run.id for run in group.runs if any(run.id == one.id for one in shown)],
    }


def _number(group: Group, column: str) -> dict[str, Any] | None:
    cell = group.cells[column]
    return None if cell is None else {"mean": rounded(cell.mean), "sd": rounded(cell.sd), "n": cell.n}


def _run(run: Run) -> dict[str, Any]:
    config = run.config
    return {"id": run.id, "experts": config.model.experts, "top_k": config.model.top_k, "seed": config.seed}


def history(run: Run) -> dict[str, Any]:
    """Epochs done, and the values of every metric at each of them; experts' own shares are left out."""
    rows = run.history()
    experts = {name(expert) for name in (importance, load) for expert in range(run.config.model.experts)}
    keys = {key for row in rows for key in row} - experts - {"epoch", "step"}
    metrics = {key: [rounded(row.get(key)) for row in rows] for key in sorted(keys)}
    return {"epochs": [int(row["epoch"] or 0) for row in rows], "metrics": metrics}


def routing(run: Run) -> dict[str, Any] | None:
    """Share of each class's images that each expert gets, and how often experts are chosen together, by epoch."""
    files, epochs = run.routing_files, [int(row["epoch"] or 0) for row in run.history()]
    there = [epoch for epoch in epochs if files.table(View.HEATMAP, epoch).exists()]
    if not there:
        return None
    kept = [
        there[place] for place in np.unique(np.linspace(0, len(there) - 1, min(EPOCHS, len(there))).round()).astype(int)
    ]
    tables = [[_matrix(files.table(view, epoch)) for view in (View.HEATMAP, View.COACTIVATION)] for epoch in kept]
    whole = [(epoch, heat, pairs) for epoch, (heat, pairs) in zip(kept, tables, strict=True) if heat[0] and pairs[0]]
    return {
        "epochs": [epoch for epoch, _, _ in whole],
        "classes": whole[0][1][0],
        "heatmap": [values for _, (_, values), _ in whole],
        "coactivation": [values for _, _, (_, values) in whole],
    } if whole else None  # fmt: skip


def _matrix(file: Path) -> tuple[list[str], list[list[float | None]]]:
    """Names of the rows, and the numbers beside them, to three decimals; nothing of a damaged table."""
    rows = [list(row.values()) for row in table(file)]
    names = [row[0] for row in rows]
    return names, [[None if (x := rounded(cell)) is None else round(x, 3) for cell in row[1:]] for row in rows]


class Gallery:
    """Thumbnails of images, each once, from the stores that are on this machine.

    Attributes:
        pictures: ``store/image`` -> data URI.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}
        self._stores: dict[str, tuple[ImageStore, dict[str, int]] | None] = {}

    def show(self, images: str, names: Iterable[str]) -> list[str]:
        """Keys in `pictures` of the images that can be shown."""
        found = self._open(images)
        return [] if found is None else [key for name in names if (key := self._add(*found, name))]

    def _open(self, images: str) -> tuple[ImageStore, dict[str, int]] | None:
        if images not in self._stores:
            try:
                store = ImageStore.open(images)
                self._stores[images] = store, {name: place for place, name in enumerate(store.ids)}
            except (UserError, OSError):  # the page can do without pictures
                self._stores[images] = None
        return self._stores[images]

    def _add(self, store: ImageStore, places: Mapping[str, int], name: str) -> str | None:
        if name not in places:
            return None
        key = f"{store.name}/{name}"
        if key not in self.pictures:
            self.pictures[key] = thumbnail(store.images_NHWC[places[name]])
        return key


def thumbnail(image_HWC: NDArray[np.uint8]) -> str:
    """An image as a small WebP in a data URI."""
    return webp(Image.fromarray(np.asarray(image_HWC)), (_SIDE, _SIDE), quality=75)


def webp(picture: Image.Image, within: tuple[int, int], *, quality: int) -> str:
    """A picture as WebP in a data URI, shrunk in place to fit into so many pixels (width, height)."""
    picture.thumbnail(within)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cards(run: Run, gallery: Gallery) -> Iterator[dict[str, Any]]:
    """One card for each expert and image set that the run was probed with."""
    sets = list(dict.fromkeys(images for images, _, _ in run.probe_results()))
    for images in sets:
        tuned = table(run.probe(images, "tuning") / "tuning.csv", "target", "expert")
        shown = table(run.probe(images, "exciting") / "exciting.csv", "expert", "rank", "score", "images", "image")
        alive = table(run.probe(images, "animacy") / "animacy.csv")
        sent = table(run.probe(images, "routing") / "routing.csv", "class")
        for expert in range(run.config.model.experts):
            yield {
                "run": run.id,
                "images": images,
                "expert": expert,
                "tuning": {row["target"]: _tuned(row) for row in tuned if row["expert"] == str(expert)},
                "animacy": [_numbers(row) for row in alive if row.get("expert") == str(expert)],
                "classes": _routed(sent, expert),
                "exciting": _exciting(shown, expert, gallery),
            }


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    return {key: value if (number := rounded(value)) is None else number for key, value in row.items()}


def _tuned(row: Mapping[str, str]) -> dict[str, Any]:
    """r2 and p of one target, and the dimensions that drive it most."""
    dimensions = [
        [row[f"dimension_{place}"], rounded(row.get(f"weight_{place}"))]
        for place in range(1, _DIMENSIONS + 1)
        if row.get(f"dimension_{place}")
    ]
    return {"r2": rounded(row.get("r2_mean")), "p": rounded(row.get("p")), "dimensions": dimensions}


def _routed(rows: Sequence[Mapping[str, str]], expert: int) -> list[tuple[str, float]]:
    """The classes most of whose images an expert gets: name and share."""
    shares = [(row["class"], share) for row in rows if (share := rounded(row.get(str(expert))))]
    return sorted(shares, key=lambda one: -one[1])[:_CLASSES]


def _exciting(rows: Sequence[Mapping[str, str]], expert: int, gallery: Gallery) -> dict[str, list[str]]:
    """Pictures of the images with the highest readout norm and gate logit."""
    mine = [row for row in rows if row["expert"] == str(expert) and (rounded(row["rank"]) or np.inf) <= PICTURES]
    sets: dict[str, list[str]] = {}
    for row in mine:
        sets.setdefault(row["score"], []).extend(gallery.show(row["images"], [row["image"]]))
    return sets


def maps(comparison: Comparison) -> list[dict[str, Any]]:
    """Every image set's experts in the plane, near where they represent images alike; with their clusters."""
    found = []
    for images, probe, result in comparison.sweep.folder.probe_results():
        if probe == "similarity":
            points = unless_damaged(partial(_points, comparison.sweep.folder.probe(images, probe)), None)
            if points is not None:
                found.append(
                    {"images": images, "points": points, "clusters": result.get("clusters"), "of": len(points)}
                )
    return found


def _points(folder: Path) -> list[dict[str, Any]]:
    """Every expert's place in the plane.

    Raises:
        DamagedFileError: the tables of the similarity probe do not say.
    """
    members, file = read_table(folder / "members.csv", PROBE_AGAIN), folder / "similarity.csv"
    with reading(file, PROBE_AGAIN):
        similarity_MM = np.array([list(row.values())[1:] for row in read_table(file)], dtype=float)
        if similarity_MM.shape != (len(members), len(members)):
            raise ValueError(f"it is no table of {len(members)} experts")
        xy_M2 = plane(similarity_MM)
    with reading(folder / "members.csv", PROBE_AGAIN):
        return [
            {"run": str(row["run"]), "expert": row["expert"], "cluster": row["cluster"], "x": x, "y": y}
            for row, (x, y) in zip(members, xy_M2.round(4).tolist(), strict=True)
        ]


def plane(similarity_MM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Classical scaling (Torgerson 1952) of 1 - similarity to two axes, (M, 2); experts without one at the origin."""
    distance_MM = 1 - np.nan_to_num(similarity_MM, nan=0.0)
    np.fill_diagonal(distance_MM, 0.0)
    squared_MM = distance_MM**2
    centred_MM = squared_MM - squared_MM.mean(0) - squared_MM.mean(1, keepdims=True) + squared_MM.mean()
    values, vectors = np.linalg.eigh(-centred_MM / 2)
    axes_M2 = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0.0))
    signs_2 = np.where(axes_M2[np.abs(axes_M2).argmax(0), range(axes_M2.shape[1])] < 0, -1.0, 1.0)
    result: NDArray[np.float64] = np.pad(axes_M2 * signs_2, ((0, 0), (0, max(0, 2 - axes_M2.shape[1]))))
    return result
