"""Confirmed means asked: what the server holds is compared with the run's own files."""

import pytest

from probes.probing import probe_run
from sweeps.runs.store import RunStore
from sweeps.tracking.holdings import lacking
from sweeps.tracking.record import Record
from sweeps.tracking.sync import sync, waiting
from sweeps.training import trial
from sweeps.training.trial import train
from tests.conftest import tiny_config
from tests.wandb_server.faults import Fault

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_server", "images")]


def silent(_line):
    return None


@pytest.mark.parametrize("status", [403, 404])
def test_a_stream_that_was_refused_once_in_mid_run_is_noticed_and_completed(wandb_server, monkeypatch, capsys, status):
    """W&B's client drops the stream then, and ends with code 0."""
    real = trial.MoEModule.on_train_start

    def refuse(self):
        real(self)
        wandb_server.faults.fail(1, status=status, match="file_stream")

    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "on_train_start", refuse)
        run = train(tiny_config(train__epochs=3), report=silent)
    assert run.finished
    there = wandb_server.run(run.id)
    assert there.series("epoch") != [0, 1, 2, 3]
    assert "the server lacks epochs" in capsys.readouterr().err
    assert [one.id for one in waiting(RunStore())] == [run.id]
    assert sync([run], silent) == []
    assert there.series("epoch") == [0, 1, 2, 3]
    assert there.series("val/loss") == [row["val/loss"] for row in run.history()]
    assert there.summary["best/epoch"] == run.summary["best"]["epoch"]
    assert (there.state, waiting(RunStore())) == ("finished", [])


def test_a_named_run_is_always_asked_about(wandb_server, trained):
    there = wandb_server.run(trained.id)
    assert lacking(trained).words() == ""
    del there.history_lines[2:], there.summary["best/epoch"]
    there.summary["_step"] = 1
    assert lacking(trained).words() == "epochs 2, 1 values of the summary (best/epoch)"
    assert sync([trained], silent) == []  # it counts as confirmed
    assert there.series("epoch") == [0, 1]
    assert sync([trained], silent, ask=True) == []
    assert there.series("epoch") == [0, 1, 2]
    assert there.summary["best/epoch"] == trained.summary["best"]["epoch"]


def test_a_picture_that_was_refused_is_sent_again(wandb_server, capsys):
    fault = wandb_server.faults.add(Fault("status", "media/images/routing", status=403, count=1))
    run = train(tiny_config(), report=silent)
    assert fault.hits == 1
    assert "the server lacks 1 pictures" in capsys.readouterr().err
    (name,) = lacking(run).files
    assert sync([run], silent) == []
    assert wandb_server.content(wandb_server.run(run.id), name).startswith(b"\x89PNG")
    assert lacking(run).words() == ""


def test_results_of_a_probe_that_did_not_arrive_are_noticed(wandb_server, trained, capsys):
    there = wandb_server.run(trained.id)
    with wandb_server.faults.during("status", "file_stream", status=403) as fault:
        probe_run(trained.id, ["routing"], ["tiny"], silent)
    assert fault.hits
    assert "probe/tiny/routing/figures/routing" not in there.summary
    assert Record.of(trained).unconfirmed
    assert "the server lacks" in capsys.readouterr().err
    assert sync([trained], silent) == []
    assert "probe/tiny/routing/figures/routing" in there.summary
