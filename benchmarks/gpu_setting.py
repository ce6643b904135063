"""What the sections of gpu_check.py share: sizes, time, findings, and one training loop."""

import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from recipes import RECIPES
from torch.optim import Adam
from train_step import Clock, smooth_images

from moe.config import RunConfig, from_flat
from moe.data.loading import Batch, Pixels
from moe.experts import leave_idle_alone
from moe.hardware import adam_options, precision_plugin
from moe.lightning_module import MoEModule

TINY = {"model.width": 0.0625, "data.image_size": 16, "train.batch_size": 16}


class Findings:
    """What a section found, written after each finding.

    Args:
        file: JSON.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.found = file, dict[str, Any]()

    def note(self, name: str, value: Any) -> None:
        """Keep a finding and show it."""
        self.found[name] = value
        self.file.write_text(json.dumps(self.found))
        print(f"  {name}: {value}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Setting:
    """Sizes and time of a section.

    Attributes:
        tiny: small models and few steps.
        until: `time.monotonic()` at which the section should have ended.
    """

    tiny: bool
    until: float
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def __post_init__(self) -> None:
        warnings.filterwarnings("ignore")
        for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)

    @property
    def experts(self) -> tuple[int, ...]:
        """Numbers of experts to be compared."""
        return (4,) if self.tiny else (4, 8, 16)

    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.until

    def config(self, values: dict[str, Any], **machine: str) -> RunConfig:
        """A run's configuration, for this device, at this setting's size."""
        machine_values = {f"machine.{name}": value for name, value in machine.items()}
        return from_flat(values | (TINY if self.tiny else {}) | {"machine.device": self.device.type} | machine_values)

    def pixels(self, config: RunConfig, batches: int = 16) -> Pixels:
        """Random images enough for some batches."""
        return smooth_images(
            (min(4, batches) if self.tiny else batches) * config.train.batch_size, config.data.image_size
        )

    def wait(self) -> None:
        """Until the device has done all it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def most_memory(self) -> int:
        """The most memory that was taken, in MiB; counts anew afterwards."""
        if self.device.type != "cuda":
            return 0
        most = torch.cuda.max_memory_allocated() // 2**20
        torch.cuda.reset_peak_memory_stats()
        return most


def fit(
    name: str, config: RunConfig, pixels: Pixels, *, warm_up: int, steps: int, workers: int = 0
) -> tuple[float, Any]:
    """Train through Lightning as `moe train` does; views/s after the warm-up, and the module."""
    kind, loader = RECIPES[name]
    device = torch.device(config.machine.device)
    torch.manual_seed(0)
    module = kind(config, pixels.mean, pixels.sd)
    clock = Clock(warm_up, steps)
    trainer = L.Trainer(
        accelerator=device.type, devices=1, plugins=[precision_plugin(device.type, config.train)],
        max_steps=warm_up + steps, gradient_clip_val=config.train.clip_norm, logger=False, callbacks=[clock],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, loader(config, pixels, device, workers))
    return 2 * config.train.batch_size * steps / clock.seconds, module


class Loop:
    """One training step after another without Lightning, to be counted and profiled.

    Args:
        config: the run.
        pixels: its images.
    """

    def __init__(self, config: RunConfig, pixels: Pixels) -> None:
        self.config, self.device = config, torch.device(config.machine.device)
        self.module = MoEModule(config, pixels.mean, pixels.sd).to(self.device).train()
        self.plugin: Any = precision_plugin(self.device.type, config.train)
        options = adam_options(self.device.type, self.plugin)
        self.optimizer = Adam(self.module.parameters(), lr=config.train.lr, **options)
        places = torch.arange(config.train.batch_size)
        self.batch = Batch(pixels.images_NCSS[places].to(self.device), pixels.labels_N[places].to(self.device), places)

    def forward(self) -> tuple[dict[str, Any], Any, Any]:
        """Values, routing and embeddings of the batch."""
        with self.plugin.forward_context():
            return self.module._two_view_step(self.batch, 0)  # noqa: SLF001

    def __call__(self) -> None:
        """A whole step."""
        values, record, _ = self.forward()
        scaler = getattr(self.plugin, "scaler", None)
        (scaler.scale(values["loss"]) if scaler else values["loss"]).backward()
        leave_idle_alone(self.module.model.experts, record.views_E)
        if scaler:
            scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.train.clip_norm)
        if scaler:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()


@contextlib.contextmanager
def one_precision() -> Iterator[None]:
    """Float32 as it is, not as TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
