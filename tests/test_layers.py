"""Imports point downwards only, and the lowest layer runs bare."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["moe", "callbacks", "sweeps", "probes", "cli"]  # lowest first
BARE = {"torch", "torchvision", "lightning", "numpy", "pydantic", "yaml", "PIL"}  # the last two come with the others


def modules() -> list[Path]:
    files = [ROOT / "cli.py"]
    for layer in LAYERS[:-1]:
        files += sorted((ROOT / layer).rglob("*.py"))
    return files


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    above = LAYERS[LAYERS.index(layer_of(path)) + 1 :]
    assert not imported(path) & set(above)


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(p) == "moe"], ids=lambda path: path.stem)
def test_moe_needs_few_libraries(path: Path):
    allowed = BARE | set(sys.stdlib_module_names) | {"moe"}
    if path.name == "export.py":  # nothing else in moe/ imports it
        allowed |= {"safetensors"}
    if path.name == "pictures.py":  # where it is installed: the extra "heic"
        allowed |= {"pi_heif"}
    assert imported(path) <= allowed


def test_only_the_export_module_needs_safetensors():
    users = [p for p in modules() if layer_of(p) == "moe" and "moe.export" in p.read_text() and p.name != "export.py"]
    assert users == []


TRAIN_BARE = """
import sys
import torch
from moe.config import from_flat
from moe.data.loading import Batch
from moe.lightning_module import MoEModule

config = from_flat({"model.width": 0.0625, "data.image_size": 16})
module = MoEModule(config, (0.5,) * 3, (0.2,) * 3)
z = module.model(torch.zeros(4, 3, 16, 16))
assert z.shape == (4, module.model.embedding)
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"wandb", "optuna", "typer", "safetensors", "sqlalchemy", "sweeps", "callbacks", "probes"}, loaded
"""


@pytest.mark.slow
def test_the_model_runs_without_sweeps_tracker_or_probes():
    subprocess.run([sys.executable, "-c", TRAIN_BARE], cwd=ROOT, check=True)
