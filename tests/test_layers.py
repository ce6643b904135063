"""Imports point downwards only, between floors and between rooms; there is no circle; the lowest floor runs bare."""

import ast
import subprocess
import sys
from functools import cache
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


@cache
def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Every import in a file, inside functions too."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file."""
    names = set()
    for node in imports(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    above = LAYERS[LAYERS.index(layer_of(path)) + 1 :]
    assert not imported(path) & set(above)


# The rooms of a floor, lowest first. A file that no room names belongs to the floor's top.
ROOMS = {
    "sweeps": ["plan", "runs", "tracking", "training", "queue", "agents", "views"],
    "probes": ["statistics", "drawing", "subject", "suite"],
}
# Files of `probes` that its suite stands on: what a probe is and what it is given.
ROOM_OF = dict.fromkeys(
    (f"probes.{name}" for name in ("subject", "snapshots", "activations", "features", "chunked", "tables", "probe")),
    "subject",
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def import_graph() -> dict[str, set[str]]:
    """Which of our modules each of them imports, inside functions too."""
    ours = {module_of(path) for path in modules()}
    graph = {}
    for path in modules():
        found = set()
        for node in imports(path):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            else:
                found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        graph[module_of(path)] = (found & ours) - {module_of(path)}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one node: each of their nodes leads to each other one."""
    reached = {}
    for start in graph:
        seen, waiting = set(), [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        reached[start] = seen
    components = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in graph if a in reached[a]}
    return [set(component) for component in components]


def room_of(module: str) -> str:
    floor, _, rest = module.partition(".")
    name = ROOM_OF.get(module, rest.split(".")[0])
    return name if name in ROOMS.get(floor, ()) else "top"


def upwards(module: str) -> set[str]:
    """What a module imports from rooms above its own on the same floor."""
    floor = module.split(".", maxsplit=1)[0]
    order = [*ROOMS[floor], "top"]
    place = order.index(room_of(module))
    return {
        other
        for other in import_graph()[module]
        if other.split(".")[0] == floor and order.index(room_of(other)) > place
    }


@pytest.mark.parametrize("module", [m for m in map(module_of, modules()) if m.split(".")[0] in ROOMS])
def test_a_room_imports_only_rooms_below_it(module: str):
    assert not upwards(module)


def test_no_module_leads_back_to_itself():
    assert circles(import_graph()) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_statistics_know_no_run_path_or_figure():
    for module, others in import_graph().items():
        if module.startswith("probes.statistics"):
            assert all(other.startswith("probes.statistics") for other in others), module
            names = imported(ROOT / (module.replace(".", "/") + ".py")) if module != "probes.statistics" else set()
            assert not names & {"pathlib", "matplotlib", "wandb"}, module


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
