"""Early termination as W&B's documentation and its `sweeps` package describe it, over what runs have logged.

Written from their description and apart from `sweeps.plan.goal`, so that each is a check of the other.
"""

import math
from collections.abc import Sequence
from typing import Any

from tests.wandb_server.state import Run

BRACKETS = 100


def brackets(rule: dict[str, Any]) -> list[int]:
    """Numbers of logged values at which runs are compared: from `max_iter` and `s` downwards, or from `min_iter` up.

    `min_iter: 3` with eta 3 gives 3, 9, 27, ..; `max_iter: 27, s: 2` gives 3 and 9.
    """
    eta = rule.get("eta", 3)
    if "max_iter" in rule:
        found = [rule["max_iter"] / eta**step for step in range(1, rule.get("s", 0) + 1)]
        return sorted(int(bound) for bound in found if bound >= 1)
    return [int(rule["min_iter"] * eta**step) for step in range(BRACKETS)]


def to_stop(config: dict[str, Any], runs: Sequence[Run]) -> list[Run]:
    """Running runs that are worse than the best 1 / eta of all runs that have come to the same bracket.

    A run is judged at the last bracket that it has come to: with `strict` (the default of W&B's schema) by its value
    there, without by its best value so far.
    """
    rule, metric = config["early_terminate"], config["metric"]
    sign = -1 if metric.get("goal") == "maximize" else 1
    logged = {run.name: [sign * value for value in run.series(metric["name"]) if _is_number(value)] for run in runs}
    ended = []
    for run in runs:
        own = logged[run.name]
        passed = [bracket for bracket in brackets(rule) if bracket <= len(own)]
        if run.state != "running" or not passed:
            continue
        at = sorted(values[passed[-1] - 1] for values in logged.values() if len(values) >= passed[-1])
        judged = own[passed[-1] - 1] if rule.get("strict", True) else min(own)
        if judged > at[int(len(at) / rule.get("eta", 3))]:
            ended.append(run)
    return ended


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
