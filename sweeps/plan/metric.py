"""The metric that a sweep goes by: one that runs log each epoch."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from callbacks import keys
from moe.config import RunConfig
from moe.errors import suggest
from sweeps.plan.parameters import as_yaml, is_finite
from sweeps.plan.source import Source

METRICS = keys.metrics()  # docs/metrics.md says what each is; <e> is an expert
KEYS = ("name", "goal", "target", "impute", "impute_while_running")
_EXPERT = re.compile("|".join(key(r"(\d+)") for key in (keys.importance, keys.load)))


@dataclass(frozen=True)
class Metric:
    """What bayes and early termination look at; a run that reaches `target` ends the sweep."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = None

    def cost(self, value: float | None) -> float:
        """Smaller is better: the value, its negative where it is maximised, infinity where it is no number."""
        if value is None or math.isnan(value):
            return math.inf
        return value if self.goal == "minimize" else -value

    def problem(self, config: RunConfig) -> str | None:
        """Why a run of this configuration does not log the metric; None if it does."""
        objective, experts = config.loss.objective, config.model.experts
        if self.name.endswith("/accuracy") and objective != "supervised":
            return f'a run with loss.objective "{objective}" does not log {self.name}; write val/loss'
        expert = _EXPERT.fullmatch(self.name)
        if expert and int(expert[1] or expert[2]) >= experts:
            return f"a run with model.experts={experts} does not log {self.name}; experts count from 0"
        return None


def check_metric(metric: Any, source: Source) -> None:
    """Refuse a mistaken `metric`.

    Raises:
        UserError: names the key, the value and the fix.
    """
    if not (isinstance(metric, dict) and isinstance(metric.get("name"), str)):
        raise source.error(("metric",), "metric needs a name; write metric: {name: val/loss, goal: minimize}")
    for key in metric:
        if key not in KEYS:
            raise source.error(("metric", key), f'unknown key "{key}" in metric; {suggest(key, KEYS)}')
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise source.error(("metric", "goal"), f"unknown goal {as_yaml(metric['goal'])}; write minimize or maximize")
    if not is_finite(metric.get("target", 0)):
        raise source.error(("metric", "target"), f"target {as_yaml(metric['target'])} is no number; write one")
    name = metric["name"]
    if name not in METRICS and not _EXPERT.fullmatch(name):
        problem = f'no run logs a metric "{name}" each epoch'
        raise source.error(("metric", "name"), f"{problem}; {suggest(name, METRICS)}")
