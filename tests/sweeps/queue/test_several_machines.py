"""Two homes, as on two machines, with one queue in PostgreSQL."""

import json
import os
import subprocess

import pytest

from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue
from sweeps.runs.store import RunStore
from tests.conftest import tiny_store
from tests.sweeps.test_sweep_cli import DEADLINE, MOE, moe, write_spec

pytestmark = pytest.mark.slow


def test_a_second_machine_joins_by_name_and_url(tmp_path, postgres_database):
    tiny_store()
    sweep = register_planned(*plan(str(write_spec(tmp_path, epochs=2, seeds=4)), {}), storage=postgres_database)
    queue = open_queue(sweep)
    queue.publish(sweep.cells)
    environments = [os.environ | {"MOE_HOME": str(tmp_path / home)} for home in ("runs", "elsewhere")]
    command = [*MOE, "sweep", "agent", "little", "--storage", postgres_database]
    agents = [subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL) for env in environments]
    assert [agent.wait(DEADLINE) for agent in agents] == [0, 0]
    here, elsewhere = ({run.id for run in RunStore(tmp_path / home).all()} for home in ("runs", "elsewhere"))
    assert here
    assert elsewhere
    assert not here & elsewhere
    assert here | elsewhere == {cell.run_id for cell in sweep.cells}
    states = queue.states()
    assert {state.state for state in states.values()} == {"finished"}
    assert {run_id for run_id, state in states.items() if state.here} == here
    queue.close()
    again = moe("sweep", "launch", tmp_path / "little.yaml", "--storage", postgres_database)
    assert "4 of 4 already finished" in again.stderr
    shown = json.loads(moe("sweep", "status", "little", "--storage", postgres_database, "--json").stdout)
    assert [trial["state"] for trial in shown["trials"]] == ["finished"] * 4


def test_an_unknown_sweep_is_a_users_mistake(tmp_path, postgres_database):
    said = moe("sweep", "agent", "absent", "--storage", postgres_database, code=2)
    assert 'no sweep "absent" in postgresql' in said.stderr
