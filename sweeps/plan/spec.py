"""A sweep: its file read and checked, and the runs it asks for.

The file is a W&B sweep file and nothing else: keys and distributions are those of W&B's published schema
(config/schema.json in its `sweeps` package). Every mistake is one UserError,
`FILE:LINE: what is wrong; the likely fix`.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from moe.config import RunConfig, check_paths, from_flat, parameter_types
from moe.errors import UserError, suggest
from sweeps.plan.distributions import AxisKind, Parameter, draw, extremes
from sweeps.plan.draws import draws, patience, reachable, size
from sweeps.plan.goal import Metric, check_metric, check_stopping
from sweeps.plan.parameters import as_number, as_yaml, flatten, is_count, read_parameter, value_problem
from sweeps.plan.source import Source, find, read

COMMAND = ("${env}", "moe", "train", "${args}")
METHODS = ("grid", "random", "bayes")
_LONGEST_PROJECT = 128  # characters
TEXT_KEYS = ("name", "description", "program", "project", "entity", "job", "image_uri", "apiVersion", "kind")
KEYS = (*TEXT_KEYS, "method", "metric", "parameters", "command", "run_cap", "early_terminate", "controller")
CUSTOM_KEYS = ("metrics", "scheduler")  # valid for W&B, but only with its method: custom
MAX_RUNS = 10_000  # more than anyone trains: a slip in the file, and it would fill the memory
_LONGEST_NAME = 150  # bytes; a file name may have 255, and some have more than the name in theirs
_CHECKED_PAIRS, _CHECKED_DRAWS = 5_000, 50  # combinations of a bayes sweep that are tried before it starts


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file.

    `raw` is the configuration for `wandb.sweep`: the file's own, with nested parameters flattened (its agent
    would pass a group as one argument) and `program` and `command` filled in. `digest` identifies the file's
    parameters; random draws start from it.
    """

    name: str
    source: Source
    method: Literal["grid", "random", "bayes"]
    parameters: Mapping[str, Parameter]
    metric: Metric | None
    run_cap: int | None
    early_terminate: Mapping[str, Any] | None
    raw: dict[str, Any]
    digest: str
    replicate: ClassVar[str] = "seed"  # summarised over, never optimised over

    @property
    def file(self) -> str:
        """The file's name as messages give it."""
        return self.source.file

    @property
    def swept(self) -> tuple[str, ...]:
        """Dotted paths with more than one value, in file order; `seed` too if it has several."""
        return tuple(path for path, parameter in self.parameters.items() if not parameter.fixed)

    @property
    def fixed(self) -> dict[str, Any]:
        """The parameters that have one value, by dotted path in file order."""
        return {path: extremes(parameter)[0] for path, parameter in self.parameters.items() if parameter.fixed}


@dataclass(frozen=True)
class Cell:
    """One run that a sweep asks for: its configuration, the sweep's values in it by path, its id."""

    config: RunConfig
    values: dict[str, Any]
    run_id: str


def load_sweep(spec: str) -> Sweep:
    """The sweep of a file, or of a shipped file by its name with or without `.yaml`; a file that exists wins.

    Raises:
        UserError: for a name that is neither, and for any mistake in the file.
    """
    file, text = find(spec)
    tree, source = read(file, text)
    return _sweep(tree, source)


def restore(name: str, raw: Mapping[str, Any], digest: str) -> Sweep:
    """The sweep again from its name, `raw` and `digest`, for a process that does not have the file."""
    return dataclasses.replace(_sweep(dict(raw), Source(name, {})), name=name, digest=digest)


def _sweep(tree: Any, source: Source) -> Sweep:
    _check_top(tree, source)
    entries = {}
    for path, at, entry in flatten(tree["parameters"], source, ("parameters",)):
        if path in entries:
            raise source.error(at, f'parameter "{path}" is given twice; keep one')
        entries[path] = (at, entry)
    parameters = {
        path: read_parameter(path, at, entry, tree["method"], source) for path, (at, entry) in entries.items()
    }
    flat_entries = {path: entry for path, (_, entry) in entries.items()}
    metric = tree.get("metric")
    return Sweep(
        name=tree.get("name", PurePath(source.file).stem),
        source=source,
        method=tree["method"],
        parameters=parameters,
        metric=Metric(**{key: metric[key] for key in ("name", "goal", "target") if key in metric}) if metric else None,
        run_cap=int(tree["run_cap"]) if "run_cap" in tree else None,
        early_terminate=tree.get("early_terminate"),
        raw={"program": "moe", "command": list(COMMAND)} | tree | {"parameters": flat_entries},
        digest=hashlib.sha256(json.dumps(flat_entries, sort_keys=True, default=str).encode()).hexdigest(),
    )


