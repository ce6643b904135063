"""What the paper reports, from `published.yaml`, to stand beside what is found here."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

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


@cache
def published_tuning() -> tuple[PublishedTuning, ...]:
    """All rows of Tables 1 and S1."""
    stored = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    found = []
    for table in stored["tuning"]:
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
        effect: what is measured, ours and the paper's alike.
        value: the paper's; None where it gives no number.
    """

    name: str
    says: str
    place: str
    effect: str
    value: float | None = None


@cache
def published_claims() -> dict[str, PublishedClaim]:
    """The claims by name, in the paper's order."""
    stored = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {name: PublishedClaim(name, **claim) for name, claim in stored["claims"].items()}
