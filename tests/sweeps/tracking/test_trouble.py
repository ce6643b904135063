"""No error of W&B ends a launch, a training or a probe, and each is one sentence."""

import time
from contextlib import closing

import pytest
import wandb

from probes.probing import probe_run
from sweeps.launching import plan, register_planned
from sweeps.queue import server
from sweeps.queue.opening import open_queue
from sweeps.runs.store import RunStore
from sweeps.tracking import connection, session
from sweeps.tracking.sync import sync, waiting
from sweeps.training import trial
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_config
from tests.wandb_server.faults import Fault

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_server")]


def silent(_line):
    return None


@pytest.fixture(autouse=True)
def little_patience(images, monkeypatch):
    monkeypatch.setattr(connection, "_TIMEOUT", 2)
    monkeypatch.setattr(session, "PATIENCE", 3.0)


def sentences(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line]


def test_a_client_whose_service_dies_ends_no_training(wandb_server, monkeypatch, capsys):
    """What it raises then is none of W&B's published errors."""
    real = trial.MoEModule.on_train_start

    def kill(self):
        real(self)
        service = wandb.setup().ensure_service()._proc._process
        service.kill()
        service.wait()

    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "on_train_start", kill)
        run = train(tiny_config(), report=silent)
    assert run.finished
    assert [line for line in sentences(capsys) if "`moe runs sync` completes" in line]
    assert [one.id for one in waiting(RunStore())] == [run.id]
    assert sync([run], silent) == []
    assert wandb_server.run(run.id).series("epoch") == [0, 1, 2]
    assert wandb_server.artifact(f"model-{run.id}:last")


@pytest.mark.parametrize("trouble", ["cut", "status"])
def test_a_server_that_is_away_ends_no_probe(wandb_server, trained, capsys, trouble):
    with wandb_server.faults.during(trouble, status=503):
        results = probe_run(trained.id, ["routing"], ["tiny"], silent)
    assert results["images"]["tiny"]["routing"]["load_cv2"] >= 0
    assert [line for line in sentences(capsys) if "kept offline for `moe runs sync`" in line]
    assert sync([trained], silent) == []
    assert "probe/tiny/routing/figures/routing" in wandb_server.run(trained.id).summary
    assert wandb_server.run(trained.id).state == "finished"


def test_sync_says_at_once_that_the_server_is_away_and_loses_nothing(wandb_server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        runs = [train(tiny_config(seed=seed), report=silent) for seed in range(2)]
    lines = []
    started = time.monotonic()
    with wandb_server.faults.during("cut"):
        left = sync(runs, lines.append)
    assert time.monotonic() - started < 30
    assert [one.run for one in left] == [run.id for run in runs]
    (line,) = lines
    assert "gave no answer" in line
    assert sync(runs, silent) == []
    assert len(wandb_server.runs()) == 2


def test_a_server_that_stops_answering_ends_no_launch(wandb_server, monkeypatch, tmp_path, capsys):
    """Cells are shown as it last said; the agents go on."""
    lines = ["name: little", "method: grid", "parameters:", "  seed: {values: [0, 1]}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in TINY.items()]
    (tmp_path / "little.yaml").write_text("\n".join(lines) + "\n")
    sweep = register_planned(*plan(str(tmp_path / "little.yaml"), {}), "wandb")
    monkeypatch.setattr(server, "_FRESH", 0.0)
    with closing(open_queue(sweep)) as queue:
        before = queue.states()
        sentences(capsys)
        fault = wandb_server.faults.add(Fault("status", status=503))
        assert queue.states() == queue.states() == before
        assert queue.left_over() == []
        wandb_server.faults.remove(fault)
        said = sentences(capsys)
        assert [line for line in said if "as it last said" in line] == said[:1]
        assert queue.states() == before
        assert len(queue.left_over()) == 2
