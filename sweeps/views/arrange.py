"""A comparison as one asks for it: which columns and groups, in which order; else what a terminal has room for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from callbacks.keys import Keys
from moe.errors import UserError, suggest
from sweeps.views.compare import METRICS, Comparison, Group, header, rows_of
from sweeps.views.query import parse

ALL = "all"
# what comes first where not everything fits
_HEADLINE = (
    Keys.VAL_LOSS, Keys.AGREEMENT, Keys.CHANCE_OBSERVED, Keys.DEAD, "gate r2", "readout r2", "separability",
    "expert similarity", "coupling", "animacy of the gate", "kNN accuracy", Keys.CLASS_INFORMATION, "overlap", Keys.CV2,
)  # fmt: skip
_BESIDE = 3  # characters that a column takes beside its words


def arranged(
    comparison: Comparison, columns: str | None = None, sort: str | None = None, where: str | None = None
) -> Comparison:
    """The part of a comparison that was asked for.

    Args:
        comparison: the whole.
        columns: names, with commas between; of a probe's number without its images for all of them; "all".
        sort: a column or parameter, with a minus before it for the largest first. Groups without it come last.
        where: conditions on parameters and means, see `sweeps.views.query`.

    Raises:
        UserError: a name or a condition that means nothing here.
    """
    groups = list(comparison.groups)
    if where:
        rows = [_row(group) for group in groups]
        known = [*comparison.parameters, "n", *comparison.columns, *_keys(comparison)]
        groups = [groups[place] for place in parse(where).select(rows, known)]
    if sort:
        groups = _sorted(comparison, groups, sort)
    chosen = comparison.columns if columns in (None, ALL) else _chosen(comparison, str(columns))
    return replace(comparison, groups=groups, columns=chosen)


def fitting(comparison: Comparison, width: int) -> Comparison:
    """As many of the columns, the most telling first, as a terminal has room for; a note names the others.

    Args:
        comparison: the whole.
        width: of the terminal, in characters.
    """
    first = [column for name in _HEADLINE for column in _named(comparison, METRICS.get(name, name))]
    order = [*first, *(column for column in comparison.columns if column not in first)]
    names = header(comparison)
    words = {name: [row[place] for row in rows_of(comparison)] for place, name in enumerate(names)}
    room = width - 1 - sum(_width(name, " ".join(words[name]).split()) for name in (*comparison.parameters, "n"))
    kept: list[str] = []
    for column in order:
        room -= _width(column, words[column])
        if room < 0:
            break
        kept.append(column)
    left = [column for column in order if column not in kept]
    more = [f"no room for: {', '.join(left)} (--columns all, --csv FILE)"] if left else []
    return replace(comparison, columns=kept, notes=[*comparison.notes, *more])


def _width(name: str, values: Sequence[str]) -> int:
    """Of a column whose heading may be folded between words."""
    return _BESIDE + max(len(word) for word in (*name.split(), *values))


def _keys(comparison: Comparison) -> dict[str, str]:
    """Columns by the keys of the metrics that they show."""
    return {key: label for key, label in METRICS.items() if label in comparison.columns}


def _row(group: Group) -> Mapping[str, Any]:
    means = {column: cell.mean for column, cell in group.cells.items() if cell}
    by_key = {key: means[label] for key, label in METRICS.items() if label in means}
    return {**group.values, "n": len(group.runs), **means, **by_key}


def _named(comparison: Comparison, name: str) -> list[str]:
    """Columns of a name, of a key, or of a probe's number over whatever images."""
    label = _keys(comparison).get(name, name)
    return [column for column in comparison.columns if column == label or column.startswith(f"{label} [")]


def _chosen(comparison: Comparison, columns: str) -> list[str]:
    chosen: list[str] = []
    for name in filter(None, (part.strip() for part in columns.split(","))):
        found = _named(comparison, name)
        if not found:
            known = [*(column.partition(" [")[0] for column in comparison.columns), *_keys(comparison)]
            raise UserError(f'no run has a column "{name}": {suggest(name, known)}')
        chosen += found
    return list(dict.fromkeys(chosen))


def _sorted(comparison: Comparison, groups: Sequence[Group], sort: str) -> list[Group]:
    name, downwards = sort.removeprefix("-"), sort.startswith("-")
    key = name if name in comparison.parameters else next(iter(_named(comparison, name)), None)
    if key is None:
        known = [*comparison.parameters, *comparison.columns, *_keys(comparison)]
        raise UserError(f'nothing to sort by is called "{name}": {suggest(name, known)}')
    rows = [(_row(group).get(key), group) for group in groups]
    have = [(value, group) for value, group in rows if value is not None]
    numbers = all(isinstance(value, int | float) for value, _ in have)
    have.sort(key=lambda pair: pair[0] if numbers else str(pair[0]), reverse=downwards)
    return [group for _, group in have] + [group for value, group in rows if value is None]
