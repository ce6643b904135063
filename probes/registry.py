"""Probes by name: those that come along, and those that other packages bring by the entry point "moe.probes".

[project.entry-points."moe.probes"]
curvature = "my_package.curvature:CurvatureProbe"
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from inspect import isabstract
from typing import Any

import yaml
from pydantic import ValidationError

from moe.errors import UserError, suggest, unknown
from probes.probe import Probe
from probes.suite.animacy_probe import AnimacyProbe
from probes.suite.coupling_probe import CouplingProbe
from probes.suite.exciting_probe import ExcitingProbe
from probes.suite.routing_probe import RoutingProbe
from probes.suite.separability_probe import SeparabilityProbe
from probes.suite.similarity_probe import SimilarityProbe
from probes.suite.tuning_probe import TuningProbe

GROUP = "moe.probes"

PROBES: dict[str, type[Probe]] = {
    "routing": RoutingProbe,
    "exciting": ExcitingProbe,
    "coupling": CouplingProbe,
    "animacy": AnimacyProbe,
    "tuning": TuningProbe,
    "separability": SeparabilityProbe,
    "similarity": SimilarityProbe,
}


@dataclass(frozen=True)
class Registry:
    """What can be asked for.

    Attributes:
        probes: name -> class, ours first.
        broken: name -> why it cannot be used, of plugins that could not be taken in.
    """

    probes: dict[str, type[Probe]]
    broken: dict[str, str]


@cache
def registry() -> Registry:
    """All probes. A plugin that cannot be loaded is named and hinders no other."""
    probes, broken = dict(PROBES), dict[str, str]()
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        source = f"{entry.value} of {entry.dist.name}" if entry.dist else entry.value
        try:
            probes[entry.name] = _checked(entry.load(), entry.name, probes)
        except Exception as error:  # noqa: BLE001 - other people's code may fail in any way
            broken[entry.name] = f"{source}: {type(error).__name__}: {error}"
    return Registry(probes, broken)


def _checked(loaded: Any, name: str, taken: dict[str, type[Probe]]) -> type[Probe]:
    if name in taken:
        raise UserError(f"the name {name} is taken by {taken[name].__module__}.{taken[name].__name__}")
    if not (isinstance(loaded, type) and issubclass(loaded, Probe)) or isabstract(loaded):
        raise UserError("it is no subclass of probes.probe.Probe with a method `run`")
    missing = [field for field, info in loaded.model_fields.items() if info.is_required()]
    if missing:
        raise UserError(f"its option {missing[0]} has no default")
    return loaded


def listing() -> dict[str, Any]:
    """Every probe with its options and defaults, and the plugins that cannot be loaded, as plain JSON types."""
    known = registry()
    return {
        "probes": [
            {"name": name, "about": probe.about, "options": _options(name, probe)}
            for name, probe in known.probes.items()
        ],
        "broken": known.broken,
    }


def _options(name: str, probe: type[Probe]) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{name}.{option}",
            "default": json.dumps(default),
            "about": probe.model_fields[option].description or "",
        }
        for option, default in probe().options().items()
    ]


def chosen(names: Sequence[str] | None, assignments: Sequence[str] | None = None) -> dict[str, Probe]:
    """The probes named, or all, with their options.

    Args:
        names: names in `registry()`; None or none: all that can be loaded.
        assignments: options as ``probe.option=value``, the value in YAML.

    Raises:
        UserError: a name that is no probe or a broken plugin, or an option that its probe does not take.
    """
    known = registry()
    for name in names or []:
        if name in known.broken and name not in known.probes:
            raise UserError(f'the probe "{name}" cannot be loaded ({known.broken[name]})')
        if name not in known.probes:
            raise unknown("probe", name, known.probes)
    wanted = list(dict.fromkeys(names)) if names else list(known.probes)
    options = _by_probe(assignments or [], known, wanted)
    return {name: _with_options(name, known.probes[name], options.get(name, {})) for name in wanted}


def _by_probe(assignments: Sequence[str], known: Registry, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    paths = [f"{name}.{option}" for name, probe in known.probes.items() for option in probe.model_fields]
    values: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f'"{assignment}" is not PROBE.OPTION=VALUE, for example tuning.standardize=false')
        if path not in paths:
            raise UserError(f'unknown option "{path}": {suggest(path, paths)}')
        name, _, option = path.partition(".")
        if name not in wanted:
            raise UserError(f"{path} is set, but {name} is not among the probes asked for; add `--probe {name}`")
        try:
            values.setdefault(name, {})[option] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f'"{assignment}": {text} is not a value in YAML; check its brackets and quotes') from None
    return values


def _with_options(name: str, kind: type[Probe], options: dict[str, Any]) -> Probe:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join([name, *(str(part) for part in first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}={first['input']!r}: {message[:1].lower()}{message[1:]}") from None
