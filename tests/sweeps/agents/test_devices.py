"""One run on two processes (gloo on the CPU): results, stopping, and what is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe.config import flat
from sweeps.runs.endings import INTERRUPTED
from sweeps.runs.store import RunStore
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store
from tests.sweeps.test_sweep_cli import alive, children

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    """The processes meet on this machine alone."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    tiny_store()


def start(config, home):
    """`moe train` on two devices as its own process."""
    changed = {path: value for path, value in flat(config).items() if value is not None}
    changed |= {"machine.devices": 2, "machine.device": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "train", *(f"--{path}={value}" for path, value in changed.items())],
        env=os.environ | {"MOE_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def until_epoch(process, number):
    """Lines until that many epochs are done."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f"epoch {number}/"):
            return lines
    raise AssertionError(f"ended before epoch {number}: {''.join(lines)}")


def test_two_processes_give_the_numbers_of_one(tmp_path):
    """One step an epoch. The first is equal up to rounding, which Adam then enlarges: its first steps have the size of
    the learning rate however small a gradient is."""
    config = tiny_config(train__batch_size=48, train__lr=1e-4)
    alone = train(config, RunStore(tmp_path / "one"), report=lambda _line: None).history()
    process = start(config, tmp_path / "two")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    run = RunStore(tmp_path / "two").find(config.identity())
    assert run.finished
    together = run.history()
    assert [row["epoch"] for row in together] == [0, 1, 2]
    assert alone[0] == pytest.approx(together[0], rel=1e-5, abs=1e-6)
    train_values = {key for key in alone[1] if key.startswith(("train/", "balance_train/", "agreement_train/"))}
    assert len(train_values) >= 7
    for key in train_values:
        assert together[1][key] == pytest.approx(alone[1][key], rel=1e-5, abs=1e-6), key
    assert together[2]["train/loss"] == pytest.approx(alone[2]["train/loss"], rel=1e-2)
    assert run.provenance["devices"] == 2
    assert not list(run.path.rglob("*.partial"))


def test_another_process_ends_if_the_first_was_killed_while_it_started(tmp_path, monkeypatch):
    """It learns of that although the first is not its parent any more."""
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    for name, value in {"LOCAL_RANK": "1", "MOE_FIRST_PROCESS": gone, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    other = start(tiny_config(), tmp_path / "runs")
    other.communicate(timeout=60)
    assert other.returncode == 1


@pytest.mark.long
def test_told_to_stop_both_end_and_go_on_later_and_a_killed_first_takes_the_other_along(tmp_path):
    config = tiny_config(train__epochs=3000)
    process = start(config, tmp_path / "runs")
    until_epoch(process, 1)
    (other,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED
    assert not alive(other)
    run = RunStore(tmp_path / "runs").find(config.identity())
    assert run.state.state == "waiting"
    done = len(run.history()) - 1

    process = start(config, tmp_path / "runs")
    lines = until_epoch(process, done + 2)
    assert any(line.startswith(f"resuming after epoch {done}") for line in lines)
    (other,) = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + 60
    while alive(other) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(other)
    epochs = [row["epoch"] for row in run.history()]
    assert epochs == list(range(len(epochs)))
