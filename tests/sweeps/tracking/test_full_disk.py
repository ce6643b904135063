"""A disk that fills up, or cannot be written, where W&B's client keeps its files: the training goes on."""

import subprocess

import pytest

from sweeps.runs.store import RunStore
from sweeps.tracking.sync import sync, waiting
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store

pytestmark = pytest.mark.slow


def silent(_line):
    return None


def remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


@pytest.mark.parametrize(("mode", "trouble"), [("offline", "fills up"), ("online", "is read-only")])
def test_what_wandb_cannot_keep_is_one_sentence_and_sent_later(
    wandb_server, monkeypatch, capsys, small_disk, mode, trouble
):
    """Where not even an offline piece could be begun, the training ended."""
    tiny_store()
    monkeypatch.setenv("WANDB_MODE", mode)
    config = tiny_config()
    run = RunStore().create(config)
    (run.path / "wandb").symlink_to(small_disk)
    if trouble == "fills up":
        (small_disk / "filled").write_bytes(bytes(260_000))  # of 300 kB: the first epochs still fit
    else:
        remount(small_disk, "ro")
    assert train(config, report=silent).finished
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert said.startswith("W&B: ")
    assert ("No space left on device" if trouble == "fills up" else "Read-only file system") in said
    assert said.endswith(f"; `moe runs sync` completes run {run.id}")
    assert [one.id for one in waiting(RunStore())] == [run.id]
    remount(small_disk, "rw,size=20m")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert sync([run], silent) == []
    assert wandb_server.run(run.id).series("epoch") == [0, 1, 2]
    assert wandb_server.run(run.id).state == "finished"
    assert wandb_server.artifact(f"model-{run.id}:last")
    assert waiting(RunStore()) == []