def with_overrides(sweep: Sweep, overrides: Mapping[str, Any]) -> Sweep:
    """The sweep with some parameters fixed, as `--set KEY=VALUE` asks; new ones are added at the end.

    `digest` stays, so that random draws of the other parameters stay.

    Raises:
        UserError: for an unknown path or a value that its parameter does not take.
    """
    check_paths(overrides, "--set: ")
    fixed = {}
    for path, value in overrides.items():
        fixed[path] = as_number(path, value)
        if problem := value_problem(path, fixed[path]):
            raise UserError(f"--set: {problem}")
    parameters = dict(sweep.parameters) | {path: Parameter("constant", (v,)) for path, v in fixed.items()}
    raw = sweep.raw | {"parameters": sweep.raw["parameters"] | {path: {"value": v} for path, v in fixed.items()}}
    return dataclasses.replace(sweep, parameters=parameters, raw=raw)


def renamed(sweep: Sweep, name: str) -> Sweep:
    """The sweep under another name; its draws stay.

    Raises:
        UserError: no folder can have the name.
    """
    _check_name(name, Source("--name", {}))
    return dataclasses.replace(sweep, name=name, raw=sweep.raw | {"name": name})


def expand(sweep: Sweep, overrides: Mapping[str, Any] = MappingProxyType({})) -> list[Cell]:
    """Every run of a sweep, each once: runs of equal identity (a swept machine setting, say) are merged.

    Grid: the full product in file order, the last parameter varying fastest, cut off at `run_cap`. Random: draws
    until there are `run_cap` different runs, or no others are found; each parameter has its own stream of numbers,
    from the file's digest and its path, so fixing one leaves the others as they were, and a raised `run_cap` adds runs
    to those there are. Bayes: none, since each depends on those before it (`sweeps.plan.search`), but the sweep is
    checked all the same.

    Raises:
        UserError: for what only the W&B server does, a random or bayes sweep without `run_cap`, more than
            MAX_RUNS runs, a mistaken override, a combination that RunConfig refuses.
    """
    sweep = with_overrides(sweep, overrides)
    if sweep.method == "bayes":
        _check_search(sweep)
        return []
    if sweep.method == "random":
        return _drawn(sweep)
    cells: dict[str, Cell] = {}
    for tried, values in enumerate(_product(sweep), start=1):
        one = cell(sweep, values)
        cells.setdefault(one.run_id, one)
        if len(cells) == sweep.run_cap:
            break
        if tried - len(cells) > MAX_RUNS:
            raise _too_many_alike(sweep, MAX_RUNS)
    return list(cells.values())


def _too_many_alike(sweep: Sweep, count: int) -> UserError:
    problem = f"more than {count:,} combinations come to a run that another one has come to"
    return sweep.source.error(("parameters",), f"{problem}; remove parameters that change nothing")


def _product(sweep: Sweep) -> Iterator[dict[str, Any]]:
    # settings of the machine make no run of their own: the first of them stands for all
    choices = [one.choices[: 1 if path.startswith("machine.") else None] for path, one in sweep.parameters.items()]
    _check_size(sweep, math.prod(len(values) for values in choices))
    for values in itertools.product(*choices):
        yield dict(zip(sweep.parameters, values, strict=True))


def _drawn(sweep: Sweep) -> list[Cell]:
    """The first `run_cap` different runs that come up; fewer where there are no more, or none is found for long."""
    most = min(_cap(sweep), size(sweep.parameters))
    cells: dict[str, Cell] = {}
    seen: set[str] = set()
    missed = 0
    for values in draws(sweep.parameters, sweep.digest):
        missed += 1
        if (key := repr(values)) not in seen:
            seen.add(key)
            one = cell(sweep, values)
            missed = missed if one.run_id in cells else 0
            cells.setdefault(one.run_id, one)
        if len(cells) >= most or missed > patience(len(cells)):
            break
        if len(seen) - len(cells) > 3 * MAX_RUNS:
            raise _too_many_alike(sweep, 3 * MAX_RUNS)
    return list(cells.values())


