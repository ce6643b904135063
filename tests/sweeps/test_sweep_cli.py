"""Real sweeps of tiny models through the command line: launch, kill, resume, relaunch."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_sweep
from sweeps.queue.status import status
from sweeps.runs.store import RunStore
from tests import forking
from tests.conftest import TINY, tiny_store

pytestmark = pytest.mark.slow

MOE = [sys.executable, "-P", "-m", "cli"]
DEADLINE = 300


def write_spec(tmp_path, epochs, seeds=2):
    lines = ["name: little", "method: grid", "parameters:", f"  seed: {{values: {list(range(seeds))}}}"]
    values = TINY | {"train.epochs": epochs}
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in values.items()]
    path = tmp_path / "little.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def moe(*words, code=0):
    done = subprocess.run([*MOE, *map(str, words)], capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == code, done.stderr
    return done


def wait_until(holds):
    """Wait for something that other processes do."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def children(pid):
    """Those that it started, without what forks for it in tests."""
    tasks = Path(f"/proc/{pid}/task").glob("*")
    found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in found if Path(f"/proc/{child}/comm").read_text().strip() != forking.NAME]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def epochs_of(run):
    """The epochs of a run's history as far as it is written: another process may be within a line."""
    if not run.history_file.exists():
        return []
    *lines, _ = run.history_file.read_text().split("\n")
    return [json.loads(line)["epoch"] for line in lines if "val/loss" in line]


def test_launch_finishes_every_cell_and_a_second_launch_runs_nothing(tmp_path):
    tiny_store()
    spec = write_spec(tmp_path, epochs=2)
    first = json.loads(moe("sweep", "launch", spec, "--agents", 2, "--json").stdout)
    assert first["sweep"] == "little"
    assert [(t["state"], t["attempts"]) for t in first["trials"]] == [("finished", 1)] * 2
    histories = [run.history_file.stat().st_mtime_ns for run in RunStore().all()]
    second = moe("sweep", "launch", spec)
    assert "2 of 2 already finished" in second.stderr
    assert [run.history_file.stat().st_mtime_ns for run in RunStore().all()] == histories
    assert json.loads(moe("sweep", "status", "little", "--json").stdout) == first
    page, numbers = tmp_path / "page.html", tmp_path / "table.csv"
    shown = moe("compare", "little", "--html", page, "--csv", numbers, "--latex", tmp_path / "table.tex")
    assert "view agreement" in shown.stdout
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    shown_runs = {run.id for run in RunStore().all()}
    assert json.loads(data)["history"].keys() == json.loads(data)["routing"].keys() == shown_runs  # curves, heatmaps
    assert "val loss mean" in numbers.read_text()
    wider = moe("sweep", "launch", write_spec(tmp_path, epochs=2, seeds=3), "--dry-run", "--json")
    assert [t["state"] for t in json.loads(wider.stdout)["trials"]] == ["finished", "finished", "waiting"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
@pytest.mark.long
def test_an_agent_killed_in_mid_trial_loses_nothing(tmp_path):
    """kill -9 of the agent: its workers end by themselves, the launcher replaces it. Then kill -9 of launcher and
    agent at once: resume finishes every cell, each epoch once."""
    tiny_store()
    spec = write_spec(tmp_path, epochs=10, seeds=3)
    launcher = subprocess.Popen([*MOE, "sweep", "launch", str(spec)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def epochs_done():
        return sum(len(epochs_of(run)) for run in RunStore().all())

    try:
        wait_until(lambda: epochs_done() > 2)
        (agent,) = children(launcher.pid)
        workers = children(agent)
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: not any(alive(worker) for worker in workers))
        wait_until(lambda: epochs_done() > 14)  # a new agent is in the second run
        (agent,) = [child for child in children(launcher.pid) if alive(child)]
        workers = children(agent)
        launcher.kill()
        os.kill(agent, signal.SIGKILL)
        launcher.communicate(timeout=DEADLINE)
        wait_until(lambda: not any(alive(worker) for worker in workers))
    finally:
        launcher.kill()
        launcher.wait()
    sweep = open_sweep("little")
    assert [cell.state for cell in status(sweep).cells] == ["finished", "waiting", "waiting"]
    shutil.rmtree(RunStore().run(sweep.cells[0].run_id).path)  # a deleted run is made again
    done = json.loads(moe("sweep", "resume", "little", "--json").stdout)
    assert [trial["state"] for trial in done["trials"]] == ["finished"] * 3
    for run in RunStore().all():
        assert epochs_of(run) == list(range(11))


def test_a_failing_cell_is_given_up_with_its_reason_and_resumes_once_mended(tmp_path):
    """A file lies where its folder of routing has to be."""
    tiny_store()
    sweep = register_planned(*plan(str(write_spec(tmp_path, epochs=2, seeds=1)), {}))
    run = sweep.prepare(sweep.cells[0])
    run.routing.touch()
    broken = moe("sweep", "resume", "little", "--json", code=1)
    (trial,) = json.loads(broken.stdout)["trials"]
    assert trial["state"] == "failed"
    assert trial["attempts"] == 3
    assert trial["ending"] == "failed"
    assert "routing" in trial["error"]
    assert "Traceback" not in trial["note"]
    run.routing.unlink()
    mended = json.loads(moe("sweep", "resume", "little", "--json").stdout)
    assert mended["trials"][0]["state"] == "finished"


def test_a_users_mistake_is_not_repeated(tmp_path):
    store = tiny_store()
    register_planned(*plan(str(write_spec(tmp_path, epochs=2, seeds=1)), {}))
    (store.path / "images.npy").rename(tmp_path / "kept.npy")
    broken = moe("sweep", "resume", "little", "--json", code=1)
    (trial,) = json.loads(broken.stdout)["trials"]
    assert (trial["state"], trial["attempts"], trial["ending"]) == ("failed", 1, "refused")
    assert "images.npy" in trial["error"]
    (tmp_path / "kept.npy").rename(store.path / "images.npy")
    mended = json.loads(moe("sweep", "resume", "little", "--json").stdout)
    assert mended["trials"][0]["state"] == "finished"
