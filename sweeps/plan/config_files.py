"""A RunConfig from a file and from KEY=VALUE words."""

from pathlib import Path
from typing import Any

import yaml

from moe.config import RunConfig, from_flat, parse_assignments
from moe.errors import UserError


def run_config(file: Path | None, assignments: list[str]) -> RunConfig:
    """The configuration of a file (YAML or JSON) with assignments laid over it.

    Raises:
        UserError: the file is missing or no mapping, or a value does not fit.
    """
    base: dict[str, Any] = {}
    if file is not None:
        try:
            base = yaml.safe_load(file.read_text()) or {}
        except FileNotFoundError:
            raise UserError(f"the config file {file} does not exist") from None
        except yaml.YAMLError as error:
            raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(base, dict):
            raise UserError(f"{file} must hold settings by section, like `model: {{experts: 8}}`")
    return from_flat(parse_assignments(assignments), base, where=f"{file}: " if file and not assignments else "")
