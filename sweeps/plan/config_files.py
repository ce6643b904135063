"""A RunConfig from a file and from KEY=VALUE words."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moe.config import RunConfig, from_flat, parameter_types, parse_assignments
from moe.errors import UserError
from sweeps.plan.parameters import as_number, value_problem
from sweeps.plan.source import Keys, read, text_of


def run_config(file: Path | None, assignments: list[str]) -> RunConfig:
    """The configuration of a file (YAML or JSON) with assignments laid over it, checked like a sweep's values.

    Raises:
        UserError: the file is missing or no mapping, or a value does not fit.
    """
    given = {path: as_number(path, value) for path, value in parse_assignments(assignments).items()}
    for path, value in given.items():
        if problem := value_problem(path, value):
            raise UserError(problem)
    if file is None:
        return from_flat(given)
    return from_flat(given, _read(file), where=f"{file}: " if not assignments else "")


def _read(file: Path) -> dict[str, Any]:
    text = text_of(str(file))
    if not text.strip():
        return {}
    tree, source = read(str(file), text)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{file} must hold settings by section, like `model: {{experts: 8}}`")
    known = parameter_types()
    sections = {path.partition(".")[0] for path in known if "." in path}
    tree = {key: value for key, value in tree.items() if not (key in sections and value is None)}
    for at, value in _leaves(tree):
        path = ".".join(at)
        if path in known and any("." in key for key in at):
            section, _, name = path.rpartition(".")
            raise source.error(at, f"settings stand by section here; write {section}: {{{name}: ..}} for {path}")
        # JSON's 1e-06 is text in YAML
        if path in known and (problem := value_problem(path, as_number(path, value))):
            raise source.error(at, problem)
    return tree


def _leaves(tree: Mapping[str, Any], at: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, key))
        else:
            yield (*at, key), value
