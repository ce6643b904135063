"""Conditions on rows of runs, as one writes them: ``model.experts=8 and val/loss<5``.

A query is conditions joined by ``and`` and ``or``, of which ``and`` binds closer. A condition is a key, one of the
comparisons below, and a value read as YAML; quotes keep a value together that holds ``and`` or a comparison.

    =  ==  !=     equal or not; ``=none`` where there is no such number
    <  <=  >  >=  numbers alone
    ~             text that contains the value, whatever the case

A row that lacks the key meets no condition but ``=none``.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe.config import read_value
from moe.errors import UserError, suggest

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_OUTSIDE_QUOTES = r"""(?=(?:[^'"]|'[^']*'|"[^"]*")*$)"""
_CONDITION = re.compile(r"\s*(?P<key>[^=!<>~]+?)\s*(?P<comparison>==|!=|<=|>=|=|<|>|~)\s*(?P<value>.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One comparison of a row's value.

    Attributes:
        key: the name of the value in a row.
        comparison: one of those above, ``=`` for ``==``.
        value: what it is compared with.
    """

    key: str
    comparison: str
    value: Any

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a row meets it.

        Raises:
            UserError: the order of something that is no number is asked for.
        """
        found = row.get(self.key)
        if self.value is None:
            return (found is None) == (self.comparison == "=")
        if found is None:
            return False
        if self.comparison in "=!=":
            return _same(found, self.value) == (self.comparison == "=")
        if self.comparison == "~":
            return str(self.value).casefold() in str(found).casefold()
        if not _is_number(found):
            raise UserError(f'"{self.key}" is {found!r} in a run, which is neither more nor less; use = or ~')
        return _ORDER[self.comparison](found, self.value)


@dataclass(frozen=True)
class Query:
    """Alternatives, each a list of conditions that hold together."""

    alternatives: Sequence[Sequence[Condition]]

    def select(self, rows: Iterable[Mapping[str, Any]], known: Iterable[str]) -> list[int]:
        """Positions of the rows that meet it.

        Args:
            rows: values by name.
            known: every name that a row may have.

        Raises:
            UserError: a key that is not known, or an order of what has none.
        """
        names = set(known)
        for condition in (condition for conditions in self.alternatives for condition in conditions):
            if condition.key not in names:
                raise UserError(f'no run has "{condition.key}": {suggest(condition.key, names)}')
        return [place for place, row in enumerate(rows) if self._holds(row)]

    def _holds(self, row: Mapping[str, Any]) -> bool:
        return any(all(condition.holds(row) for condition in conditions) for conditions in self.alternatives)


def parse(text: str) -> Query:
    """A query from text.

    Raises:
        UserError: it is none; says which part.
    """
    either = re.split(rf"\s+or(?:\s+|$){_OUTSIDE_QUOTES}", text, flags=re.IGNORECASE)
    both = (re.split(rf"\s+and(?:\s+|$){_OUTSIDE_QUOTES}", part, flags=re.IGNORECASE) for part in either)
    return Query([[_condition(part) for part in parts] for parts in both])


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None or not found["value"]:
        raise UserError(f'"{text}" is no condition; write one as in: model.experts=8 and val/loss<5')
    comparison = "=" if found["comparison"] == "==" else found["comparison"]
    value = _value(found["value"], text)
    if comparison in _ORDER and not _is_number(value):
        raise UserError(f'in "{text}", {found["value"]} is no number; {comparison} compares numbers')
    return Condition(found["key"], comparison, value)


def _value(written: str, text: str) -> Any:
    if written.lower() in ("none", "null"):
        return None
    try:
        return float(written)  # YAML takes 1e-5 for text
    except ValueError:
        return read_value(written, f'in "{text}", ')


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(found: Any, value: Any) -> bool:
    if _is_number(found) and _is_number(value):
        return bool(found == value)
    return str(found) == str(value)
