"""A MOE_HOME that an earlier version left opens, goes on and is probed (tests/recordings/old_home.py made it)."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.recordings import record

ARCHIVE = Path(record.__file__).parent / "old_home.tar.xz"
FINISHED, INTERRUPTED = "449481a0f248", "1d67ee812e08"  # of sweep `old`


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def moe(home, *words):
    """What a command prints, in a process of its own as agents need it."""
    environment = os.environ | {"MOE_HOME": str(home / "runs"), "MOE_DATA": str(home / "data")}
    command = [sys.executable, "-c", "import cli; cli.main()", *words]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def states(home, sweep):
    shown = json.loads(moe(home, "sweep", "status", sweep, "--json"))
    return {trial["run_id"]: trial["state"] for trial in shown["trials"]}


def epochs(home, run):
    """The place of every line of a run's history."""
    return [json.loads(line)["epoch"] for line in (home / "runs" / run / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_its_runs_and_sweeps_are_listed(home):
    runs = {run["id"]: run for run in json.loads(moe(home, "runs", "list", "--json"))["runs"]}
    assert len(runs) == 3
    assert runs[FINISHED]["state"] == "finished"
    assert runs[INTERRUPTED]["state"] == "waiting"
    assert states(home, "old") == {FINISHED: "finished", INTERRUPTED: "waiting"}
    assert sorted(states(home, "search").values()) == ["finished", "waiting", "waiting"]
    waiting = json.loads(moe(home, "runs", "sync", "--dry-run", "--json"))
    assert {piece["run"] for piece in waiting["left"]} == {FINISHED, INTERRUPTED}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_in_the_middle_of_its_epoch(home):
    before = (home / "runs" / FINISHED / "model" / "model.safetensors").read_bytes()
    moe(home, "sweep", "resume", "old")
    assert states(home, "old") == {FINISHED: "finished", INTERRUPTED: "finished"}
    assert "resuming after epoch 1 and" in (home / "runs" / INTERRUPTED / "log.txt").read_text()
    assert epochs(home, INTERRUPTED) == epochs(home, FINISHED)
    assert (home / "runs" / FINISHED / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_search_goes_on_from_what_it_knows(home):
    finished = {run for run, state in states(home, "search").items() if state == "finished"}
    moe(home, "sweep", "resume", "search")
    after = states(home, "search")
    assert list(after.values()) == ["finished"] * 3
    assert finished < set(after)


@pytest.mark.slow
def test_its_finished_run_is_probed(home):
    shown = json.loads(moe(home, "probe", "--run", FINISHED, "--probe", "routing", "--probe", "coupling", "--json"))
    assert set(shown["images"]["old"]) == {"routing", "coupling"}
    listed = {run["id"]: run["probes"] for run in json.loads(moe(home, "runs", "list", "--json"))["runs"]}
    assert len(listed[FINISHED]) == 2
