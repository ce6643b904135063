"""How a run ended, in W&B: by an error, killed, told to stop, or stopped for good by a person there."""

import time

import pytest
from wandb.sdk.lib.run_stopping import RunStopChecker

from probes.probing import probe_run
from sweeps.runs.endings import STOPPED, Ending, StoppedRunError, exit_code_of
from sweeps.tracking.mirror import tell_failure
from sweeps.tracking.record import Record
from sweeps.training import trial
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store
from tests.wandb_server.faults import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_server")]


def silent(_line):
    return None


@pytest.fixture(autouse=True)
def images(isolated):
    tiny_store()


def at_step(monkeypatch, number, act):
    """Calls `act` before a step of the training that follows."""
    real = trial.MoEModule.training_step

    def step(self, batch, batch_idx):
        if self.global_step == number:
            act(self)
        return real(self, batch, batch_idx)

    monkeypatch.setattr(trial.MoEModule, "training_step", step)


def test_a_run_that_is_stopped_in_wandb_ends_for_good_and_goes_on_when_it_is_asked_to(wandb_server, monkeypatch):
    """The server may go on saying that it is to stop, which was long obeyed: resumed and stopped without end."""
    monkeypatch.setitem(RunStopChecker.__init__.__kwdefaults__, "poll_interval", 0.2)
    config = tiny_config()
    handler = []

    def stop(module):
        wandb_server.run(config.identity()).stop_asked = True
        wait_until(lambda: module.trainer.callbacks and any(one.stop.requested for one in module.trainer.callbacks
                                                            if hasattr(one, "stop")), what="the stop")  # fmt: skip
        handler.append(time.monotonic())

    with monkeypatch.context() as patch:
        at_step(patch, 4, stop)
        with pytest.raises(StoppedRunError, match="stopped by you in W&B") as stopped:
            train(config, group="little", report=silent)
    assert exit_code_of(stopped.value) == STOPPED
    there = wandb_server.run(config.identity())
    assert (there.state, there.exit_code, there.preempting) == ("failed", STOPPED, False)
    assert there.summary["ending"] == "stopped by you"
    assert there.series("epoch") == [0, 1]
    run = train(config, group="little", report=silent)  # the server still says that it is to stop
    assert (there.state, there.series("epoch")) == ("finished", [0, 1, 2])
    assert "ending" not in there.summary
    assert Record.of(run).stopped
    probe_run(run.id, ["routing"], ["tiny"], silent)
    assert there.state == "finished"


def test_why_a_run_failed_is_in_wandb_with_its_log_and_gone_when_it_has_finished(wandb_server, monkeypatch):
    config = tiny_config(train__epochs=1)

    def fail(_module):
        raise ValueError("expert 3 has no weights")

    with monkeypatch.context() as patch:
        at_step(patch, 2, fail)
        with pytest.raises(ValueError, match="expert 3"):
            train(config, report=silent)
    run = trial.RunStore().run(config.identity())
    there = wandb_server.run(run.id)
    assert (there.state, there.summary["ending"]) == ("failed", "failed")
    assert there.summary["failure"] == "ValueError: expert 3 has no weights"
    run.log_file.write_text("the machine went down\n")
    tell_failure(run, Ending.KILLED, "killed by SIGKILL")  # by its agent
    assert (there.summary["ending"], there.summary["failure"]) == ("killed", "killed by SIGKILL")
    assert wandb_server.content(there, "log.txt") == b"the machine went down\n"
    run.log_file.write_text("whole again\n")
    train(config, report=silent)
    assert (there.state, there.summary.keys() & {"ending", "failure"}) == ("finished", set())
    assert wandb_server.content(there, "log.txt") == b"whole again\n"
    assert not [key for key in there.summary if key.startswith(("balance/load_", "balance/importance_"))]
    assert {"routing/tables/experts", "routing/tables/heatmap", "best/val/loss"} <= there.summary.keys()
    assert len(there.summary) < 65, sorted(there.summary)
