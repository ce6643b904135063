"""Choices by device and precision, as a table; tests/sweeps/training/test_precision.py lets them train."""

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch.amp import GradScaler
from torch.optim import Adam

from moe.config import MachineConfig, TrainConfig
from moe.errors import UserError
from moe.hardware import adam_options, device_type, precision_plugin


@pytest.mark.parametrize(
    ("device", "precision", "computed", "scaled"),
    [
        ("cpu", "32-true", "32-true", False),
        ("cpu", "16-mixed", "bf16-mixed", False),
        ("cpu", "bf16-mixed", "bf16-mixed", False),
        ("cuda", "32-true", "32-true", False),
        ("cuda", "bf16-mixed", "bf16-mixed", False),
        ("mps", "bf16-mixed", "bf16-mixed", False),
    ],
)
def test_the_plugin_of_a_device_and_a_precision(device, precision, computed, scaled):
    plugin = precision_plugin(device, TrainConfig(precision=precision))
    assert plugin.precision == computed
    assert (getattr(plugin, "scaler", None) is not None) == scaled
    assert getattr(plugin, "device", device) == device


@pytest.mark.parametrize(
    ("device", "plugin", "expected"),
    [
        ("cpu", Precision(), {}),
        ("cpu", MixedPrecision("bf16-mixed", "cpu"), {}),
        ("mps", Precision(), {}),
        ("cuda", Precision(), {"fused": True}),
        ("cuda", MixedPrecision("bf16-mixed", "cuda"), {"fused": True}),
        ("cuda", MixedPrecision("16-mixed", "cpu", GradScaler("cpu")), {"foreach": True}),
    ],
)
def test_the_optimiser_of_a_device_and_a_plugin(device, plugin, expected):
    assert adam_options(device, plugin) == expected


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_lightning_clips_what_a_gpu_is_given(precision):
    """It refuses a fused optimiser beside a scaler, by a flag that the optimiser carries."""
    plugin = MixedPrecision(precision, "cpu", GradScaler("cpu") if precision == "16-mixed" else None)
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 2.0)
    optimizer = Adam([weight], **adam_options("cuda", plugin))
    if precision == "16-mixed":
        plugin.clip_gradients(optimizer, 0.5)
        torch.testing.assert_close(weight.grad.norm(), torch.tensor(0.5))
        with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
            plugin.clip_gradients(Adam([weight], fused=True), 0.5)


def test_the_device_that_is_asked_for():
    assert device_type(MachineConfig(device="cpu")) == "cpu"
    here = device_type(MachineConfig())
    assert device_type(MachineConfig(device=here)) == here
    for name, present in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not present:
            with pytest.raises(UserError, match=f"machine.device={name}"):
                device_type(MachineConfig(device=name))
