"""What a probe is given, and what a probe is."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moe.data.store import ImageStore
from probes.activations import Activations
from sweeps.runs import Run

Numbers = dict[str, float | int | None]
_MAX_IMAGES = 2000


@dataclass(frozen=True)
class Subject:
    """One run seen through one set of images."""

    run: Run
    store: ImageStore
    activations: Activations

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return len(self.activations.readouts_EnD)


class Probe(Protocol):
    """Asks the experts of one run something. Names live in probes.jobs.PROBES."""

    about: str

    def skip(self, store: ImageStore) -> str | None:
        """Why this probe cannot use these images, or None."""
        ...

    def run(self, subject: Subject, folder: Path) -> Numbers:
        """Write tables (.csv) and figures (.png) into `folder`; return the headline numbers."""
        ...


def rated_rows(store: ImageStore) -> NDArray[np.intp]:
    """Images that have rated dimensions (THINGS: one a concept)."""
    factors = store.factors_NF
    return np.array([], np.intp) if factors is None else np.flatnonzero(np.isfinite(factors).all(axis=1))


def representative_rows(store: ImageStore) -> NDArray[np.intp]:
    """Images for representational similarity: the rated ones, else up to 2,000 at even spacing.

    An RDM of n images has n(n - 1) / 2 entries an expert, so that all images are rarely an option.
    """
    rated = rated_rows(store)
    if len(rated):
        return rated[_even(len(rated))]
    return _even(len(store))


def _even(count: int) -> NDArray[np.intp]:
    return np.linspace(0, count - 1, min(count, _MAX_IMAGES)).round().astype(np.intp)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; NaN and None become empty cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def number(value: Any) -> float | None:
    """A headline number as JSON has it: NaN becomes None."""
    return float(value) if np.isfinite(value) else None
