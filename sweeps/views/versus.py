"""Several sweeps side by side: what differs in their settings, and how large the differences of their results are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from rich.table import Table

from moe.config import flat, from_flat
from sweeps.plan.spec import Sweep
from sweeps.queue.launched import blank_number
from sweeps.views.compare import Cell, Comparison, Group

SWEEP = "sweep"


@dataclass(frozen=True)
class Effect:
    """How a number of one sweep differs from the same number of the first.

    Attributes:
        sweep: the other sweep.
        cell: the values that both groups share.
        column: which number.
        difference: mean of the other minus mean of the first.
        g: Hedges' g of it; None where a group has one run alone or none of them varies.
        n: runs of the first and of the other.
    """

    sweep: str
    cell: str
    column: str
    difference: float
    g: float | None
    n: tuple[int, int]


def side_by_side(comparisons: Sequence[Comparison]) -> tuple[Comparison, list[Effect]]:
    """One table of all sweeps' groups, and the differences from the first sweep.

    Settings that are fixed within each sweep but differ between them become parameters. Groups of two sweeps belong
    together if they share the values of every parameter that both swept.

    Args:
        comparisons: two or more.
    """
    settings = [_settings(comparison) for comparison in comparisons]
    swept = list(dict.fromkeys(path for comparison in comparisons for path in comparison.parameters))
    differing = [path for path in settings[0] if path not in swept and len({repr(s.get(path)) for s in settings}) > 1]
    parameters = [SWEEP, *swept, *differing]
    columns = list(dict.fromkeys(column for comparison in comparisons for column in comparison.columns))
    groups = []
    for comparison, fixed in zip(comparisons, settings, strict=True):
        for group in comparison.groups:
            known = {SWEEP: comparison.name, **fixed, **group.values}
            cells = {column: group.cells.get(column) for column in columns}
            groups.append(replace(group, values={path: known.get(path) for path in parameters}, cells=cells))
    several = len({comparison.name for comparison in comparisons}) > 1
    notes = [f"{c.name}: {note}" if several else note for c in comparisons for note in c.said]
    if not differing:
        notes.append("no fixed setting differs between these sweeps")
    name = ", ".join(comparison.name for comparison in comparisons)
    claims = [{"sweep": one.name, **claim} for one in comparisons for claim in one.claims]
    merged = Comparison(comparisons[0].sweep, parameters, columns, groups, notes, [], name, claims)
    return merged, [effect for other in comparisons[1:] for effect in _effects(comparisons[0], other)]


def _settings(comparison: Comparison) -> dict[str, Any]:
    """The scientific settings that all its groups share by dotted path, without the seed."""
    planned = (flat(from_flat(cell.values)) for cell in comparison.sweep.cells if blank_number(cell) is None)
    known = [flat(group.runs[0].config) for group in comparison.groups if group.runs] or list(islice(planned, 1))
    return {
        path: value
        for path, value in (known[0] if known else {}).items()
        if path != Sweep.replicate and not path.startswith("machine.")
        and all(path in other and repr(other[path]) == repr(value) for other in known[1:])
    }  # fmt: skip


def _effects(first: Comparison, other: Comparison) -> list[Effect]:
    shared = [path for path in first.parameters if path in other.parameters]
    return [
        effect
        for mine in first.groups
        for theirs in other.groups
        if all(repr(mine.values[path]) == repr(theirs.values[path]) for path in shared)
        for effect in _between(mine, theirs, other.name)
    ]


def _between(mine: Group, theirs: Group, sweep: str) -> Iterator[Effect]:
    words = mine.label if mine.label == theirs.label else f"{mine.label} / {theirs.label}"
    for column, a in mine.cells.items():
        b = theirs.cells.get(column)
        if a and b:
            yield Effect(sweep, words, column, b.mean - a.mean, hedges_g(a, b), (a.n, b.n))


def hedges_g(a: Cell, b: Cell) -> float | None:
    """Hedges' g of b's mean over a's: in pooled standard deviations, with the correction for small samples.

    Seeds are taken for independent, also where both sweeps used the same ones: a seed does not pair two recipes.
    With J = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)) for m degrees of freedom it is unbiased for normal values
    of equal spread (Hedges, 1981, J. Educ. Stat. 6, 107, Eq. 6e).

    Args:
        a: mean, sample sd and number of values of the first group.
        b: of the second.

    Returns:
        None for groups of fewer than two values, or without any spread.
    """
    if a.sd is None or b.sd is None:
        return None
    free = a.n + b.n - 2
    pooled = math.sqrt(((a.n - 1) * a.sd**2 + (b.n - 1) * b.sd**2) / free)
    if pooled == 0:
        return None
    correction = math.exp(math.lgamma(free / 2) - math.lgamma((free - 1) / 2)) / math.sqrt(free / 2)
    return correction * (b.mean - a.mean) / pooled


def effects_table(effects: Sequence[Effect], first: str) -> Table:
    """For the terminal: a row a difference, largest effect first."""
    table = Table(
        title=f"differences from {first}: Hedges' g over seeds", title_justify="left",
        caption="g: the difference in pooled standard deviations over seeds", caption_justify="left",
    )  # fmt: skip
    for name in (SWEEP, "cell", "number"):
        table.add_column(name)
    for name in ("difference", "g", "n"):
        table.add_column(name, justify="right")
    for effect in sorted(effects, key=lambda effect: -abs(effect.g or 0.0)):
        words = (
            f"{effect.difference:+.3f}",
            "" if effect.g is None else f"{effect.g:+.2f}",
            f"{effect.n[0]}, {effect.n[1]}",
        )
        table.add_row(effect.sweep, effect.cell, effect.column, *words)
    return table


def as_json(effects: Sequence[Effect]) -> list[Mapping[str, Any]]:
    """Plain JSON types."""
    return [asdict(effect) for effect in effects]
