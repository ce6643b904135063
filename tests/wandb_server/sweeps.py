"""Sweeps: hand-out of trials, early termination, and the commands that agents get in answer to their heartbeats.

What a bayes sweep tries next is drawn at random here.
"""

import itertools
import json
import math
import random
from typing import Any

import yaml

from tests.wandb_server import filters, hyperband
from tests.wandb_server.graphql import NotFoundError, Variables, connection, operation
from tests.wandb_server.runs import project_node, run_node, sample
from tests.wandb_server.state import Agent, Run, State, Sweep, encode, now

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _name(state: State) -> str:
    """Eight characters, the same in every test."""
    return "".join(random.Random(next(state.ids)).choices(_LETTERS, k=8))


def _node(state: State, sweep: Sweep) -> dict[str, Any]:
    grid = _grid(sweep.config) if sweep.config["method"] == "grid" else None
    return {
        "__typename": "Sweep",
        "id": sweep.id,
        "name": sweep.name,
        "displayName": sweep.display_name,
        "method": sweep.config["method"],
        "state": sweep.state,
        "description": sweep.config.get("description"),
        "config": sweep.raw_config,
        "bestLoss": None,
        "createdAt": sweep.created,
        "updatedAt": now(),
        "heartbeatAt": now(),
        "earlyStopJobRunning": False,
        "controller": None,
        "scheduler": None,
        "controllerRunName": None,
        "runCount": len(sweep.runs),
        "runCountExpected": len(grid) if grid is not None else sweep.config.get("run_cap"),
        "project": project_node(state, sweep.entity, sweep.project),
        "agents": connection([_agent_node(each) for each in sweep.agents]),
    }


def _agent_node(agent: Agent) -> dict[str, Any]:
    return {
        "id": agent.id,
        "name": agent.name,
        "host": agent.host,
        "state": "RUNNING",
        "totalRuns": sum(command["type"] == "run" for command in agent.commands),
        "createdAt": agent.created,
        "heartbeatAt": now(),
    }


@operation("UpsertSweep")
def upsert_sweep(state: State, variables: Variables) -> dict[str, Any]:
    sweep = next((each for each in state.sweeps.values() if each.id == variables.get("id")), None)
    if sweep is None:
        entity, project = state.project(variables.get("entityName"), variables.get("projectName"))
        config = yaml.safe_load(variables["config"])
        if "parameters" not in config or config.get("method") not in ("grid", "random", "bayes"):
            raise ValueError("a sweep needs a method and parameters")
        title = variables.get("displayName") or config.get("name")
        sweep = Sweep(entity, project, _name(state), variables["config"], config, title)
        state.sweeps[sweep.name] = sweep
        _adopt_prior_runs(state, sweep, variables.get("priorRunsFilters"))
    elif variables.get("config"):
        sweep.raw_config, sweep.config = variables["config"], yaml.safe_load(variables["config"])
        sweep.queue = None
    sweep.state = variables.get("state") or sweep.state
    return {"upsertSweep": {"sweep": _node(state, sweep), "configValidationWarnings": []}}


def _adopt_prior_runs(state: State, sweep: Sweep, query: str | None) -> None:
    here = [run for run in state.runs.values() if (run.entity, run.project) == (sweep.entity, sweep.project)]
    for run in here:
        if query and filters.matches(run, json.loads(query)):
            run.sweep = sweep.name
            sweep.runs.append(run)


def _of_sweep(state: State, variables: Variables, **fields: Any) -> dict[str, Any]:
    name = variables.get("sweep") or variables.get("name")
    sweep = state.sweeps.get(name)
    if sweep is None:
        return {"project": {"sweep": None}}
    return {"project": project_node(state, sweep.entity, sweep.project) | {"sweep": _node(state, sweep) | fields}}


@operation("GetSweep", "GetSweepLegacy", "GetSweepState", "SweepConfig", "GetSweepAgents")
def get_sweep(state: State, variables: Variables) -> dict[str, Any]:
    return _of_sweep(state, variables)


@operation("GetSweepAgent", "GetAgentRuns")
def get_sweep_agent(state: State, variables: Variables) -> dict[str, Any]:
    agent = next(each for each in state.agents.values() if variables["agentID"] in (each.id, each.name))
    told = [command["run_id"] for command in agent.commands if command["type"] == "run"]
    runs = connection([run_node(state, run) for run in agent.sweep.runs if run.name in told], variables)
    return _of_sweep(state, variables, agent=_agent_node(agent) | {"runs": runs})


@operation("SweepWithRuns")
def sweep_with_runs(state: State, variables: Variables) -> dict[str, Any]:
    sweep = state.sweeps.get(variables["sweep"])
    specs = variables["specs"]  # GraphQL takes one for a list of one
    specs = [json.loads(spec) for spec in ([specs] if isinstance(specs, str) else specs)]
    nodes = [
        run_node(state, run) | {"sampledHistory": [sample(run, spec) for spec in specs]}
        for run in (sweep.runs if sweep else [])
    ]
    return _of_sweep(state, variables, runs=connection(nodes))


