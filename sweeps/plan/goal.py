"""What a sweep goes by: the metric that runs log each epoch, and early termination as W&B does it.

At a few epochs, brackets, all but the best 1 / eta of the runs are stopped.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from callbacks import keys
from moe.config import RunConfig
from moe.errors import suggest
from sweeps.plan.parameters import as_yaml, is_count, is_finite
from sweeps.plan.source import Source

METRICS = keys.metrics()  # docs/metrics.md says what each is; <e> is an expert
METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
_EXPERT = re.compile("(?:" + "|".join(key("") for key in keys.PER_EXPERT) + r")(\d+)")


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
        if self.name == keys.Keys.EXPERTS_CKA and experts == 1:
            return f"a run with model.experts=1 has no pair of experts and does not log {self.name}"
        expert = _EXPERT.fullmatch(self.name)
        if expert and int(expert[1]) >= experts:
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
        if key not in METRIC_KEYS:
            raise source.error(("metric", key), f'unknown key "{key}" in metric; {suggest(key, METRIC_KEYS)}')
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise source.error(("metric", "goal"), f"unknown goal {as_yaml(metric['goal'])}; write minimize or maximize")
    if not is_finite(metric.get("target", 0)):
        raise source.error(("metric", "target"), f"target {as_yaml(metric['target'])} is no number; write one")
    name = metric["name"]
    if name not in METRICS and not _EXPERT.fullmatch(name):
        problem = f'no run logs a metric "{name}" each epoch'
        raise source.error(("metric", "name"), f"{problem}; {suggest(name, METRICS)}")


STOPPING_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
_AT = "early_terminate"
_BRACKETS = 100  # W&B makes no more
_MOST_STEPS = 10_000  # of an eta of all but 1, which comes to no new epoch for long


@dataclass(frozen=True)
class Hyperband:
    """W&B's rule, as its `sweeps` package has it, an epoch being an iteration.

    Brackets are min_iter, min_iter * eta, min_iter * eta^2, .., or the `s` epochs max_iter / eta^k, all rounded down;
    beside max_iter, min_iter counts for nothing, and so does `s` without max_iter.
    A run that comes to a bracket is stopped if more than 1 / eta of the runs that have come to it, itself included,
    were better there. Not strict: what is compared with their values at the bracket is its best value so far. (The
    schema has strict as the default, W&B's manual the other; this follows the schema.)

    Optuna's SuccessiveHalvingPruner was not used, for it differs: it lets n // eta of n runs on where W&B lets
    n // eta + 1; its brackets never end, so that `max_iter: 27, s: 2` would also check epochs 27 and 81; eta is
    whole; it compares what was reported last, and asked again after a resume it answers for the next bracket.

    W&B's server looks every few minutes, and again at runs that are past their bracket; here the decision is made
    when a run comes to the bracket, once. Values that are not numbers count as the worst; W&B leaves them out.
    """

    eta: float = 3
    min_iter: int = 1
    max_iter: int | None = None
    s: int = 0
    strict: bool = True

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Hyperband":
        """From what a sweep file says under `early_terminate`."""
        return cls(**{key: _whole(value) for key, value in entry.items() if key != "type"})

    def brackets(self, last: int) -> list[int]:
        """Epochs at which runs are compared, up to epoch `last`."""
        if self.max_iter is not None:
            epochs = set[int]()
            for step in range(1, min(self.s, _MOST_STEPS) + 1):
                if step * math.log(self.eta) > math.log(self.max_iter) + 1:  # before the first epoch from here on
                    break
                epochs.add(int(self.max_iter / self.eta**step))
            return sorted(epoch for epoch in epochs if 1 <= epoch <= last)
        passed, bound = set[int](), float(self.min_iter)
        for _ in range(_BRACKETS):
            if bound >= last + 1:
                break
            passed.add(int(bound))
            bound *= self.eta
        return sorted(passed)

    def stops(self, history: Mapping[int, float], bracket: int, rivals: Sequence[float]) -> bool:
        """Whether a run ends at a bracket.

        Args:
            history: the run's values by epoch, smaller being better.
            bracket: the epoch it has come to.
            rivals: values at the bracket of the other runs that have come to it.
        """
        own = history[bracket]
        if not self.strict:
            own = min(value for epoch, value in history.items() if epoch <= bracket)
        return sum(rival < own for rival in rivals) > (len(rivals) + 1) / self.eta

    def ends(self, own: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
        """Whether W&B's server, which counts what was logged and not epochs, may have ended a run with these values.

        Args:
            own: the run's values in the order in which they were logged, smaller being better.
            others: likewise of each other run of the sweep.
        """
        history = dict(enumerate(own, 1))
        return any(
            self.stops(history, bracket, [values[bracket - 1] for values in others if len(values) >= bracket])
            for bracket in self.brackets(len(own))
        )


def _whole(value: Any) -> Any:
    """The whole number that 3.0 is; anything else as it came."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_stopping(entry: Any, source: Source) -> None:
    """Refuse a mistaken `early_terminate`.

    Raises:
        UserError: names the key, the value and the fix.
    """
    if not isinstance(entry, dict):
        raise source.error((_AT,), "early_terminate must be a mapping; write {type: hyperband, min_iter: 10}")
    if entry.get("type") != "hyperband":
        given = f"type {as_yaml(entry['type'])} is not known" if "type" in entry else "its type is missing"
        raise source.error((_AT,), f"early_terminate: {given}; write {{type: hyperband, min_iter: 10}}")
    for key, value in entry.items():
        if key not in STOPPING_KEYS:
            raise source.error((_AT, key), f'unknown key "{key}" in early_terminate; {suggest(key, STOPPING_KEYS)}')
        if problem := _problem(key, value):
            raise source.error((_AT, key), f"early_terminate: {key} {as_yaml(value)} {problem}")
    if "min_iter" not in entry and not {"max_iter", "s"} <= set(entry):
        raise source.error((_AT,), "hyperband lacks its first check; add min_iter, or max_iter and s")
    if "max_iter" in entry and "s" not in entry:
        problem = "early_terminate: max_iter stands without s, the number of checks before it"
        raise source.error((_AT, "max_iter"), f"{problem}; add s, or keep min_iter alone")
    hyperband = Hyperband.of(entry)
    if hyperband.max_iter is not None and not hyperband.brackets(hyperband.max_iter):
        problem = f"early_terminate: max_iter / eta = {hyperband.max_iter / hyperband.eta:g} is before the first epoch"
        raise source.error((_AT, "max_iter"), f"{problem}; raise max_iter")


def _problem(key: str, value: Any) -> str | None:
    if key in ("min_iter", "max_iter", "s") and not is_count(value):
        return "is no count; write a whole number from 1"
    if key == "eta" and not (is_finite(value) and value > 1):
        return "is no factor above 1; write 3, say"
    if key == "strict" and not isinstance(value, bool):
        return "is neither true nor false; write one of them"
    return None
