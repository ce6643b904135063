"""What a run goes on from: damaged, forged, lost, older and copied files; kills at its writes."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cli import app
from moe.config import flat
from probes.epochs import checkpoint_snapshots
from sweeps.runs.store import RunStore
from sweeps.training import checkpoints, trial
from sweeps.training.checkpoints import UnusableError, best_first, complete, load
from sweeps.training.history import Progress
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_config, tiny_place, tiny_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of three epochs."""
    with tiny_place(tmp_path_factory.mktemp("finished")) as runs:
        yield train(tiny_config(train__epochs=3), runs, report=lambda _line: None)


@pytest.fixture
def begun(finished, tmp_path):
    """The same run as if killed before its end was written down."""
    tiny_store()
    run = RunStore(tmp_path / "copy").create(tiny_config(train__epochs=3))
    shutil.copytree(finished.checkpoints, run.checkpoints)
    shutil.copy(finished.history_file, run.history_file)
    return run


def resumed(run):
    """What is said while the run goes on to its end."""
    lines = []
    train(run.config, RunStore(run.path.parent), report=lines.append)
    return lines


def as_undisturbed(run, finished):
    ours, theirs = (load_file(one.model / "model.safetensors") for one in (run, finished))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for file in ("history.jsonl", "summary.json"):
        assert (run.path / file).read_bytes() == (finished.path / file).read_bytes()
    return True


def last(run):
    return run.epoch_checkpoint(3)


def cut(file):
    file.write_bytes(file.read_bytes()[:1000])


def flip(file):
    """One bit of a weight: torch reads it as if nothing were wrong."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def other_archive(file):
    torch.save({"global_step": 9}, file)


def other_json(file):
    file.write_text('{"sha256": 1}')


@pytest.mark.parametrize("damage", [cut, flip, empty, other_archive])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(begun, finished, damage):
    damage(last(begun))
    lines = resumed(begun)
    assert any(line.startswith("epoch0003.ckpt ") and "trying the one before" in line for line in lines)
    assert "resuming after epoch 2" in lines
    assert as_undisturbed(begun, finished)


@pytest.mark.parametrize("damage", [cut, empty, other_json, lambda file: file.write_text("[1]")])
def test_a_damaged_record_makes_the_checkpoint_unusable(begun, finished, damage):
    damage(last(begun).with_suffix(".json"))
    lines = resumed(begun)
    assert any("has a damaged record, epoch0003.json" in line for line in lines)
    assert "resuming after epoch 2" in lines
    assert as_undisturbed(begun, finished)


def test_wrong_contents_of_an_archive_without_record_are_passed_over(begun, finished):
    """An archive of another program, a model of another shape, no training state."""
    begun.step_checkpoint(8).write_bytes(last(begun).read_bytes())
    for steps, change in enumerate(({"global_step": "many"}, {"state_dict": {}}, {"loops": None}), start=20):
        content = torch.load(last(begun), weights_only=True) | {"global_step": steps} | change
        torch.save({key: part for key, part in content.items() if part is not None}, begun.step_checkpoint(steps))
    torch.save([1, 2], begun.step_checkpoint(30))
    lines = resumed(begun)
    assert sum("is no checkpoint" in line for line in lines) == 2
    assert sum("holds another model, or no training state" in line for line in lines) == 2
    assert as_undisturbed(begun, finished)


def test_the_newest_checkpoint_has_the_most_steps_whatever_its_date(begun, finished):
    """As in a folder that was copied, or after a clock that jumped back."""
    os.utime(last(begun), (0, 0))
    assert "resuming after epoch 3" in resumed(begun)
    assert as_undisturbed(begun, finished)


def test_a_lost_history_comes_back_from_the_checkpoint(begun, finished):
    begun.history_file.unlink()
    assert "resuming after epoch 3" in resumed(begun)
    assert as_undisturbed(begun, finished)
    assert begun.summary["untrained"]["epoch"] == 0


def test_a_history_deleted_while_the_run_trains_comes_back_at_its_end(tmp_path, finished, monkeypatch):
    tiny_store()
    store = RunStore(tmp_path / "runs")
    run = store.create(tiny_config(train__epochs=3))
    real = trial.MoEModule.training_step

    def step(self, batch, batch_idx):
        if self.global_step == 4:
            run.history_file.unlink()
        return real(self, batch, batch_idx)

    monkeypatch.setattr(trial.MoEModule, "training_step", step)
    resumed(run)
    assert as_undisturbed(run, finished)


def earlier(run):
    """The files as the version before wrote them: no records, the last one twice."""
    for file in run.checkpoints.glob("*.json"):
        file.unlink()
    shutil.copy(last(run), run.checkpoints / "last.ckpt")


def test_checkpoints_of_the_version_before_resume_where_the_history_is_complete(begun, finished):
    earlier(begun)
    assert "resuming after epoch 3" in resumed(begun)
    assert as_undisturbed(begun, finished)


def test_checkpoints_of_the_version_before_without_history_are_passed_over(begun, finished):
    earlier(begun)
    begun.history_file.unlink()
    lines = resumed(begun)
    assert any("last.ckpt has no complete history of its 3 epochs" in line for line in lines)
    assert not any("resuming" in line for line in lines)
    assert as_undisturbed(begun, finished)


def test_killed_between_a_checkpoint_and_its_row_nothing_is_lost(begun, finished):
    """As the version before was killed: the epoch's training half is not in the history."""
    earlier(begun)
    rows = begun.history_file.read_text().splitlines(keepends=True)
    begun.history_file.write_text("".join(rows[:-1]))
    assert "resuming after epoch 2" in resumed(begun)
    assert as_undisturbed(begun, finished)


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def forged(begun, tmp_path):
    """Every checkpoint replaced by one that runs a payload, in torch's format and as a bare pickle."""
    proof = tmp_path / "executed"
    content = torch.load(last(begun), weights_only=True)
    for file in begun.checkpoints.glob("*.ckpt"):
        torch.save(content | {"payload": Payload(proof)}, file)
        file.with_suffix(".json").unlink()
    begun.step_checkpoint(99).write_bytes(pickle.dumps(content["loops"] | {"payload": Payload(proof)}))
    with pytest.raises(FileNotFoundError):
        proof.rmdir()
    torch.load(last(begun), weights_only=False)
    proof.rmdir()  # it works where code is run
    return begun, proof


