"""What the paper reports, from `published.yaml`, to stand beside what is found here."""

from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml


class PublishedTuning(NamedTuple):
    """One row of the paper's tables of tuning.

    Attributes:
        place: where it stands in the paper.
        experts: number of experts E of the model.
        target: "gate" or "readout".
        expert: which one.
        r2: mean over five folds.
        r2_sd: its standard deviation over the folds.
        top: dimensions with the largest coefficients, in descending order.
    """

    place: str
    experts: int
    target: str
    expert: int
    r2: float
    r2_sd: float
    top: tuple[tuple[str, float], ...]


class Published(NamedTuple):
    """One number of the paper.

    Attributes:
        place: where it stands in the paper.
        experts: number of experts E of the model.
        value: the number.
        sd: over its runs; None where it has one model, or says none.
    """

    place: str
    experts: int
    value: float
    sd: float | None


@cache
def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return stored


def published_agreement() -> tuple[Published, ...]:
    """Agreement of the experts of two views, for every E."""
    table = _stored()["agreement"]
    return tuple(Published(table["place"], experts, mean, sd) for experts, mean, sd in table["rows"])


def published_clusters() -> tuple[Published, ...]:
    """Number of clusters of the experts of all runs."""
    table = _stored()["clusters"]
    return tuple(Published(table["place"], experts, count, None) for experts, count in table["rows"])


def published_r2(target: str) -> tuple[Published, ...]:
    """Mean r2 over the experts of the one model of each E that the paper's tables show.

    Args:
        target: "gate" or "readout".
    """
    found: dict[tuple[str, int], list[float]] = {}
    for row in published_tuning():
        if row.target == target:
            found.setdefault((row.place, row.experts), []).append(row.r2)
    return tuple(Published(place, experts, fmean(values), None) for (place, experts), values in found.items())


@cache
def published_tuning() -> tuple[PublishedTuning, ...]:
    """All rows of Tables 1 and S1."""
    found = []
    for table in _stored()["tuning"]:
        for target, expert, r2, r2_sd, *top in table["rows"]:
            pairs = tuple(zip(top[::2], top[1::2], strict=True))
            found.append(PublishedTuning(table["place"], table["experts"], target, expert, r2, r2_sd, pairs))
    return tuple(found)


class PublishedClaim(NamedTuple):
    """One claim of the paper.

    Attributes:
        name: by which results call it.
        says: in a sentence without an end.
        place: where it stands in the paper.
        figure: id of the figure or table that shows what it is about, see `probes.paper`.
        effect: what is measured, ours and the paper's alike.
        value: the paper's; None where it gives no number.
    """

    name: str
    says: str
    place: str
    figure: str
    effect: str
    value: float | None = None


@cache
def published_claims() -> dict[str, PublishedClaim]:
    """The claims by name, in the paper's order."""
    return {name: PublishedClaim(name, **claim) for name, claim in _stored()["claims"].items()}
