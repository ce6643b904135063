"""gpu_check: do the ways to compute a step agree?

Numbers are the largest difference of any tensor, relative to that tensor's largest value.
"""

import math

import torch
from gpu_setting import Findings, Loop, Setting, one_precision
from torch import Tensor

from moe.config import RunConfig
from moe.data.draw import draw_noise, draw_views

LIMITS = {"float64": 1e-9, "float32": 1e-2, "half": 5e-2}  # a gradient gathers rounding through twenty layers


def run(setting: Setting, findings: Findings) -> None:
    """Experts at once against one after another on this device, and this device against the CPU."""
    config = setting.config({"model.width": 0.25, "data.image_size": 48, "train.batch_size": 64})
    report = Report(findings)
    with one_precision():
        for name, dtype in {"float64": torch.float64, "float32": torch.float32}.items():
            plain, batched = (_step(_with(config, path), setting, dtype) for path in ("plain", "batched"))
            report(f"experts at once, {name}", plain, batched, LIMITS[name])
        exact = _step(_with(config, "plain"), setting, torch.float32)
        for path in ("plain", "batched"):
            found = _step(_with(config, path, precision="16-mixed"), setting)
            # some images go to other experts, so that single gradients say little
            report(f"half precision against float32, {path}", {"loss": exact["loss"]}, found, LIMITS["half"])
        machine = config.machine.model_copy(update={"device": "cpu"})
        on_cpu = _step(_with(config.model_copy(update={"machine": machine}), "plain"), setting, torch.float32)
        report("GPU against CPU, float32", on_cpu, exact, LIMITS["float32"])
    _drawn(config, setting, findings)
    if report.wrong:
        findings.note("failed", f"too far apart: {', '.join(report.wrong)}")


def _with(config: RunConfig, path: str, precision: str = "32-true") -> RunConfig:
    machine = config.machine.model_copy(update={"experts": path})
    return config.model_copy(
        update={"machine": machine, "train": config.train.model_copy(update={"precision": precision})}
    )


def _step(config: RunConfig, setting: Setting, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Loss, gradients and running statistics of the first step."""
    pixels = setting.pixels(config, batches=1)
    loop = Loop(config, pixels)
    if dtype == torch.float64:
        loop.module.double()
        single = loop.module._normalised  # noqa: SLF001
        loop.module._normalised = lambda x: single(x).double()  # type: ignore[method-assign]  # noqa: SLF001
    values, *_ = loop.forward()
    values["loss"].backward()
    found = {name: parameter.grad for name, parameter in loop.module.named_parameters() if parameter.grad is not None}
    found |= {name: buffer for name, buffer in loop.module.named_buffers() if "running" in name}
    found |= {"loss": values["loss"].detach()}
    return {name: value.detach().double().cpu().clone() for name, value in found.items()}


class Report:
    """Compares steps, and remembers which are too far apart."""

    def __init__(self, findings: Findings) -> None:
        self.findings, self.wrong = findings, list[str]()

    def __call__(self, name: str, expected: dict[str, Tensor], found: dict[str, Tensor], limit: float) -> None:
        """Note the largest error; a tensor that one of them lacks counts as infinitely wrong."""
        errors = {key: _error(value, found[key]) if key in found else math.inf for key, value in expected.items()}
        worst = max(errors, key=lambda key: errors[key])
        note = {"loss": errors["loss"], "worst": errors[worst], "of": worst, "limit": limit}
        self.findings.note(name, note)
        if not errors[worst] <= limit:
            self.wrong.append(name)


def _error(expected: Tensor, found: Tensor) -> float:
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    return math.inf if math.isnan(error) else error


def _drawn(config: RunConfig, setting: Setting, findings: Findings) -> None:
    """How many of the numbers drawn on the device differ from the CPU's, and by how much."""
    index_B = torch.arange(1000 if setting.tiny else 100_000)
    for name, draw in {
        "parameters of views": lambda index: draw_views(config.augment, 96, index, seed=0, epoch=0).packed(),
        "gate noise": lambda index: draw_noise(16, index, seed=0, epoch=0),
    }.items():
        on_cpu, here = draw(index_B), draw(index_B.to(setting.device)).cpu()
        different = int((on_cpu != here).sum())
        findings.note(
            name, {"numbers": on_cpu.numel(), "different": different, "most": float((on_cpu - here).abs().max())}
        )