def test_a_payload_in_a_checkpoint_is_not_run_by_a_resume(forged, finished, monkeypatch):
    run, proof = forged
    monkeypatch.setenv("MOE_HOME", str(run.path.parent))
    flags = [f"--{path}={value}" for path, value in flat(run.config).items() if path in TINY]
    said = CliRunner().invoke(app, ["train", *flags])
    assert said.exit_code == 0, said.output
    assert not proof.exists()
    assert "cannot be read (UnpicklingError)" in said.output
    assert as_undisturbed(run, finished)


def test_a_payload_in_a_checkpoint_is_not_run_by_probes_over_epochs(forged, finished):
    run, proof = forged
    shutil.copytree(finished.model, run.model)
    lines = []
    assert checkpoint_snapshots(run, lines.append) == []
    assert not proof.exists()
    assert len(lines) == 4


def test_a_payload_is_not_run_where_lightning_itself_is_given_the_file(forged, monkeypatch):
    """Even one that came in after it was looked at."""
    run, proof = forged
    monkeypatch.setattr(trial, "newest", lambda *_: checkpoints.Position(last(run), 9, run.history_rows()))
    with pytest.raises(pickle.UnpicklingError):
        resumed(run)
    assert not proof.exists()


def test_checkpoints_of_another_run_are_named_and_passed_over(begun, finished):
    """Of the same recipe with another seed, whose shapes are the same; those of earlier versions do not say."""
    for number in (1, 2, 3):
        file = begun.epoch_checkpoint(number).with_suffix(".json")
        record = json.loads(file.read_text())
        assert record["run"] == begun.id
        file.write_text(json.dumps(record | {"run": "" if number == 1 else "0123456789ab"}))
    lines = resumed(begun)
    assert "epoch0003.ckpt is one of run 0123456789ab; trying the one before" in lines
    assert "resuming after epoch 1" in lines
    assert as_undisturbed(begun, finished)


