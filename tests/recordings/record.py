"""Record what a version of moe gives: ids of runs, and a small run with every probe's numbers.

    python -P tests/recordings/record.py > tests/recordings/recording.json

records the version that `import moe` finds; PYTHONPATH=FOLDER names another one. The committed recording is that of
4b6bc71; tests/test_recording.py compares. Nothing but the command line, RunConfig and the files of a run is used.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SWEEPS = ("gating", "importance", "paper", "quickstart", "stl10-small")
CONFIGS: list[dict[str, Any]] = [
    {},
    {"seed": 7},
    {"seed": 2**31 - 1, "model": {"experts": 16, "top_k": 4}},
    {"model": {"width": 0.125, "gate_after": 1, "constant_params": False}},
    {"model": {"experts": 1, "top_k": 1, "embedding": 64, "gate_channels": 8}},
    {"gate": {"noisy": False}},
    {"gate": {"kind": "noisy_top_k", "noisy": True}, "loss": {"importance_weight": 0}},
    {"loss": {"objective": "supervised", "importance_weight": 0.01}},
    {"loss": {"temperature": 0.07, "projection": 64}},
    {"augment": {"crop_scale": [0.2, 1.0], "blur": 0.0, "hue": 0.2, "grayscale": 0}},
    {"train": {"epochs": 300, "batch_size": 512, "lr": 1e-3, "min_lr": 0, "weight_decay": 0, "clip_norm": 10}},
    {"train": {"precision": "bf16-mixed", "sync_batch_norm": False}},
    {"data": {"name": "stl10+synthetic", "validation": "stl10-test", "image_size": 64}},
    {"machine": {"device": "cpu", "devices": 2, "threads": 3, "images": "host", "deterministic": True}},
]
RUN = {
    "seed": 3,
    "data.name": "recorded",
    "data.image_size": 16,
    "model.width": 0.0625,
    "model.experts": 4,
    "train.epochs": 2,
    "train.batch_size": 24,
    "train.precision": "32-true",
    "train.lr": 0.001,
    "machine.device": "cpu",
    "machine.threads": 1,
}


def conditions() -> dict[str, str]:
    """What the last bits of a number depend on beside the code."""
    import scipy
    import sklearn
    import torch

    versions = {module.__name__: module.__version__.split("+")[0] for module in (np, scipy, sklearn, torch)}
    return versions | {"capability": torch.backends.cpu.get_cpu_capability(), "processor": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def moe(*words: str, home: Path) -> str:
    """What a command of the version under record prints."""
    import cli

    root = str(Path(cli.__file__).parent)
    environment = os.environ | {
        "MOE_HOME": str(home / "runs"), "MOE_DATA": str(home / "data"), "WANDB_MODE": "disabled", "PYTHONPATH": root,
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-P", "-c", "import cli; cli.main()", *words]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


def sweep_ids(home: Path) -> dict[str, list[str]]:
    """Ids of every cell of the shipped sweeps, in their order."""
    shown = {name: json.loads(moe("sweep", "launch", name, "--dry-run", "--json", home=home)) for name in SWEEPS}
    return {name: [trial["run_id"] for trial in sweep["trials"]] for name, sweep in shown.items()}


def config_ids() -> list[str]:
    """Ids of CONFIGS."""
    from moe.config import RunConfig

    return [RunConfig.model_validate(config).identity() for config in CONFIGS]


def small_store(name: str, root: Path, count: int, seed: int) -> None:
    """Random images of 16 pixels in three classes, whose brightness tells the class, with two known dimensions."""
    from moe.data.store import Images, write_store

    rng = np.random.default_rng(seed)
    labels_N = np.arange(count) % 3
    images_NHWC = np.clip(rng.normal(40 + 60 * labels_N[:, None, None, None], 30, (count, 16, 16, 3)), 0, 255)
    factors_NF = np.stack([labels_N / 3, rng.random(count)], axis=1).astype(np.float32)
    ids = [f"{name}-{number:03d}" for number in range(count)]
    content = Images(
        images_NHWC.astype(np.uint8),
        ids,
        "random",
        labels_N,
        ("dark", "grey", "light"),
        factors_NF,
        ("light", "chance"),
    )
    write_store(name, content, root)


def small_run(home: Path) -> dict[str, Any]:
    """A run of two epochs on the CPU in float32 with one thread, and all probes on it."""
    from safetensors.numpy import load_file

    small_store("recorded", home / "data", 120, 0)
    moe("train", *(f"--{path}={value}" for path, value in RUN.items()), home=home)
    (folder,) = (path.parent for path in (home / "runs").glob("*/config.json"))
    results = json.loads(moe("probe", "--run", folder.name, "--json", home=home))
    tensors = load_file(folder / "model" / "model.safetensors")
    return {
        "id": folder.name,
        "tensors": {name: _tensor(tensor) for name, tensor in sorted(tensors.items())},
        "history": [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()],
        "summary": json.loads((folder / "summary.json").read_text()),
        "probes": results["images"]["recorded"],
        "tables": {
            str(path.relative_to(folder / "probes")): path.read_text()
            for path in sorted((folder / "probes").rglob("*.csv"))
        },
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    as_float = tensor.astype(np.float64)
    return {
        "sha256": hashlib.sha256(tensor.tobytes()).hexdigest(),
        "shape": list(tensor.shape),
        "mean": float(as_float.mean()),
        "norm": float(np.sqrt(np.square(as_float).sum())),
    }


def record() -> dict[str, Any]:
    """Everything."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        return {
            "conditions": conditions(),
            "sweeps": sweep_ids(home),
            "configs": config_ids(),
            "run": small_run(home),
        }


if __name__ == "__main__":
    json.dump(record(), sys.stdout, indent=1)
    sys.stdout.write("\n")