def _cap(sweep: Sweep) -> int:
    if sweep.run_cap is None:
        raise sweep.source.error(("method",), f"method: {sweep.method} has no end of its own; add run_cap: 20, say")
    _check_size(sweep, sweep.run_cap)
    return sweep.run_cap


def _check_size(sweep: Sweep, runs: int) -> None:
    if min(runs, sweep.run_cap or runs) > MAX_RUNS:
        problem = f"the sweep asks for {runs:,} runs, more than {MAX_RUNS:,}; list fewer values or lower run_cap"
        raise sweep.source.error(("run_cap",) if sweep.run_cap else ("parameters",), problem)


def cell(sweep: Sweep, values: dict[str, Any]) -> Cell:
    """The run with these values of the sweep's parameters.

    Raises:
        UserError: RunConfig refuses the combination, or the run would not log the metric that the sweep goes by.
    """
    try:
        config = from_flat(values)
    except UserError as error:
        message = str(error)
    else:
        _check_logged(sweep, config)
        return Cell(config, values, config.identity())
    named = [path for path in values if re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.])", message)]
    swept = [path for path in named or values if path in sweep.swept] or named or list(values)
    shown = ", ".join(f"{path}={as_yaml(values[path])}" for path in swept)
    parameters = [sweep.parameters[path] for path in swept if path in sweep.parameters]
    at = next((parameter.at for parameter in parameters if parameter.at), ("parameters",))
    if len(parameters) == 1 and not parameters[0].values:
        raise sweep.source.error(at, f"{message}, drawn from {parameters[0].distribution}; choose a narrower one")
    fix = "change one so that every combination fits"
    raise sweep.source.error(at, f"{message} in the combination {shown}; {fix}")


def _check_logged(sweep: Sweep, config: RunConfig) -> None:
    """Refuse a metric that this run does not log, if the sweep is steered by it."""
    steered = sweep.method == "bayes" or sweep.early_terminate is not None
    if sweep.metric and steered and (problem := sweep.metric.problem(config)):
        raise sweep.source.error(("metric", "name"), problem)


# --- bayes -------------------------------------------------------------------------------------------------


def replicates(sweep: Sweep) -> list[int]:
    """The seeds that every suggestion of a bayes sweep is run with; 0 if the file does not say.

    Raises:
        UserError: the seed has a distribution, which would be a search for a lucky one.
    """
    parameter = sweep.parameters.get(sweep.replicate)
    if parameter is None:
        return [RunConfig().seed]
    if parameter.kind.axis is AxisKind.LIST and parameter.probabilities is None:
        return list(parameter.choices)
    problem = f"{sweep.replicate}: {parameter.distribution} does not go with method: bayes, which runs every suggestion"
    raise sweep.source.error(parameter.at, f"{problem} with every seed; write values: [0, 1]")


def budget(sweep: Sweep) -> int:
    """Number of suggestions of a bayes sweep, each run with every seed: `run_cap` counts runs.

    Raises:
        UserError: there is no `run_cap`, or it does not cover one suggestion.
    """
    cap, seeds = _cap(sweep), len(replicates(sweep))
    if cap < seeds:
        problem = f"run_cap={cap} does not cover one suggestion, which is run with {seeds} seeds"
        raise sweep.source.error(("run_cap",), f"{problem}; write {seeds} or more")
    return cap // seeds


def _check_search(sweep: Sweep) -> None:
    """Refuse a bayes sweep with parts that Optuna cannot honour, or with combinations that cannot run."""
    budget(sweep)
    for key in ("impute", "impute_while_running"):
        if sweep.raw["metric"].get(key, "false") not in ("false", False):
            problem = f"{key} is not supported by the local backend: failed runs are left out of the search"
            raise sweep.source.error(("metric", key), f"{problem}; remove it")
    for path, parameter in sweep.parameters.items():
        if parameter.probabilities is not None:
            problem = f"{path}: probabilities do not go with method: bayes, which learns them"
            raise sweep.source.error((*parameter.at, "probabilities"), f"{problem}; remove them or use random")
    if not set(sweep.swept) - {sweep.replicate}:
        problem = "method: bayes has nothing to choose: every parameter but seed has one value; list several"
        raise sweep.source.error(("parameters",), problem)
    for values in samples(sweep):
        cell(sweep, values)


