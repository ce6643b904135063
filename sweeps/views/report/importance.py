"""Which swept parameter matters for a number: functional ANOVA over a sweep's runs (Hutter et al. 2014), by Optuna."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sweeps.plan.spec import Sweep
from sweeps.runs.files import unless_damaged
from sweeps.views.compare import Comparison, run_numbers

LEAST_RUNS = 12  # below, a forest over them says nothing
_MOST_COLUMNS = 6
_TREES = 32
_MANY = 10  # values of a number beyond which it counts as continuous


def importance(comparison: Comparison) -> dict[str, Any] | None:
    """Shares of the variance of the comparison's columns over runs, by swept parameter and seed.

    Returns:
        ``runs`` and ``least`` (runs there are, and are needed), ``parameters`` (the seed among them), ``columns`` and
        ``shares`` (columns x parameters, each row summing to 1; empty where there are too few runs), ``chance`` (the
        shares that noise would have); None where at most one parameter was swept.
    """
    if len(comparison.parameters) < 2:
        return None
    runs = [(group.values | {Sweep.replicate: run.config.seed}, run_numbers(run)) for group in comparison.groups
            for run in group.runs if unless_damaged(partial(getattr, run, "config"), None) is not None]  # fmt: skip
    names = [name for name in [*comparison.parameters, Sweep.replicate] if len({repr(v[name]) for v, _ in runs}) > 1]
    found: dict[str, Any] = {"runs": len(runs), "least": LEAST_RUNS, "parameters": names, "columns": [], "shares": []}
    found["chance"] = chance_shares([values for values, _ in runs], names)
    if len(runs) < LEAST_RUNS or len(names) < 2:
        return found
    for column in comparison.columns[:_MOST_COLUMNS]:
        known = [(values, numbers[column]) for values, numbers in runs if column in numbers]
        if len(known) >= LEAST_RUNS and len({number for _, number in known}) > 1:
            shares = variance_shares([values for values, _ in known], [number for _, number in known], names)
            found["columns"].append(column)
            found["shares"].append([round(shares.get(name, 0.0), 3) for name in names])
    return found


def chance_shares(points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[float]:
    """What each parameter would get of noise, in a full grid: as many parts as it has values, less one."""
    parts = [len({repr(point[name]) for point in points}) - 1 for name in names]
    return [round(part / sum(parts), 3) for part in parts]


def variance_shares(
    points: Sequence[Mapping[str, Any]], results: Sequence[float], names: Sequence[str]
) -> dict[str, float]:
    """Share of the results' variance that goes with each parameter alone, over their sum.

    Args:
        points: the parameters' values of each run.
        results: a number of each run.
        names: parameters, each with two or more values.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {name: _distribution([point[name] for point in points]) for name in names}
    kinds = {name: kind for name, kind in kinds.items() if not kind.single()}
    study = optuna.create_study()
    for point, result in zip(points, results, strict=True):
        values = {name: _value(point[name], kind) for name, kind in kinds.items()}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=kinds, value=result))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    distinct = list(dict.fromkeys(values if all(_is_number(v) for v in values) else map(str, values)))
    if len(distinct) > _MANY and all(_is_number(value) for value in distinct):
        return FloatDistribution(float(min(distinct)), float(max(distinct)))
    return CategoricalDistribution([str(value) for value in distinct])


def _value(value: Any, kind: Any) -> Any:
    return float(value) if not hasattr(kind, "choices") else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
