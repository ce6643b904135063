"""The part of the Mongo query language that `Api().runs(filters=..., order=...)` is used with."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.wandb_server.state import Run

MISSING = object()

FIELDS: dict[str, Callable[[Run], Any]] = {
    "name": lambda run: run.name,
    "displayName": lambda run: run.display_name,
    "display_name": lambda run: run.display_name,
    "state": lambda run: run.state,
    "group": lambda run: run.group,
    "jobType": lambda run: run.job_type,
    "sweep": lambda run: run.sweep,
    "tags": lambda run: run.tags,
    "created_at": lambda run: run.number,
    "createdAt": lambda run: run.created,
}

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda have, want: have == want or (isinstance(have, list) and want in have),
    "$ne": lambda have, want: have != want,
    "$in": lambda have, want: any(item in want for item in (have if isinstance(have, list) else [have])),
    "$nin": lambda have, want: all(item not in want for item in (have if isinstance(have, list) else [have])),
    "$exists": lambda have, want: (have is not MISSING) == want,
    "$regex": lambda have, want: isinstance(have, str) and re.search(want, have) is not None,
    "$gt": lambda have, want: _number(have) and have > want,
    "$gte": lambda have, want: _number(have) and have >= want,
    "$lt": lambda have, want: _number(have) and have < want,
    "$lte": lambda have, want: _number(have) and have <= want,
}


def matches(run: Run, query: Mapping[str, Any]) -> bool:
    """Whether the run is one of those asked for; an operator that is not known here is a KeyError."""
    for key, want in query.items():
        if key in ("$and", "$or"):
            found = [matches(run, part) for part in want]
            if not (all(found) if key == "$and" else any(found)):
                return False
            continue
        have = value(run, key)
        tests = want if isinstance(want, dict) else {"$eq": want}
        if not all(COMPARISONS[operator](have, wanted) for operator, wanted in tests.items()):
            return False
    return True


def value(run: Run, key: str) -> Any:
    """A field by its name in a filter: `group`, `config.model.top_k`, `config.lr.value`, `summary_metrics.loss`."""
    if key in FIELDS:
        return FIELDS[key](run)
    root, _, rest = key.partition(".")
    tree = {"config": run.config, "summary_metrics": run.summary, "summaryMetrics": run.summary}[root]
    return _descend(tree, rest.removesuffix(".value"))


def ordered(runs: list[Run], order: str) -> list[Run]:
    """Sorted by `+created_at`, `-summary_metrics.loss` and the like; runs without the value come last."""
    key = order.lstrip("+-")
    have = [run for run in runs if value(run, key) is not MISSING]
    lack = [run for run in runs if value(run, key) is MISSING]
    return sorted(have, key=lambda run: value(run, key), reverse=order.startswith("-")) + lack


def _descend(tree: Any, path: str) -> Any:
    if isinstance(tree, dict) and path in tree:  # sweeps set flat dotted keys
        return tree[path]
    head, _, rest = path.partition(".")
    if not isinstance(tree, dict) or head not in tree:
        return MISSING
    return _descend(tree[head], rest) if rest else tree[head]


def _number(have: Any) -> bool:
    return isinstance(have, (int, float)) and not isinstance(have, bool)