def samples(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Combinations that a search may come to: each two parameters at their extremes, the others central; some draws."""
    parameters = searched(sweep)
    central = {path: draw(parameter, 0.5) for path, parameter in parameters.items()}
    ends = [[(path, value) for value in extremes(parameter)] for path, parameter in parameters.items()]
    pairs = (pair for two in itertools.combinations(ends, min(2, len(ends))) for pair in itertools.product(*two))
    for pair in itertools.islice(pairs, _CHECKED_PAIRS):
        yield central | dict(pair)
    yield from itertools.islice(reachable(parameters, sweep.digest), _CHECKED_DRAWS)


def example(sweep: Sweep) -> dict[str, Any]:
    """Values that a suggestion of a bayes sweep may have; `expand` has tried them together."""
    return next(samples(sweep))


def searched(sweep: Sweep) -> dict[str, Parameter]:
    """The parameters of a bayes sweep that make up a suggestion: all but the seed."""
    return {path: parameter for path, parameter in sweep.parameters.items() if path != sweep.replicate}


# --- top level ---------------------------------------------------------------------------------------------


def _check_top(tree: Any, source: Source) -> None:
    if tree is None:
        raise source.error((), "the file is empty; start with method: and parameters:")
    if not isinstance(tree, dict):
        raise source.error((), "the file is not a mapping; start with method: and parameters:")
    for key, value in tree.items():
        _check_key(key, value, source)
    for key, example in (("method", "method: grid"), ("parameters", "parameters: {seed: {values: [0, 1]}}")):
        if key not in tree:
            raise source.error((), f"{key} is missing; add {example}")
    if tree["method"] not in METHODS:
        raise source.error(
            ("method",), f"unknown method {as_yaml(tree['method'])}; {suggest(str(tree['method']), METHODS)}"
        )
    if not (isinstance(tree["parameters"], dict) and tree["parameters"]):
        raise source.error(("parameters",), "parameters has no entries; write for example seed: {values: [0, 1]}")
    cap = tree.get("run_cap", 1)
    if not is_count(cap):
        raise source.error(("run_cap",), f"run_cap={as_yaml(cap)} is no number of runs; write a whole number from 1")
    _check_name(tree.get("name", PurePath(source.file).stem), source)
    if "early_terminate" in tree:
        check_stopping(tree["early_terminate"], source)
    _check_metric(tree, source)
    _check_command(tree.get("command", list(COMMAND)), source)


def _check_name(name: str, source: Source) -> None:
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        problem = f"the name has {len(name)} characters, more than a folder's may have"
        raise source.error(("name",), f"{problem}; write a shorter one")
    if not re.fullmatch(r"\w[\w .+-]*", name):
        problem = f"name {as_yaml(name)} cannot name a folder; use letters, digits, dots and hyphens"
        raise source.error(("name",), problem)


def _check_key(key: str, value: Any, source: Source) -> None:
    if key in CUSTOM_KEYS:
        raise source.error((key,), f'"{key}" needs W&B\'s method: custom, which moe does not run; remove it')
    if key not in KEYS:
        moved = key in parameter_types()
        raise source.error(
            (key,), f'unknown key "{key}"; ' + ("move it under parameters" if moved else suggest(key, KEYS))
        )
    if key in TEXT_KEYS and not isinstance(value, str):
        raise source.error((key,), f"{key} must be text; put the value in quotes")
    if key == "project" and (set(value) & set("/\\#?%:") or len(value) > _LONGEST_PROJECT):
        problem = f'W&B takes no project "{value:.200}"; up to {_LONGEST_PROJECT} characters, none of / \\ # ? % :'
        raise source.error((key,), problem)


def _check_metric(tree: dict[str, Any], source: Source) -> None:
    if "metric" not in tree:
        askers = {"early_terminate": "early_terminate" in tree, "method": tree["method"] == "bayes"}
        for key in (key for key, asks in askers.items() if asks):
            name = "method: bayes" if key == "method" else key
            problem = f"{name} needs a metric; add metric: {{name: val/loss, goal: minimize}}"
            raise source.error((key,), problem)
        return
    check_metric(tree["metric"], source)


def _check_command(command: Any, source: Source) -> None:
    words = [str(word) for word in command] if isinstance(command, list) else []
    names = [PurePath(word).name for word in words]
    launches = "moe" in names and "train" in names[names.index("moe") :]
    if not (launches and words[-1] == "${args}"):
        raise source.error(("command",), f"command does not launch moe train; write command: {json.dumps(COMMAND)}")
