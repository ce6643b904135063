"""Real training of tiny models: same bits, resume, skip, failure."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from safetensors.torch import load_file

from moe.config import flat
from moe.data.store import data_root
from moe.errors import UserError
from sweeps.runs.endings import OUT_OF_MEMORY
from sweeps.runs.lock import locked
from sweeps.runs.store import RunStore
from sweeps.training import trial
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_config, tiny_place, tiny_store


def silent(_line):
    return None


def weights(run):
    return load_file(run.model / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run in a home of its own."""
    with tiny_place(tmp_path_factory.mktemp("finished")) as runs:
        yield train(tiny_config(), runs, report=silent)


pytestmark = pytest.mark.slow


def test_a_run_leaves_everything_behind(finished):
    assert finished.finished
    assert finished.state.attempts == 1
    assert [row["epoch"] for row in finished.history()] == [0, 1, 2]
    keys = {
        "val/loss",
        "train/loss",
        "balance/cv2",
        "balance/dead",
        "agreement/top_k",
        "agreement/chance_observed",
        "agreement_train/top_k",
        "gate/entropy",
        "routing/class_information",
        "routing/saturation",
        "embedding/knn",
        "embedding/linear",
        "embedding/rank",
        "embedding/alignment",
        "embedding/uniformity",
        "shared/knn",
        "experts/linear_0",
        "experts/cka",
        "lr",
    }
    assert keys <= set(finished.history()[-1])
    assert finished.summary["last"] == finished.history()[-1]
    assert finished.summary["untrained"] == finished.history()[0]
    facts = finished.provenance
    assert facts["seed"] == 0
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0]
    assert facts["images"] == {"train": 48, "validation": 48}
    kinds = ("heatmap", "classes", "coactivation", "expert_similarity")
    tables = {f"{kind}_{n:04d}.csv" for kind in kinds for n in range(3)}
    assert {file.name for file in finished.routing.glob("*.csv")} == tables | {"saturation.csv"}
    assert {file.name for file in finished.checkpoints.iterdir()} == {
        f"epoch000{epoch}.{kind}" for epoch in (1, 2) for kind in ("ckpt", "json")
    }
    assert finished.progress["epoch"] == 2


def test_the_learning_rate_follows_the_cosine(finished):
    rates = [row["lr"] for row in finished.history()[1:]]
    assert rates == pytest.approx([1e-3, (1e-3 + 1e-6) / 2], rel=1e-6)


def test_same_config_same_bits_and_another_seed_others(finished, tmp_path):
    tiny_store()
    again = train(tiny_config(), RunStore(tmp_path / "again"), report=silent)
    assert same(weights(again), weights(finished))
    assert again.history() == finished.history()
    other = train(tiny_config(seed=1), RunStore(tmp_path / "again"), report=silent)
    assert not same(weights(other), weights(finished))


def stopping_at(patch, steps):
    """Send SIGTERM to this process in the given steps, counted over the whole run, once each."""
    real, left = trial.MoEModule.training_step, set(steps)

    def step(self, batch, batch_idx):
        if self.global_step in left:
            left.remove(self.global_step)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, batch_idx)

    patch.setattr(trial.MoEModule, "training_step", step)


@pytest.mark.parametrize("steps", [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4]], ids=str)
def test_told_to_stop_at_any_step_a_run_ends_with_the_same_bits(finished, tmp_path, monkeypatch, steps):
    """Three steps an epoch, two epochs; a stop takes effect after the step, with its checkpoint."""
    tiny_store()
    store = RunStore(tmp_path / "stopped")
    stopping_at(monkeypatch, steps)
    lines = []
    for step in steps:
        with pytest.raises(trial.InterruptedRunError):
            train(tiny_config(), store, report=lines.append)
        after = "epoch 1" if step == 2 else f"epoch {step // 3} and {step % 3 + 1} of 3 steps"
        expected = f"resuming after {after}"
        run = store.create(tiny_config())
        assert run.state.state == "waiting"
    train(tiny_config(), store, report=lines.append)
    assert expected in lines
    assert run.finished
    assert not list(run.checkpoints.glob("step*"))
    assert run.state.attempts == len(steps) + 1
    assert same(weights(run), weights(finished))
    assert run.history() == finished.history()
    for file in finished.routing.glob("*.csv"):
        assert (run.routing / file.name).read_bytes() == file.read_bytes()