@operation("GetSweeps")
def get_sweeps(state: State, variables: Variables) -> dict[str, Any]:
    key = (variables["entity"], variables["project"])
    found = [_node(state, sweep) for sweep in state.sweeps.values() if (sweep.entity, sweep.project) == key]
    return {"project": {"totalSweeps": len(found), "sweeps": connection(found, variables)}}


@operation("CreateAgent")
def create_agent(state: State, variables: Variables) -> dict[str, Any]:
    sweep = state.sweeps.get(variables["sweep"])
    if sweep is None:
        raise NotFoundError(f"no sweep {variables['sweep']}")
    name = _name(state)
    agent = Agent(encode("Agent", name), name, variables["host"], sweep)
    state.agents[agent.id] = agent
    sweep.agents.append(agent)
    return {"createAgent": {"agent": _agent_node(agent)}}


@operation("Heartbeat")
def heartbeat(state: State, variables: Variables) -> dict[str, Any]:
    agent = state.agents.get(variables["id"])
    if agent is None or agent.sweep.name not in state.sweeps:
        raise NotFoundError("the sweep or the agent is gone")
    running = [name for name, alive in json.loads(variables["runState"]).items() if alive]
    _end_early(agent.sweep)
    commands = _stops(state, agent, running) if running else _next(state, agent)
    begun = [command["run_id"] for command in commands if command["type"] in ("run", "resume")]
    agent.current = next(iter(begun or running), None)
    agent.commands += commands
    return {"agentHeartbeat": {"agent": _agent_node(agent), "commands": json.dumps(commands)}}


def _end_early(sweep: Sweep) -> None:
    """Ask the runs to stop that the sweep's rule ends, as a person would; W&B does so every few minutes."""
    if sweep.config.get("early_terminate"):
        for run in hyperband.to_stop(sweep.config, sweep.runs):
            run.stop_asked = run.ended_early = True


def _stops(state: State, agent: Agent, running: list[str]) -> list[dict[str, Any]]:
    """Runs that are to end, each or all of a canceled sweep; said until the agent reports them gone."""
    sweep = agent.sweep
    asked = [run.name for run in sweep.runs if run.stop_asked or sweep.state == "CANCELED"]
    return [{"type": "stop", "run_id": name} for name in running if name in asked]


def _next(state: State, agent: Agent) -> list[dict[str, Any]]:
    """What an idle agent is to do."""
    sweep = agent.sweep
    agent.current = None
    if sweep.state in ("FINISHED", "CANCELED"):
        return [{"type": "exit"}]
    if sweep.state == "PAUSED":
        return []
    for run in sweep.runs:
        if run.state == "preempted":
            return [_command("resume", sweep, run)]
    args = _draw(sweep)
    if args is None:
        if all(each.current is None for each in sweep.agents):
            sweep.state = "FINISHED"
        return [{"type": "exit"}]
    run = state.make_run(sweep.entity, sweep.project, _name(state))
    run.display_name = f"{run.name[:4]}-sweep-{len(sweep.runs) + 1}"
    run.sweep, run.agent = sweep.name, agent.name
    run.raw_config = {key: {"value": value} for key, value in args.items()}
    sweep.runs.append(run)
    return [_command("run", sweep, run)]


def _command(kind: str, sweep: Sweep, run: Run) -> dict[str, Any]:
    run.reported, run.preempting = "pending", False  # until its process is heard of
    keys = sweep.config["parameters"]
    args = {key: {"value": value} for key, value in run.config.items() if key in keys}
    return {"type": kind, "run_id": run.name, "program": sweep.config.get("program"), "args": args}


def _grid(config: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = config["parameters"]
    choices = [_choices(spec) for spec in parameters.values()]
    return [dict(zip(parameters, cell, strict=True)) for cell in itertools.product(*choices)]


def _choices(spec: dict[str, Any]) -> list[Any]:
    """What a grid tries of one parameter: its values, or all whole numbers between two bounds."""
    if "min" in spec:
        return list(range(spec["min"], spec["max"] + 1))
    return spec["values"] if "values" in spec else [spec["value"]]


def _draw(sweep: Sweep) -> dict[str, Any] | None:
    """The next trial's parameters; None when there is no more."""
    if len(sweep.runs) >= sweep.config.get("run_cap", math.inf):
        return None
    if sweep.config["method"] == "grid":
        if sweep.queue is None:
            sweep.queue = _grid(sweep.config)
        return sweep.queue.pop(0) if sweep.queue else None
    generator = random.Random(len(sweep.runs))
    return {key: _sample(spec, generator) for key, spec in sweep.config["parameters"].items()}


def _sample(spec: dict[str, Any], generator: random.Random) -> Any:
    """One value of a parameter of a random sweep."""
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return generator.choices(spec["values"], spec.get("probabilities"))[0]
    low, high = spec["min"], spec["max"]
    match spec.get("distribution"):
        case "int_uniform":
            return generator.randint(low, high)
        case "uniform":
            return generator.uniform(low, high)
        case "log_uniform_values":
            return math.exp(generator.uniform(math.log(low), math.log(high)))
        case other:
            raise ValueError(f"distribution {other} is not one of the double's")
