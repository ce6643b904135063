"""The command for whoever has a GPU, on what there is here."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.plan.source import shipped

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    """Its modules are scripts beside each other."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def run(folder, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--tiny", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_all_sections_find_something(tmp_path):
    done = run(tmp_path, "--here", "--minutes", "3")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(found) == ["hardware", "recipes", "same", "speed", "where", "together"]
    assert not any("failed" in section for section in found.values())
    assert found["recipes"]["trained"] == f"{len(shipped())} of {len(shipped())}"  # one of each file
    assert found["same"]["experts at once, float64"]["worst"] < 1e-9
    assert found["same"]["GPU against CPU, float32"]["worst"] == 0  # both are the CPU here
    assert found["same"]["gate noise"]["different"] == 0
    speeds = {name: row["views_s"] for name, row in found["speed"].items() if name.startswith("E =")}
    assert {"E = 4, ours", "E = 4, dense", "E = 4, literal"} <= set(speeds)
    assert all(speed > 0 for speed in speeds.values())
    for path in ("plain", "batched"):
        row = found["where"][f"E = 4, {path}"]
        assert row["operator_calls"] > 500
        assert row["GFLOP"] > 0
        assert row["least_ms_for_FLOPs"] > 0
    assert found["together"]["2 at a time"] > 0
    table = (tmp_path / "gpu_check.md").read_text()
    assert table in done.stdout
    assert "## where" in table
    assert "failed" not in table


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.slow
def test_a_section_that_takes_too_long_or_breaks_is_named_and_the_rest_goes_on(tmp_path, monkeypatch, capfd):
    import gpu_check

    result = tmp_path / "hardware.json"
    result.write_text('{"device": "some GPU"}')
    gpu_check.in_child("hardware", result, -19.99, tiny=True)  # the time is over at once
    assert gpu_check.read(result) == {"failed": gpu_check.STOPPED, "device": "some GPU"}

    monkeypatch.setattr(gpu_check, "SHARES", {"nothing": 0.5, "missing": 0.5})
    options = type("Options", (), {"minutes": 1, "out": tmp_path / "out", "here": True, "tiny": True})()
    found = gpu_check.check(options)
    assert all("No module named" in found[name]["failed"] for name in ("nothing", "missing"))
    assert "**nothing failed**" in (tmp_path / "out.md").read_text()
    assert "missing (up to" in capfd.readouterr().err


@pytest.mark.usefixtures("benchmarks")
def test_the_recipes_are_those_of_all_shipped_files():
    import gpu_recipes

    from moe.config import from_flat

    found = list(gpu_recipes.recipes())
    assert len({file for file, _ in found}) == len(list((ROOT / "sweeps" / "shipped").glob("*.yaml")))
    cells = [(file, from_flat(values).identity()) for file, values in found]
    assert len(set(cells)) == len(cells)
    assert sum(file == "gating.yaml" for file, _ in found) == 3 * 2 * 2 * 2


@pytest.mark.usefixtures("benchmarks")
def test_steps_that_differ_or_lack_a_tensor_are_too_far_apart(tmp_path):
    import gpu_same
    import torch
    from gpu_setting import Findings

    report = gpu_same.Report(Findings(tmp_path / "same.json"))
    one = {"loss": torch.tensor(2.0), "weight": torch.tensor([1.0, -4.0])}
    report("equal", one, one, 1e-9)
    report("far", one, one | {"weight": torch.tensor([1.5, -4.0])}, 0.1)
    report("lacking", one, {"loss": one["loss"]}, 0.1)
    report("not a number", one, one | {"weight": torch.tensor([math.nan, -4.0])}, 0.1)
    assert report.wrong == ["far", "lacking", "not a number"]
    assert report.findings.found["far"]["worst"] == pytest.approx(0.125)