def test_told_to_stop_in_its_last_step_a_run_finishes(finished, tmp_path, monkeypatch):
    tiny_store()
    stopping_at(monkeypatch, [5])
    run = train(tiny_config(), RunStore(tmp_path / "runs"), report=silent)
    assert run.finished
    assert same(weights(run), weights(finished))


def test_told_to_stop_before_training_nothing_is_lost(tmp_path, monkeypatch):
    tiny_store()
    real = trial.MoEModule.validation_step

    def step(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, batch_idx)

    store = RunStore(tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "validation_step", step)
        with pytest.raises(trial.InterruptedRunError):
            train(tiny_config(), store, report=silent)
    assert train(tiny_config(), store, report=silent).finished


def test_signal_handlers_are_those_of_before(tmp_path):
    tiny_store()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(tiny_config(train__epochs=1), RunStore(tmp_path / "runs"), report=silent)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_crash_loses_no_more_than_the_time_between_checkpoints(finished, tmp_path, monkeypatch):
    """Checkpoints after every step here; the process dies in step 4 without a chance to save."""
    tiny_store()
    store = RunStore(tmp_path / "crash")
    real = trial.MoEModule.training_step

    def die(self, batch, batch_idx):
        if self.global_step == 4:
            raise ZeroDivisionError
        return real(self, batch, batch_idx)

    often = tiny_config(machine__checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "training_step", die)
        with pytest.raises(ZeroDivisionError):
            train(often, store, report=silent)
    lines = []
    run = train(often, store, report=lines.append)
    assert "resuming after epoch 1 and 1 of 3 steps" in lines
    assert same(weights(run), weights(finished))
    assert run.history() == finished.history()
    assert not list(run.checkpoints.glob("step*"))


def test_a_run_does_not_go_on_with_other_images_of_the_same_name(moe, tmp_path, monkeypatch):
    tiny_store()
    config = tiny_config(machine__checkpoint_minutes=1e-9)
    store, real = RunStore(), trial.MoEModule.training_step

    def die(self, batch, batch_idx):
        if self.global_step == 1:
            raise ZeroDivisionError
        return real(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "training_step", die)
        with pytest.raises(ZeroDivisionError):
            train(config, store, report=silent)
    shutil.rmtree(data_root() / "tiny")
    tiny_store(seed=1)
    run = store.find(config.identity())
    with pytest.raises(UserError, match=rf"run {run.id} was begun on other images than tiny has now; import"):
        train(config, store, report=silent)
    shutil.rmtree(data_root() / "tiny")
    tiny_store()
    lines = []
    assert train(config, store, report=lines.append).finished
    assert "resuming after epoch 0 and 1 of 3 steps" in lines
    shutil.rmtree(data_root() / "tiny")
    tiny_store(seed=1)
    train(config, store, report=lines.append)
    assert lines[-1].startswith("it was trained on other images than tiny has now; give the new ones a name of their")


def test_a_supervised_run(tmp_path):
    tiny_store()
    # the class shows in the brightness, so that stays as it is
    config = tiny_config(loss__objective="supervised", train__epochs=20, train__lr=3e-3, augment__jitter=0.0)
    history = train(config, RunStore(tmp_path / "runs"), report=silent).history()
    assert history[0]["val/objective"] == pytest.approx(1.0986, rel=0.2)  # log 3 classes
    assert history[-1]["train/objective"] < 0.7
    assert history[-1]["train/accuracy"] > 0.75
    assert history[-1]["val/accuracy"] > 0.75


