"""Probes by name: those that come along, and those that other packages bring by the entry point "moe.probes".

[project.entry-points."moe.probes"]
curvature = "my_package.curvature:CurvatureProbe"
"""

import json
from collections.abc import Mapping, Sequence
from inspect import isabstract
from typing import Any

from pydantic import ValidationError

from moe.config import assigned
from moe.errors import UserError, suggest
from moe.registry import Registry
from moe.section import sentence
from probes.probe import Probe


def _checked(loaded: Any, name: str) -> type[Probe]:  # noqa: ARG001
    if not (isinstance(loaded, type) and issubclass(loaded, Probe)) or isabstract(loaded):
        raise UserError("it is no subclass of probes.probe.Probe with a method `run`")
    missing = [field for field, info in loaded.model_fields.items() if info.is_required()]
    if missing:
        raise UserError(f"its option {missing[0]} has no default")
    return loaded


PROBES = Registry(
    "probe",
    "moe.probes",
    {
        "routing": "probes.suite.routing_probe:RoutingProbe",
        "exciting": "probes.suite.exciting_probe:ExcitingProbe",
        "coupling": "probes.suite.coupling_probe:CouplingProbe",
        "animacy": "probes.suite.animacy_probe:AnimacyProbe",
        "tuning": "probes.suite.tuning_probe:TuningProbe",
        "separability": "probes.suite.separability_probe:SeparabilityProbe",
        "similarity": "probes.suite.similarity_probe:SimilarityProbe",
        "geometry": "probes.suite.geometry_probe:GeometryProbe",
        "claims": "probes.suite.claims_probe:ClaimsProbe",
    },
    _checked,
)


def listing() -> dict[str, Any]:
    """Every probe with its options and defaults, and the plugins that cannot be loaded, as plain JSON types."""
    return {
        "probes": [
            {"name": name, "about": probe.about, "options": _options(name, probe)}
            for name, probe in PROBES.usable().items()
        ],
        "broken": PROBES.broken(),
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
        names: names in PROBES; None or none: all that can be loaded.
        assignments: options as ``probe.option=value``, the value in YAML.

    Raises:
        UserError: a name that is no probe or a broken plugin, or an option that its probe does not take.
    """
    wanted = {name: PROBES[name] for name in names} if names else PROBES.usable()
    options = _by_probe(assignments or [], wanted)
    return {name: _with_options(name, probe, options.get(name, {})) for name, probe in wanted.items()}


def _by_probe(assignments: Sequence[str], wanted: Mapping[str, type[Probe]]) -> dict[str, dict[str, Any]]:
    paths = [f"{name}.{option}" for name, probe in PROBES.usable().items() for option in probe.model_fields]
    values: dict[str, dict[str, Any]] = {}
    for path, value in assigned(assignments, "PROBE.OPTION=VALUE, for example tuning.standardize=false").items():
        if path not in paths:
            raise UserError(f'unknown option "{path}": {suggest(path, paths)}')
        name, _, option = path.partition(".")
        if name not in wanted:
            raise UserError(f"{path} is set, but {name} is not among the probes asked for; add `--probe {name}`")
        values.setdefault(name, {})[option] = value
    return values


def _with_options(name: str, kind: type[Probe], options: dict[str, Any]) -> Probe:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise UserError(sentence(error, name)) from None
