"""Real sweeps of tiny models while processes are killed where it hurts most, disks fill up and clocks jump."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from moe.config import from_flat
from sweeps.runs.store import RunStore
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_store

pytestmark = pytest.mark.slow

MOE = [sys.executable, "-P", "-m", "cli"]
SITE = Path(__file__).parents[1] / "faults" / "site"
DEADLINE = 400
PLAN = {
    0: ["agent:claimed", "worker:started", "worker:writing"],
    1: ["worker:step", "agent:writing"],
    2: ["worker:finishing", "agent:finishing"],
    3: ["worker:finished", "agent:finished"],
}


def write_spec(tmp_path, seeds):
    lines = ["name: little", "method: grid", "parameters:", f"  seed: {{values: {list(range(seeds))}}}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in TINY.items()]
    path = tmp_path / "little.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def moe(*words, **environment):
    command = [*MOE, *map(str, words)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False,
                          timeout=DEADLINE)  # fmt: skip


def trials(done):
    return [(trial["state"], trial["attempts"]) for trial in json.loads(done.stdout)["trials"]]


@pytest.mark.long
def test_killed_at_nine_places_while_clocks_jump_a_sweep_ends_as_if_undisturbed(tmp_path):
    """Workers and agents at the claim, in mid-epoch, while a checkpoint is half written, and around the finish."""
    tiny_store()
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "plan.json").write_text(json.dumps(PLAN))
    path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    done = moe("sweep", "launch", write_spec(tmp_path, 4), "--agents", 1, "--json",
               PYTHONPATH=path, MOE_TEST_FAULTS=str(faults))  # fmt: skip
    happened = {file.name for file in faults.iterdir()} - {"plan.json"}
    assert happened == {f"{seed} {where}" for seed, places in PLAN.items() for where in places}
    assert done.returncode == 0, done.stderr
    assert [state for state, _ in trials(done)] == ["finished"] * 4
    assert trials(moe("sweep", "resume", "little", "--json")) == trials(done)
    undisturbed = RunStore(tmp_path / "undisturbed")
    for seed in PLAN:
        expected = train(from_flat(TINY | {"seed": seed}), undisturbed, report=lambda _line: None)
        run = RunStore().run(expected.id)
        weights, wanted = (load_file(each.model / "model.safetensors") for each in (run, expected))
        assert all(wanted[name].equal(weights[name]) for name in wanted)
        assert run.history() == expected.history()
        assert len([line for line in run.history_file.read_text().splitlines() if "val/loss" in line]) == 3


def test_on_a_full_disk_a_launch_says_so_once_and_goes_on_where_there_is_room(tmp_path, small_disk):
    tiny_store()
    crowded = from_flat(TINY).identity()
    home = Path(os.environ["MOE_HOME"])
    home.mkdir()
    (home / crowded).symlink_to(small_disk)
    done = moe("sweep", "launch", write_spec(tmp_path, 2), "--agents", 1, "--json")
    assert done.returncode == 1
    assert trials(done) == [("waiting", 0), ("waiting", 0)]
    assert json.loads(done.stdout)["trials"][0]["ending"] == "disk full"
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said == f"error: {home / crowded}: No space left on device; free some space, and the same command goes on"
    assert "moe --debug" not in done.stderr
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert trials(moe("sweep", "resume", "little", "--json")) == [("finished", 1), ("finished", 1)]