def test_a_resumed_run_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
    """Stopped after its first epoch, in the middle of the second, and continued."""
    tiny_store()
    store = RunStore(tmp_path / "resumed")
    real = trial.MoEModule.training_step

    def stop_in_second_epoch(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 1:
            raise KeyboardInterrupt
        return real(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "training_step", stop_in_second_epoch)
        with pytest.raises(trial.InterruptedRunError):
            train(tiny_config(), store, report=silent)
    run = store.create(tiny_config())
    assert run.state.state == "waiting"
    assert not run.finished
    lines = []
    train(tiny_config(), store, report=lines.append)
    assert "resuming after epoch 1" in lines[1]
    assert run.finished
    assert run.state.attempts == 2
    assert same(weights(run), weights(finished))
    assert run.history() == finished.history()


def test_a_finished_run_is_skipped(finished):
    before = finished.history_file.stat().st_mtime_ns
    lines = []
    train(tiny_config(), RunStore(finished.path.parent), report=lines.append)
    assert "finished already" in lines[0]
    assert finished.history_file.stat().st_mtime_ns == before


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path):
    tiny_store()
    store = RunStore(tmp_path / "runs")
    run = store.create(tiny_config())
    with locked(run.lock_file), pytest.raises(UserError, match="another process"):
        train(tiny_config(), store, report=silent)


def test_a_failure_is_recorded_with_its_reason(tmp_path, monkeypatch):
    tiny_store()

    def broken(self, batch, batch_idx):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(trial.MoEModule, "training_step", broken)
    store = RunStore(tmp_path / "runs")
    with pytest.raises(RuntimeError, match="no memory"):
        train(tiny_config(), store, report=silent)
    state = store.create(tiny_config()).state
    assert (state.state, state.error) == ("failed", "RuntimeError: no memory left")


def test_memory_that_ends_while_training_is_said_with_what_to_lower(moe, tmp_path, monkeypatch):
    tiny_store()

    def hungry(self, batch, batch_idx):
        return {"loss": torch.empty(2**50)}

    monkeypatch.setattr(trial.MoEModule, "training_step", hungry)
    config = tiny_config()
    code, _, err = moe("train", *(f"--{path}={value}" for path, value in TINY.items()))
    said = (
        f"has no more memory for run {config.identity()}; lower train.batch_size=16, data.image_size=16, model.width="
    )
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
    state = RunStore().find(config.identity()).state
    assert (state.state, state.error) == ("failed", err.removeprefix("error: ").strip())
    monkeypatch.setenv("MOE_SWEEP", "one")
    assert moe("train", *(f"--{path}={value}" for path, value in TINY.items()))[0] == OUT_OF_MEMORY


def test_too_large_a_batch_is_a_users_mistake(tmp_path):
    tiny_store()
    with pytest.raises(UserError, match=r"train.batch_size=64 exceeds the 48 images"):
        train(tiny_config(train__batch_size=64), RunStore(tmp_path / "runs"), report=silent)


def test_a_run_is_whole_as_whichever_task_of_a_slurm_job_it_is_trained(tmp_path, monkeypatch):
    """`srun -n 4 moe sweep agent SWEEP` starts tasks of the ranks 0 to 3, as Lightning counts them."""
    monkeypatch.setattr(rank_zero_only, "rank", 2)
    monkeypatch.setenv("SLURM_PROCID", "2")
    tiny_store()
    run = train(tiny_config(train__epochs=1), RunStore(tmp_path / "runs"), report=silent)
    assert run.finished
    assert [row["epoch"] for row in run.history()] == [0, 1]


def test_moe_train_writes_an_offline_tracker_run_without_asking_for_a_key(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("MOE_SWEEP", "a-sweep")
    tiny_store()
    config = tiny_config(train__epochs=1)
    flags = [f"--{path}={value}" for path, value in flat(config).items() if path in TINY]
    command = [sys.executable, "-P", "-m", "cli", "train", *flags]
    said = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert f"run {config.identity()}: tiny, 48 images at 16 px, E = 4, k = 2, seed 0" in said.stdout
    assert "epoch 1/1" in said.stdout
    run = RunStore().find(config.identity())
    assert run.finished
    (folder,) = (run.path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run.id)
    binary = next(folder.glob("run-*.wandb")).read_bytes()
    for word in (b"val/loss", b"balance/cv2", b"agreement/top_k", b"routing/heatmap", b"a-sweep"):
        assert word in binary
