"""Which heavy libraries a process loads: what it does not use costs seconds of each command and hundreds of MB."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe.importing import importing

ROOT = Path(__file__).parents[1]
HEAVY = {
    "lightning", "matplotlib", "optuna", "pandas", "plotly", "scipy", "sklearn", "sympy", "torch", "torch._dynamo",
    "torchmetrics", "torchvision", "wandb",
}  # fmt: skip
DRAWING, MODELS = {"matplotlib"}, {"torch"}
STATISTICS = {"scipy", "sklearn"}


def loaded(*modules: str) -> set[str]:
    """The heavy libraries that a process has after it imported these modules."""
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return HEAVY & set(json.loads(done.stdout))


def test_the_command_a_launch_an_agent_and_an_upload_load_none():
    """There are many of them: agents on a machine, and `moe sweep status` beside training runs."""
    reading = ["sweeps.queue.status", "sweeps.views.compare", "sweeps.views.listing", "sweeps.views.live"]
    at_work = ["sweeps.launching", "sweeps.agents.agent", "sweeps.agents.crew", "sweeps.tracking.sync"]
    assert loaded("cli", *at_work, *reading) == set()


@pytest.mark.slow
def test_probes_load_no_trainer():
    """Lightning loads torchmetrics, which loads torchvision, torch's compiler and matplotlib's whole."""
    assert loaded("probes.probing", "probes.registry") == MODELS | STATISTICS | DRAWING


@pytest.fixture
def new_module(tmp_path, monkeypatch):
    (tmp_path / "imported_once.py").write_text("things = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("imported_once", None)


def test_what_is_imported_stays_out_of_later_collections(new_module):
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        import imported_once
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + 1000
    frozen = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    with importing():
        import imported_once  # noqa: F401
    assert gc.get_freeze_count() <= frozen  # nothing new: what else there is may become garbage
    assert len(kept) == 1000


def test_the_collector_is_back_after_an_import_that_fails():
    with pytest.raises(ImportError), importing():
        import no_such_module  # noqa: F401
    assert gc.isenabled()


ENDS = """
import atexit, os, sys, threading, time
from moe.importing import leaving

class Noted:
    def __del__(self):
        os.write(1, b"taken apart")

with leaving():
    kept = Noted()
    atexit.register(print, "registered", end="; ")
    threading.Timer(0.2, print, ["a thread"], {"end": "; "}).start()
    print("printed", end="; ")
    %s
"""


@pytest.mark.parametrize(
    ("end", "code", "at_once"),
    [
        ("pass", 0, True),
        ("sys.exit()", 0, True),
        ("sys.exit(3)", 3, True),
        ("sys.exit(-1)", 255, True),
        ("sys.exit('a sentence')", 1, False),
        ("1 / 0", 1, False),
        ("os.close(1)", 120, False),
    ],
)
def test_a_process_leaves_with_its_code_once_everything_is_done(end, code, at_once):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", ENDS % end]
    done = subprocess.run(command, cwd=ROOT, env=buffered, check=False, capture_output=True, text=True)
    assert done.returncode == code
    if end != "os.close(1)":
        assert done.stdout == "printed; a thread; registered; " + ("" if at_once else "taken apart")
    assert ("ZeroDivisionError" in done.stderr) == (end == "1 / 0")