def test_a_damaged_best_checkpoint_costs_its_model_alone(begun):
    rows = begun.history_rows()
    rows = [row | ({"val/loss": -1.0} if row["epoch"] == 1 and "val/loss" in row else {}) for row in rows]
    checkpoints.confirm(begun, last(begun), 9, rows)  # epoch 1 was the best
    cut(begun.epoch_checkpoint(1))
    lines = resumed(begun)
    assert any("the model of the best epoch, 1, is not exported" in line for line in lines)
    assert begun.finished
    assert not begun.best_model.exists()


def test_probes_over_epochs_leave_a_changed_checkpoint_out(begun, finished):
    shutil.copytree(finished.model, begun.model)
    flip(begun.epoch_checkpoint(2))
    lines = []
    assert [snapshot.epoch for snapshot in checkpoint_snapshots(begun, lines.append)] == [1, 3]
    assert lines == ["  epoch0002.ckpt differs from its checksum and is left out"]


def test_a_run_keeps_its_best_epochs_and_the_last(tmp_path, monkeypatch):
    """While it trains the last but one too."""
    tiny_store()
    losses, seen = [5.0, 1.0, 2.0, 9.0, 3.0, 8.0, 7.0], []
    confirm = checkpoints.confirm

    def counted(run, file, steps, rows):
        for row in rows:
            if "val/loss" in row:
                row["val/loss"] = losses[int(row["epoch"])]
        confirm(run, file, steps, rows)

    monkeypatch.setattr("sweeps.training.saving.confirm", counted)
    monkeypatch.setattr(
        "sweeps.training.saving.prune",
        lambda *arguments, **options: (
            checkpoints.prune(*arguments, **options),
            seen.append(sorted(int(file.stem[5:]) for file in run.checkpoints.glob("epoch*.ckpt"))),
        ),
    )
    run = RunStore(tmp_path / "runs").create(tiny_config(train__epochs=6))
    (run.checkpoints).mkdir()
    (run.checkpoints / ".epoch0001.ckpt.12345678").touch()
    resumed(run)
    assert seen == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 4, 5], [1, 2, 4, 5, 6]]
    assert sorted(file.name for file in run.checkpoints.iterdir()) == sorted(
        f"epoch000{epoch}.{kind}" for epoch in (1, 2, 4, 6) for kind in ("ckpt", "json")
    )
    assert run.summary["best"]["epoch"] == 1


def test_rows_are_complete_with_both_halves_of_every_epoch():
    halves = [{"epoch": 0.0, "val/loss": 3.0}, {"epoch": 1.0, "val/loss": 2.0}, {"epoch": 1.0, "train/loss": 2.0}]
    assert complete(halves, 1)
    assert complete(halves[:2], 0)
    assert not complete(halves[:2], 1)
    assert not complete(halves[1:], 1)
    assert not complete(halves, 2)


def test_of_equal_epochs_the_first_is_best_and_nan_comes_last():
    values = [0.0, None, 2.0, 1.0, 1.0]
    rows = [{"epoch": float(epoch), "val/loss": value} for epoch, value in enumerate(values)]
    assert best_first(rows) == [3, 4, 2, 1]


def test_a_file_that_is_no_checkpoint_says_so(tmp_path):
    file = tmp_path / "epoch0001.ckpt"
    torch.save(torch.zeros(2), file)
    with pytest.raises(UnusableError, match="is no checkpoint"):
        load(file)


def test_an_epoch_resumed_in_its_middle_counts_the_seconds_of_both_processes(begun):
    clock = Progress(begun, lambda _line: None)
    clock.load_state_dict({"seconds": 100.0})
    clock.on_train_start(None, None)
    assert 100.0 <= clock.state_dict()["seconds"] < 105.0
    clock.on_train_epoch_start(None, None)
    assert clock.state_dict()["seconds"] < 5.0 < time.monotonic()


def test_killed_at_any_write_a_run_ends_as_an_undisturbed_one(tmp_path):
    """A fixed sample of a run of two epochs; `make kills` takes every place in three."""
    options = ["--stride", "29", "--offset", "5", "--epochs", "2"]
    command = [sys.executable, "-m", "tests.sweeps.training.kills", str(tmp_path), *options]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    found = json.loads(said.stdout)
    assert found["changes"] > 150
    assert found["killed"] >= found["changes"] // 29
    assert found["differ"] == []
