"""Claims in rows, sentences and headline numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.probe import Numbers
from probes.statistics.verdicts import Verdict
from probes.suite.claims_asked import Measured
from probes.suite.claims_responses import KINDS
from probes.suite.published import PublishedClaim, published_claims, published_r2
from probes.tables import number

NOT_ASKED = "not asked"
COLUMNS = (
    "claim", "verdict", "effect", "low", "high", "over", "images_low", "images_high", "region_low", "region_high", "p",
    "p_over", "published", "place", "figure", "says", "measured_by", "missing", "sentence",
)  # fmt: skip


def published_claim(name: str) -> PublishedClaim:
    """What the paper says, with the value that its tables give."""
    claim = published_claims()[name]
    if name != "gate_above_readout":
        return claim
    r2 = {kind: np.mean([one.value for one in published_r2(kind)]) for kind in KINDS}
    return claim._replace(value=float(r2["gate"] - r2["readout"]))


def claim_row(claim: PublishedClaim, found: Measured | None, said: str, missing: str) -> dict[str, Any]:
    """A claim as plain JSON types; what is infinite or undefined is None."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"claim": claim.name, "verdict": said, "missing": missing, "published": claim.value, "place": claim.place}
    row |= {"figure": claim.figure, "says": claim.says, "measured_by": claim.effect, "more": {}}
    if found is not None:
        row |= {"effect": number(found.effect), "low": number(found.bounds.low), "high": number(found.bounds.high)}
        row |= {"region_low": number(found.region[0]), "region_high": number(found.region[1]), "over": found.over}
        row |= {"p": None if found.p is None else number(found.p), "p_over": found.p_over}
        row |= (
            {"images_low": number(found.images.low), "images_high": number(found.images.high)} if found.images else {}
        )
        row |= {"more": {key: number(value) for key, value in found.more.items()}}
    return row | {"sentence": _sentence(row)}


def _sentence(row: Mapping[str, Any]) -> str:
    """A claim and what is to be said of it, for people."""
    parts = [f"{row['claim']}: {row['verdict']}. The claim: {row['says']}."]
    if row["effect"] is not None:
        found = f"{_capital(row['measured_by'])}: {row['effect']:.3g}"
        if row["low"] is not None:
            found += f" [{row['low']:.3g}, {row['high']:.3g}] over {row['over']}"
        elif row["images_low"] is not None:
            found += f" [{row['images_low']:.3g}, {row['images_high']:.3g}] over images alone"
        found += f"; claimed: {_region(row['region_low'], row['region_high'])}"
        if row["p"] is not None:
            found += f"; p = {row['p']:.2g} over {row['p_over']}"
        if row["published"] is not None:
            found += f"; the paper: {row['published']:.3g} ({row['place']})"
        parts.append(f"{found}.")
    if row["missing"]:
        parts.append(f"{_capital(row['missing'])}.")
    return " ".join(parts)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _region(low: float | None, high: float | None) -> str:
    if low is None:
        return f"below {high:.3g}"
    return f"above {low:.3g}" if high is None else f"between {low:.3g} and {high:.3g}"


def why_not(found: Measured, said: Verdict, runs: int) -> str:
    """Why there is no interval or no test, if that is what hinders a verdict."""
    if said is not Verdict.CANNOT_TELL:
        return ""
    if not np.isfinite(found.effect):
        return "no expert has both a gate and readouts that vary"
    whys = [found.note]
    if not np.isfinite(found.bounds.low):
        what = "one run" if runs == 1 else "single seeds"
        whys.append(
            f"{what} cannot tell over seeds: add seeds to the sweep's file, `moe sweep launch` goes on with them"
        )
    return "; ".join(why for why in whys if why)


def headline(rows: Sequence[Mapping[str, Any]]) -> Numbers:
    """Effect, interval, p and verdict (1: holds, 0: does not, None: cannot tell) of every claim that was asked."""
    numbers: Numbers = {}
    for row in rows:
        if row["verdict"] == NOT_ASKED:
            continue
        name = row["claim"]
        numbers |= {name: row["effect"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
        numbers |= {f"{name}_p": row["p"]} if row["p"] is not None else {}
        numbers[f"{name}_holds"] = {Verdict.HOLDS: 1, Verdict.FAILS: 0}.get(row["verdict"])
    return numbers
