"""A queue that another package brings is as good as ours: chosen, launched, shown, stopped and resumed by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe.errors import UserError
from sweeps.launching import plan
from sweeps.queue.opening import QUEUES, choose_queue, open_queue, open_sweep
from sweeps.runs.store import RunStore
from sweeps.testing import QueueContract
from tests.conftest import tiny_store
from tests.holding import Held, needed
from tests.plugins import write_plugin
from tests.sweeps.queue.shelf import ShelfQueue
from tests.sweeps.test_sweep_cli import DEADLINE, MOE, moe, wait_until, write_spec

BROKEN = "from sweeps.queue.base import Queue\n\nclass Half(Queue):\n    pass\n\nnothing = 3\n"


class TestShelf(QueueContract):
    kind = ShelfQueue
    sweeps = 2


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package, for this process and for those that it starts."""
    modules = {"their_shelf": (Path(__file__).parent / "shelf.py").read_text(), "their_broken": BROKEN}
    entries = {"shelf": "their_shelf:ShelfQueue", "half": "their_broken:Half", "number": "their_broken:nothing"}
    site = write_plugin(tmp_path / "site", modules, {"moe.queues": entries})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")])))
    QUEUES.forget()
    yield
    QUEUES.forget()
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("installed")
def test_it_is_chosen_by_name_and_by_auto_and_says_what_it_cannot_run(tmp_path):
    grid, _ = plan(str(write_spec(tmp_path, epochs=2)))
    assert choose_queue("shelf", grid) == ("shelf", "as asked")
    assert choose_queue("auto", grid) == ("shelf", "the shelf takes it")
    assert choose_queue("local", grid) == ("local", "as asked")
    file = tmp_path / "drawn.yaml"
    file.write_text("method: random\nrun_cap: 3\nparameters: {seed: {values: [0, 1]}}\n")
    drawn, _ = plan(str(file))
    chosen, why = choose_queue("auto", drawn)
    assert chosen == "local"
    assert why.startswith("the shelf takes whole grids alone; ")
    with pytest.raises(UserError, match="--backend shelf: the shelf takes whole grids alone; use --backend local"):
        choose_queue("shelf", drawn)
    with pytest.raises(UserError, match='unknown backend "shelv": did you mean "shelf"'):
        choose_queue("shelv", grid)


@pytest.mark.usefixtures("installed")
def test_what_is_no_queue_hinders_no_other_and_is_named(tmp_path):
    grid, _ = plan(str(write_spec(tmp_path, epochs=2)))
    with pytest.raises(UserError, match=r'"half" cannot be loaded .* it has no beat, claim, close'):
        choose_queue("half", grid)
    with pytest.raises(UserError, match=r'"number" cannot be loaded .* no subclass of sweeps.queue.base.Queue'):
        choose_queue("number", grid)


@needed
@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_sweep_goes_through_it_from_launch_to_comparison(tmp_path):
    """Two agents, each a process of its own; stopped in the middle, resumed, shown and compared."""
    tiny_store()
    spec = write_spec(tmp_path, epochs=6, seeds=3)
    command = [*MOE, "sweep", "launch", str(spec), "--agents", "2", "--json"]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(RunStore().all()) == 2)  # one an agent
    both = [Held(run) for run in RunStore().all()]
    assert "running trials checkpoint and end" in moe("sweep", "stop", "little").stdout
    for held in both:
        held.go_on()
    said = launcher.communicate(timeout=DEADLINE)[1]
    assert "backend shelf: the shelf takes it" in said
    assert launcher.returncode == 1
    sweep = open_sweep("little")
    assert sweep.queue == "shelf"
    assert (sweep.folder.path / "shelf.json").exists()
    assert not (sweep.root / "studies.db").exists()
    refused = moe("sweep", "agent", "little", code=2)
    assert "was told to stop" in refused.stderr
    done = json.loads(moe("sweep", "resume", "little", "--agents", 2, "--json").stdout)
    assert [(trial["state"], trial["ending"]) for trial in done["trials"]] == [("finished", "finished")] * 3
    shown = json.loads(moe("sweep", "status", "little", "--json").stdout)
    assert shown == done
    assert json.loads(moe("sweep", "ls", "--json").stdout)["sweeps"][0]["queue"].startswith("shelf ")
    plan_again = json.loads(moe("sweep", "launch", spec, "--dry-run", "--json").stdout)
    assert [trial["state"] for trial in plan_again["trials"]] == ["finished"] * 3
    assert "3 of 3 already finished" in moe("sweep", "launch", spec).stderr
    assert len(json.loads(moe("compare", "little", "--json").stdout)["groups"][0]["runs"]) == 3


@pytest.mark.usefixtures("installed")
def test_without_the_package_its_sweeps_say_so(tmp_path, monkeypatch):
    from sweeps.launching import register_planned

    register_planned(*plan(str(write_spec(tmp_path, epochs=2))), queue="shelf")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("site")])
    QUEUES.forget()
    with pytest.raises(UserError, match='unknown backend "shelf": known are: local, wandb'):
        open_queue(open_sweep("little"))
