"""The real client's sweeps and its own agents, through the double."""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from tests.wandb_server.faults import wait_until
from tests.wandb_server.state import CRASH_AFTER

TRIAL = str(Path(__file__).parent / "program" / "trial.py")


@pytest.fixture
def sweep(wandb_server):
    """Makes a sweep of that trial and gives its name."""
    import wandb

    def make(parameters, method="grid", **config):
        config |= {"program": TRIAL, "method": method, "command": [sys.executable, "${program}"]}
        return wandb.sweep(config | {"parameters": parameters}, project="moe")

    return make


def finished(process, seconds=120):
    """What a process printed; it ends with code 0."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output


def agent_of(server, name, *options):
    return server.client("agent", *options, f"me/moe/{name}")


@pytest.mark.slow
def test_two_official_agents_share_a_grid(wandb_server):
    """Unmodified from the sweep file on: `wandb sweep` and `wandb agent`."""
    parameters = {"model.top_k": {"values": [1, 2]}, "seed": {"values": [0, 1]}, "data.name": {"value": "tiny"}}
    config = {"name": "paper", "program": TRIAL, "method": "grid", "parameters": parameters}
    config["command"] = ["${env}", sys.executable, "${program}", "${args}"]
    (wandb_server.folder / "paper.yaml").write_text(yaml.safe_dump(config))
    finished(wandb_server.client("sweep", "--project", "moe", "paper.yaml"))
    (name,) = wandb_server.state.sweeps
    assert wandb_server.sweep(name).config == config
    agents = [agent_of(wandb_server, name) for _ in range(2)]
    for output in map(finished, agents):
        assert "--data.name=tiny --model.top_k=" in output
    there = wandb_server.sweep(name)
    cells = [(run.config["model.top_k"], run.config["seed"]) for run in there.runs]
    assert sorted(cells) == list(itertools.product([1, 2], [0, 1]))
    assert {run.config["data.name"] for run in there.runs} == {"tiny"}
    assert there.state == "FINISHED"
    assert len({run.agent for run in there.runs}) == 2
    for run in there.runs:
        assert (run.state, run.group, run.series("step")) == ("finished", "paper", [0, 1, 2])


@pytest.mark.slow
def test_the_public_api_reads_a_sweep(wandb_server, sweep):
    import wandb

    name = sweep({"seed": {"values": [0, 1]}, "code": {"value": 0}})
    finished(agent_of(wandb_server, name, "--count", "1"))
    found = wandb.Api().sweep(f"me/moe/{name}")
    assert (found.state, found.expected_run_count, len(found.agents())) == ("RUNNING", 2, 1)
    assert [(run.state, run.config["seed"], run.summary["step"]) for run in found.runs] == [("finished", 0, 2)]
    assert [run.id for run in wandb.Api().runs("me/moe", {"sweep": name})] == [run.name for run in wandb_server.runs()]
    assert [each.id for each in wandb.Api().project("moe", "me").sweeps()] == [name]


@pytest.mark.slow
def test_random_draws_until_the_cap(wandb_server, sweep):
    parameters = {
        "seed": {"min": 0, "max": 9},
        "lr": {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"},
        "gate": {"values": ["topk", "noisy"]},
    }
    name = sweep(parameters, "random", run_cap=2)
    finished(agent_of(wandb_server, name))
    there = wandb_server.sweep(name)
    assert (there.state, len(there.runs)) == ("FINISHED", 2)
    for run in there.runs:
        assert run.config["seed"] in range(10)
        assert 1e-4 <= run.config["lr"] <= 1e-2


@pytest.mark.slow
def test_states_of_a_sweep(wandb_server, sweep):
    name = sweep({"seed": {"values": [0]}})
    for flag, state in (("--pause", "PAUSED"), ("--resume", "RUNNING"), ("--stop", "FINISHED")):
        finished(wandb_server.client("sweep", flag, f"me/moe/{name}"))
        assert wandb_server.sweep(name).state == state
    finished(agent_of(wandb_server, name))
    assert not wandb_server.runs(), "an agent of a stopped sweep leaves"


@pytest.mark.slow
def test_cancel_ends_running_trials(wandb_server, sweep):
    name = sweep({"sleep": {"value": 60}})
    agent = agent_of(wandb_server, name)
    wait_until(lambda: wandb_server.runs() and wandb_server.runs()[0].history, what="history")
    finished(wandb_server.client("sweep", "--cancel", f"me/moe/{name}"))
    finished(agent)
    (run,) = wandb_server.sweep(name).runs
    assert (run.state, run.exit_code) == ("failed", 5)
    assert [command["type"] for command in wandb_server.sweep(name).agents[0].commands][-1] == "exit"


@pytest.mark.slow
def test_a_crashed_cell_goes_on_in_the_same_run(wandb_server, sweep):
    name = sweep({"seed": {"values": [7]}, "sleep": {"value": 60}})
    agent = agent_of(wandb_server, name)
    wait_until(lambda: wandb_server.runs() and wandb_server.runs()[0].history, what="history")
    (run,) = wandb_server.runs()
    agent.kill()
    os.kill(run.history[0]["pid"], signal.SIGKILL)
    agent.communicate()
    assert run.state == "running"
    run.crash_after = 0.5
    wait_until(lambda: run.state == "crashed", what="a crash")
    run.crash_after = CRASH_AFTER
    env = {"WANDB_RUN_ID": run.name, "WANDB_SWEEP_ID": name, "WANDB_PROJECT": "moe"}
    finished(wandb_server.python(TRIAL, env=env))
    assert wandb_server.sweep(name).runs == [run]
    assert (run.state, run.config["seed"], run.series("step")) == ("finished", 7, [0, 1, 2, 3, 4, 5])


@pytest.mark.slow
def test_a_preempted_trial_is_handed_out_again(wandb_server, sweep):
    name = sweep({"preempted": {"value": True}, "code": {"value": 1}})
    finished(agent_of(wandb_server, name))
    (run,) = wandb_server.sweep(name).runs
    assert [command["type"] for command in wandb_server.sweep(name).agents[0].commands] == ["run", "resume", "exit"]
    assert (run.state, run.series("step")) == ("finished", [0, 1, 2, 3, 4, 5])


@pytest.mark.slow
def test_the_agent_of_a_deleted_sweep_says_so(wandb_server, sweep):
    name = sweep({"seed": {"values": [0]}})
    wandb_server.sweep(name).state = "PAUSED"
    agent = agent_of(wandb_server, name)
    wait_until(lambda: wandb_server.called("Heartbeat"), what="a heartbeat")
    del wandb_server.state.sweeps[name]
    output, _ = agent.communicate(timeout=60)
    assert agent.returncode == 1, output


@pytest.mark.slow
def test_a_trial_that_a_signal_ends_is_no_failure_to_the_agent(wandb_server, sweep):
    """It goes on to the next, so whoever wants the cell must look at the runs."""
    name = sweep({"sleep": {"values": [60, 0]}})
    agent = agent_of(wandb_server, name, "--max-consecutive-failed-runs", "1")
    wait_until(lambda: wandb_server.runs() and wandb_server.runs()[0].history, what="history")
    os.kill(wandb_server.runs()[0].history[0]["pid"], signal.SIGKILL)
    finished(agent)
    assert [run.state for run in wandb_server.sweep(name).runs] == ["running", "finished"]
