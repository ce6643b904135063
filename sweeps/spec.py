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

import numpy as np

from moe.config import RunConfig, check_paths, from_flat, parameter_types
from moe.errors import UserError, suggest
from sweeps.draws import QUANTILES
from sweeps.parameters import Parameter, as_number, as_yaml, flatten, read_parameter, value_problem
from sweeps.source import Source, find, read

COMMAND = ("${env}", "moe", "train", "${args}")
METHODS = ("grid", "random", "bayes")
TEXT_KEYS = ("name", "description", "program", "project", "entity", "job", "image_uri", "apiVersion", "kind")
KEYS = (*TEXT_KEYS, "method", "metric", "parameters", "command", "run_cap", "early_terminate", "controller")
CUSTOM_KEYS = ("metrics", "scheduler")  # valid for W&B, but only with its method: custom
METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
STOP_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
MAX_RUNS = 10_000  # more than anyone trains: a slip in the file, and it would fill the memory


@dataclass(frozen=True)
class Metric:
    """What bayes and early termination look at."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"


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
    def fixed(self) -> tuple[str, ...]:
        """Dotted paths with one value, in file order."""
        return tuple(path for path, parameter in self.parameters.items() if parameter.fixed)


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
        name=tree.get("name", PurePath(file).stem),
        source=source,
        method=tree["method"],
        parameters=parameters,
        metric=Metric(metric["name"], metric.get("goal", "minimize")) if metric else None,
        run_cap=tree.get("run_cap"),
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


def expand(sweep: Sweep, overrides: Mapping[str, Any] = MappingProxyType({})) -> list[Cell]:
    """Every run of a sweep, each once: runs of equal identity (a swept machine setting, say) are merged.

    Grid: the full product in file order, the last parameter varying fastest, cut off at `run_cap`. Random:
    `run_cap` draws; each parameter has its own stream of numbers, from the file's digest and its path, so
    fixing one leaves the others as they were, and a raised `run_cap` adds runs to those there are.

    Raises:
        UserError: for a method or distribution that only the W&B server runs, a random sweep without
            `run_cap`, more than MAX_RUNS runs, a mistaken override, a combination that RunConfig refuses.
    """
    sweep = with_overrides(sweep, overrides)
    if sweep.method == "bayes":
        problem = "method: bayes is not supported by the local backend yet; use grid or random"
        raise sweep.source.error(("method",), problem)
    combinations = _draws(sweep) if sweep.method == "random" else _product(sweep)
    cells: dict[str, Cell] = {}
    for values in combinations:
        cell = _cell(sweep, values)
        cells.setdefault(cell.run_id, cell)
        if len(cells) == sweep.run_cap:
            break
    return list(cells.values())


def _product(sweep: Sweep) -> Iterator[dict[str, Any]]:
    _check_size(sweep, math.prod(len(parameter.values) for parameter in sweep.parameters.values()))
    for values in itertools.product(*(parameter.values for parameter in sweep.parameters.values())):
        yield dict(zip(sweep.parameters, values, strict=True))


def _draws(sweep: Sweep) -> Iterator[dict[str, Any]]:
    if sweep.run_cap is None:
        raise sweep.source.error(("method",), "method: random has no end of its own; add run_cap: 20, say")
    _check_size(sweep, sweep.run_cap)
    columns = []
    for path, parameter in sweep.parameters.items():
        quantile = QUANTILES.get(parameter.distribution)
        if quantile is None:
            problem = f"{path}: {parameter.distribution} is not supported by the local backend in this version"
            raise sweep.source.error((*parameter.at, "distribution"), f"{problem}; use one of {', '.join(QUANTILES)}")
        seed = hashlib.sha256(f"{sweep.digest}/{path}".encode()).digest()
        uniform = np.random.default_rng(int.from_bytes(seed)).random(sweep.run_cap).tolist()
        columns.append([quantile(parameter, u) for u in uniform])
    for values in zip(*columns, strict=True):
        yield dict(zip(sweep.parameters, values, strict=True))


def _check_size(sweep: Sweep, runs: int) -> None:
    if min(runs, sweep.run_cap or runs) > MAX_RUNS:
        problem = f"the sweep asks for {runs:,} runs, more than {MAX_RUNS:,}; list fewer values or lower run_cap"
        raise sweep.source.error(("run_cap",) if sweep.run_cap else ("parameters",), problem)


def _cell(sweep: Sweep, values: dict[str, Any]) -> Cell:
    try:
        config = from_flat(values)
    except UserError as error:
        message = str(error)
    else:
        return Cell(config, values, config.identity())
    named = [path for path in values if re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.])", message)]
    swept = [path for path in named or values if path in sweep.swept] or named or list(values)
    shown = ", ".join(f"{path}={as_yaml(values[path])}" for path in swept)
    at = next((sweep.parameters[path].at for path in swept if sweep.parameters[path].at), ("parameters",))
    if len(swept) == 1 and not (parameter := sweep.parameters[swept[0]]).values:
        raise sweep.source.error(at, f"{message}, drawn from {parameter.distribution}; choose a narrower one")
    fix = "change one so that every combination fits"
    raise sweep.source.error(at, f"{message} in the combination {shown}; {fix}")


# --- top level ---------------------------------------------------------------------------------------------


def _check_top(tree: Any, source: Source) -> None:
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
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise source.error(("run_cap",), f"run_cap={as_yaml(cap)} is no number of runs; write a whole number from 1")
    if not re.fullmatch(r"\w[\w .+-]*", tree.get("name", "x")):
        problem = f"name {as_yaml(tree['name'])} cannot name a folder; use letters, digits, dots and hyphens"
        raise source.error(("name",), problem)
    _check_stopping(tree, source)
    _check_metric(tree, source)
    _check_command(tree.get("command", list(COMMAND)), source)


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


def _check_stopping(tree: dict[str, Any], source: Source) -> None:
    stop = tree.get("early_terminate")
    if "early_terminate" in tree and not (isinstance(stop, dict) and stop.get("type") == "hyperband"):
        raise source.error(
            ("early_terminate",), "early_terminate must be a mapping; write {type: hyperband, min_iter: 10}"
        )
    for key in stop or ():
        if key not in STOP_KEYS:
            problem = f'unknown key "{key}" in early_terminate; {suggest(key, STOP_KEYS)}'
            raise source.error(("early_terminate", key), problem)
    if stop and "min_iter" not in stop and not {"max_iter", "s"} <= set(stop):
        raise source.error(("early_terminate",), "hyperband lacks its first check; add min_iter, or max_iter and s")


def _check_metric(tree: dict[str, Any], source: Source) -> None:
    if "metric" not in tree:
        askers = {"early_terminate": "early_terminate" in tree, "method": tree["method"] == "bayes"}
        for key in (key for key, asks in askers.items() if asks):
            name = "method: bayes" if key == "method" else key
            problem = f"{name} needs a metric; add metric: {{name: val/loss, goal: minimize}}"
            raise source.error((key,), problem)
        return
    metric = tree["metric"]
    if not (isinstance(metric, dict) and isinstance(metric.get("name"), str)):
        raise source.error(("metric",), "metric needs a name; write metric: {name: val/loss, goal: minimize}")
    for key in metric:
        if key not in METRIC_KEYS:
            raise source.error(("metric", key), f'unknown key "{key}" in metric; {suggest(key, METRIC_KEYS)}')
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise source.error(("metric", "goal"), f"unknown goal {as_yaml(metric['goal'])}; write minimize or maximize")


def _check_command(command: Any, source: Source) -> None:
    words = [str(word) for word in command] if isinstance(command, list) else []
    names = [PurePath(word).name for word in words]
    launches = "moe" in names and "train" in names[names.index("moe") :]
    if not (launches and words[-1] == "${args}"):
        raise source.error(("command",), f"command does not launch moe train; write command: {json.dumps(COMMAND)}")
