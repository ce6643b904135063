"""What training does differently by device and precision, decided here and nowhere else.

All are functions of their arguments (and `device_type` of what the machine has), so that what a GPU does is tested on
a CPU: a test asks for a GPU's choice and lets it train with Lightning's plugin and a gradient scaler on the CPU.
"""

from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

from moe.config import MachineConfig, TrainConfig
from moe.errors import UserError


def device_type(machine: MachineConfig) -> str:
    """The device that trains: cpu, cuda or mps.

    Raises:
        UserError: `machine.device` names one that is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if machine.device == "auto":
        return next(name for name, present in here.items() if present)
    if not here[machine.device]:
        raise UserError(
            f"machine.device={machine.device}: torch {torch.__version__} finds no such device on this machine; "
            "machine.device=auto takes what there is (`moe doctor` lists it)"
        )
    return machine.device


def precision_plugin(device: str, train: TrainConfig) -> Precision:
    """How Lightning carries out `train.precision`.

    A CPU computes ``16-mixed`` as ``bf16-mixed``: bfloat16 is the half precision that processors compute in, and it
    needs no gradient scaler.
    """
    if train.precision == "32-true":
        return Precision()
    return MixedPrecision("bf16-mixed" if device == "cpu" else train.precision, device)


def adam_options(device: str, plugin: Precision) -> dict[str, Any]:
    """Which of torch's implementations of Adam trains, as keyword arguments.

    On a GPU the fused one, a single kernel for all weights. With a gradient scaler `foreach`: a fused step divides
    the gradients by the scale itself, so that they cannot be clipped before it, and Lightning refuses the pair at the
    first step. Elsewhere torch's own choice.
    """
    if device != "cuda":
        return {}
    return {"foreach": True} if has_scaler(plugin) else {"fused": True}


def has_scaler(plugin: Precision) -> bool:
    """Whether the loss is multiplied by a gradient scaler, as float16 needs it."""
    return getattr(plugin, "scaler", None) is not None
