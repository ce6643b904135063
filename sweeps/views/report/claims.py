"""The paper's claims with their verdicts for a sweep, as the probe `claims` found them."""

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import NamedTuple

from sweeps.runs.folders import ProbedFolder
from sweeps.views.compare import Comparison, Gap
from sweeps.views.report.reading import rounded, table

PROBE = "claims"


class Claim(NamedTuple):
    """One claim.

    Attributes:
        says: what it says.
        verdict: what can be said of it.
        kind: "holds", "fails" or "open", for its look.
        found: effect, interval, what is claimed, p, and the paper's number, in words.
        missing: what hinders a verdict; "" for nothing.
        images: on which it was asked.
        figure: id of the paper's figure that shows what it is about; "" where none does.
    """

    says: str
    verdict: str
    kind: str
    found: str
    missing: str
    images: str
    figure: str


def claims(comparison: Comparison) -> list[Claim]:
    """Every claim that was asked of all runs together, in the paper's order; of a single run where there is but one."""
    runs = [run for group in comparison.groups for run in group.runs]
    folder: ProbedFolder = runs[0] if len(runs) == 1 else comparison.sweep.folder
    return list(_of_folder(folder))


def unasked(comparison: Comparison) -> list[Gap]:
    """That the claims were not asked of runs that have been probed."""
    runs = [run for group in comparison.groups for run in group.runs]
    if not any(run.probe_results() for run in runs) or claims(comparison):
        return []
    command = f"moe probe --sweep {quote(comparison.sweep.name)} --probe {PROBE}"
    return [Gap("whether the paper's claims hold for these runs has not been asked", command)]


def _of_folder(folder: ProbedFolder) -> Iterator[Claim]:
    for images, probe, _ in folder.probe_results():
        if probe == PROBE:
            for row in table(folder.probe(images, probe) / f"{PROBE}.csv", "claim", "verdict", "says"):
                verdict = row["verdict"]
                kind = "holds" if verdict == "holds" else "fails" if verdict == "does not hold" else "open"
                missing, figure = row.get("missing", ""), row.get("figure", "")
                yield Claim(row["says"], verdict, kind, _found(row), missing, images, figure)


def _found(row: Mapping[str, str]) -> str:
    """``r2 of a curve less r2 of a line: 0.12 [0.08, 0.16] over seeds; claimed: above 0.01``."""
    effect, low, high, p, published = (rounded(row.get(key)) for key in ("effect", "low", "high", "p", "published"))
    if effect is None:
        return ""
    words = f"{row.get('measured_by') or 'effect'}: {effect:.3g}"
    if low is not None and high is not None:
        words += f" [{low:.3g}, {high:.3g}] over {row.get('over') or 'runs'}"
    words += _region(rounded(row.get("region_low")), rounded(row.get("region_high")))
    words += "" if p is None else f"; p = {p:.2g}"
    return words + ("" if published is None else f"; the paper: {published:.3g} ({row.get('place', '')})")


def _region(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if low is None:
        return f"; claimed: below {high:.3g}"
    return f"; claimed: above {low:.3g}" if high is None else f"; claimed: between {low:.3g} and {high:.3g}"
