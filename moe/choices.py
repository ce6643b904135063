"""What can be chosen by name in a run: gates, objectives, balancing losses, with their options and defaults."""

import json
from typing import Any

from pydantic.fields import FieldInfo

from moe.balancing.options import BALANCING
from moe.errors import unknown
from moe.gates.options import GATES
from moe.objectives.options import OBJECTIVES, LossConfig
from moe.registry import Registry

KINDS: dict[str, Registry[Any]] = {"gates": GATES, "objectives": OBJECTIVES, "losses": BALANCING}


def listing(kind: str) -> dict[str, Any]:
    """Everything of a kind, and the plugins that cannot be loaded, as plain JSON types.

    Args:
        kind: a key of KINDS.

    Returns:
        ``{kind: [{"name", "about", "chosen_by", "options": [{"name", "default", "about"}]}], "broken": {name: why}}``;
        names of options are dotted paths.

    Raises:
        UserError: no such kind.
    """
    if kind not in KINDS:
        raise unknown("list", kind, KINDS)
    registry = KINDS[kind]
    return {kind: [_shown(kind, name, config) for name, config in registry.usable().items()],
            "broken": registry.broken()}  # fmt: skip


def _shown(kind: str, name: str, config: Any) -> dict[str, Any]:
    if kind == "losses":
        whole = OBJECTIVES["contrastive"].model_fields
        fields = {f"loss.{name}_weight": whole[f"{name}_weight"]}
        fields |= {f"loss.{name}_{option}": field for option, field in config.model_fields.items()}
        chosen_by = f"loss.{name}_weight above 0"
    else:
        shared = LossConfig.model_fields if kind == "objectives" else {}
        fields = {
            f"{config.section}.{option}": field for option, field in config.offered().items() if option not in shared
        }
        chosen_by = f"{config.section}.{config.choice}={name}"
    return {
        "name": name,
        "about": " ".join((config.__doc__ or "").split()),
        "chosen_by": chosen_by,
        "options": [_option(path, field) for path, field in fields.items()],
    }


def _option(path: str, field: FieldInfo) -> dict[str, Any]:
    return {"name": path, "default": json.dumps(field.default), "about": field.description or ""}
