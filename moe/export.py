"""The exported model: weights as safetensors, everything else as JSON. Nothing in it is ever unpickled.

model.safetensors   the network without projection head and optimiser
model.json          configuration, channel statistics, class names, checksum of the weights
"""

import json
import struct
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moe.config import DataConfig, ModelConfig
from moe.data.store import sha256
from moe.errors import UserError
from moe.files import replacing
from moe.gates.options import AnyGate
from moe.model import MoE, build_model

WEIGHTS, CARD = "model.safetensors", "model.json"


class ModelCard(BaseModel):
    """What `model.json` holds."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    run_id: str
    seed: int
    epoch: int
    model: ModelConfig
    gate: AnyGate
    data: DataConfig
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    data_digest: str
    sha256: str


def export_model(model: MoE, folder: Path, **card: Any) -> ModelCard:
    """Write a model and its card into a folder.

    Args:
        model: the trained network.
        folder: made if absent.
        card: the fields of ModelCard that the network does not know itself.
    """
    with replacing(folder / WEIGHTS) as weights:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, weights)
        written = ModelCard(model=model.config, gate=model.gate_config, sha256=sha256(weights), **card)
    with replacing(folder / CARD) as file:
        file.write_text(json.dumps(written.model_dump(mode="json"), indent=2) + "\n")
    return written


def load_model(folder: Path) -> tuple[MoE, ModelCard]:
    """Read an exported model, in eval mode on the CPU.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the other.
    """
    try:
        card = ModelCard.model_validate_json((folder / CARD).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no exported model ({CARD} is missing)") from None
    except ValidationError as error:
        raise UserError(f"{folder / CARD} is damaged: {error}") from None
    weights = folder / WEIGHTS
    if not weights.exists() or sha256(weights) != card.sha256:
        raise UserError(f"{weights} is missing or differs from the checksum in {CARD}")
    model = build_model(card.model, card.gate)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, struct.error) as error:
        raise UserError(f"{weights} does not fit the network that {CARD} describes: {error}") from None
    return model.eval(), card
