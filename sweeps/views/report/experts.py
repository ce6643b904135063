"""Experts on the page: a card each with its pictures, and their places in the plane.

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

from moe.data.store import ImageStore
from moe.errors import UserError
from sweeps.runs.files import read_table, reading, unless_damaged
from sweeps.runs.folders import PROBE_AGAIN
from sweeps.runs.run import Run
from sweeps.views.compare import Comparison
from sweeps.views.report.reading import rounded, table
from sweeps.views.report.words import cluster_words

PICTURES = 6  # most exciting images a card shows
_SIDE = 56  # pixels of a thumbnail
_DIMENSIONS = 5
_CLASSES = 3


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
        alive = table(run.probe(images, "animacy") / "animacy.csv", "expert", "gate", "readout")
        coupled = table(run.probe(images, "coupling") / "coupling.csv", "expert", "pearson")
        sent = table(run.probe(images, "routing") / "routing.csv", "class")
        for expert in range(run.config.model.experts):
            yield {
                "run": run.id,
                "images": images,
                "expert": expert,
                "tuning": {row["target"]: _tuned(row) for row in tuned if row["expert"] == str(expert)},
                "animacy": _both(alive, expert, "", "_p_adjusted"),
                "coupling": _coupled(coupled, expert),
                "classes": _routed(sent, expert),
                "exciting": _exciting(shown, expert, gallery),
            }


def _both(rows: Sequence[Mapping[str, str]], expert: int, *endings: str) -> dict[str, list[float | None]]:
    """What a table says of an expert's gate and readout: of each, the columns with these endings."""
    mine = [row for row in rows if row["expert"] == str(expert)]
    return {kind: [rounded(row.get(f"{kind}{ending}")) for ending in endings] for row in mine
            for kind in ("gate", "readout")}  # fmt: skip


def _coupled(rows: Sequence[Mapping[str, str]], expert: int) -> list[float | None]:
    """Pearson's r of an expert's gate and readout, with its interval."""
    mine = [row for row in rows if row["expert"] == str(expert)]
    return [rounded(row.get(f"pearson{end}")) for row in mine for end in ("", "_low", "_high")]


def _tuned(row: Mapping[str, str]) -> dict[str, Any]:
    """r2 and p of one target, and the dimensions that drive it most."""
    dimensions = [
        [row[f"dimension_{place}"], rounded(row.get(f"weight_{place}"))]
        for place in range(1, _DIMENSIONS + 1)
        if row.get(f"dimension_{place}")
    ]
    return {
        "r2": rounded(row.get("r2_mean")), "sd": rounded(row.get("r2_sd")), "p": rounded(row.get("p")),
        "dimensions": dimensions,
    }  # fmt: skip


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
                found.append({"images": images, "points": points, "said": cluster_words(result)})
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
