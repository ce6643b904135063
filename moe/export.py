"""The exported model: weights as safetensors, everything else as JSON. Nothing in it is ever unpickled.

model.safetensors   the network without projection head and optimiser
model.json          configuration, channel statistics, class names, checksum of the weights
"""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from moe.config import DataConfig, ModelConfig
from moe.data.preparation import Preparation
from moe.data.store import sha256
from moe.errors import UserError
from moe.files import content, replacing
from moe.gates.options import AnyGate
from moe.model import MoE, build_model
from moe.section import sentence

WEIGHTS, CARD = "model.safetensors", "model.json"
_MISFITS = (SafetensorError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, struct.error)


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

    @property
    def preparation(self) -> Preparation:
        """Of images for it."""
        return Preparation(self.data.image_size, self.mean, self.sd)


def export_model(model: MoE, folder: Path, **card: Any) -> ModelCard:
    """Write a model and its card into a folder.

    Args:
        model: the trained network.
        folder: made if absent.
        card: the fields of ModelCard that the network does not know itself.
    """
    with replacing(folder / WEIGHTS) as weights:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        weights.write_bytes(save(tensors))  # not by `save_file`, whose error on a full disk is no system's
        written = ModelCard(model=model.config, gate=model.gate_config, sha256=sha256(weights), **card)
    with replacing(folder / CARD) as file:
        file.write_text(json.dumps(written.model_dump(mode="json"), indent=2) + "\n")
    return written


def read_card(folder: Path) -> ModelCard:
    """What an exported model is, its weights unread.

    Raises:
        UserError: the card is missing or damaged.
    """
    try:
        return ModelCard.model_validate_json(content(folder / CARD))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no exported model ({CARD} is missing)") from None
    except OSError as error:
        raise UserError(f"{folder / CARD} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{folder / CARD} is damaged: {sentence(error)}") from None
    except ValueError as error:
        raise UserError(f"{folder / CARD} is damaged: {error}") from None


def load_model(folder: Path) -> tuple[MoE, ModelCard]:
    """Read an exported model, in eval mode on the CPU.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the other.
    """
    card = read_card(folder)
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256(weights) != card.sha256:
        raise UserError(f"{weights} is missing or differs from the checksum in {CARD}")
    try:
        _check_fits(card, weights)
        model = build_model(card.model, card.gate)
        model.load_state_dict(load_file(weights))
    except _MISFITS as error:
        raise UserError(f"{weights} does not fit the network that {CARD} describes: {error}") from None
    return model.eval(), card


def _check_fits(card: ModelCard, weights: Path) -> None:
    """Compare names and shapes before memory is taken: a card may describe any network, a file is as large as it is.

    Raises:
        ValueError: they differ.
    """
    with safe_open(weights, framework="pt") as file:
        there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    if card.model.experts > len(there):
        raise ValueError(f"{card.model.experts} experts have more than {len(there)} tensors")
    with torch.device("meta"):
        described = build_model(card.model, card.gate).state_dict()
    needed = {name: tuple(tensor.shape) for name, tensor in described.items()}
    for name in sorted(needed.keys() ^ there.keys()):
        raise ValueError(f"{name} is {'missing' if name in needed else 'not part of it'}")
    for name, shape in needed.items():
        if there[name] != shape:
            raise ValueError(f"{name} has shape {list(there[name])}, not {list(shape)}")
