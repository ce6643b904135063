"""What produced a run: code, versions, device, data."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from moe.config import RunConfig
from moe.data.loading import RunData
from sweeps.runs.state import now

_PACKAGES = (
    "moe-experts", "torch", "torchvision", "lightning", "numpy", "scipy", "scikit-learn", "optuna", "wandb", "pydantic",
)  # fmt: skip


def collect(config: RunConfig, data: RunData, device: torch.device, precision: str) -> dict[str, Any]:
    """Everything needed to tell whether two runs were made alike; plain JSON types."""
    return {
        "run_id": config.identity(),
        "seed": config.seed,
        "time": now(),
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": platform.machine(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "devices": config.machine.devices,
        "batch_norm": _batch_norm(config),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "determinism": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul": torch.get_float32_matmul_precision(),
            "float32_convolutions": "tf32" if torch.backends.cudnn.allow_tf32 and device.type == "cuda" else "float32",
        },
        "data": digests(data.train.digest, data.validation.digest),
        "images": {
            "train": len(data.train.images_NCSS), "validation": len(data.validation.images_NCSS)
        },
    }  # fmt: skip


def digests(train: str, validation: str) -> dict[str, str]:
    """Which images a run is trained on and watched with, as `provenance.json` says it: checksums of their stores."""
    return {"train": train, "validation": validation}


def _batch_norm(config: RunConfig) -> str:
    """Over which images batch norm takes its statistics."""
    if config.machine.devices == 1:
        return "the batch"
    return "the batches of all devices" if config.train.sync_batch_norm else "each device's batch"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the code that runs; None when it is not in a git checkout."""
    folder = Path(__file__).resolve().parent
    commands = {
        "sha": ["git", "rev-parse", "HEAD"],
        "dirty": ["git", "status", "--porcelain", "--untracked-files=no"],
    }
    ours = ["git", "ls-files", "--error-unmatch", Path(__file__).name]  # not a project that merely contains our wheel
    try:
        subprocess.run(ours, cwd=folder, capture_output=True, check=True)
        sha, status = (
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands.values()
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"sha": sha, "dirty": bool(status)}
