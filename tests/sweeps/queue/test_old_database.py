"""A database made by the version before endings were a type: it opens, says how trials ended, and goes on."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy as sa

from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue, open_sweep
from sweeps.queue.status import status
from sweeps.queue.storage import url_of
from sweeps.runs.endings import Ending
from sweeps.runs.files import write_json
from tests.sweeps.test_sweep_cli import write_spec

# as SQLAlchemy made them for SQLite and for PostgreSQL alike
TABLES = """
CREATE TABLE moe_cells (
    sweep VARCHAR(200) NOT NULL, cell VARCHAR(64) NOT NULL, run_id VARCHAR(64) NOT NULL, number INTEGER NOT NULL,
    present BOOLEAN NOT NULL, parameters TEXT NOT NULL, state VARCHAR(10) NOT NULL, attempts INTEGER NOT NULL,
    failures INTEGER NOT NULL, losses INTEGER NOT NULL, weight INTEGER NOT NULL, owner VARCHAR(300),
    beat INTEGER NOT NULL, error TEXT, value FLOAT, finished_at TEXT, trial INTEGER, note TEXT,
    PRIMARY KEY (sweep, cell));
CREATE INDEX moe_cells_waiting ON moe_cells (sweep, present, state, number);
CREATE TABLE moe_suggestions (
    sweep VARCHAR(200) NOT NULL, number INTEGER NOT NULL, parameters TEXT NOT NULL, PRIMARY KEY (sweep, number));
CREATE TABLE moe_sweeps (
    sweep VARCHAR(200) NOT NULL, stop BOOLEAN NOT NULL, definition TEXT, PRIMARY KEY (sweep))
"""
ROW = {"state": "waiting", "attempts": 0, "failures": 0, "owner": None, "error": None, "value": None,
       "finished_at": None, "note": None}  # fmt: skip
INSERT = """
INSERT INTO moe_cells (sweep, cell, run_id, number, present, parameters, losses, weight, beat, {})
VALUES (:sweep, :cell, :cell, :number, true, :parameters, 0, 1, 0, {})
"""
EARLY = "stopped early after epoch 1: val/loss was not among the best"
ENDS = [
    ({"state": "finished", "attempts": 1, "value": 0.5, "finished_at": "HOME"}, Ending.FINISHED),
    ({"state": "finished", "attempts": 1, "finished_at": "HOME", "note": EARLY}, Ending.STOPPED_EARLY),
    ({"state": "finished", "note": "not run: another run reached the metric's target"}, Ending.NOT_NEEDED),
    ({"state": "failed", "attempts": 3, "failures": 3, "error": "boom", "note": "the end of its log"}, Ending.FAILED),
    ({"attempts": 1, "failures": 1, "error": "killed by SIGKILL"}, Ending.KILLED),
    ({"attempts": 1, "error": "interrupted: its agent was lost"}, Ending.LOST),
    ({"attempts": 1, "failures": 1, "error": "no sign of life for 30 minutes"}, Ending.SILENT),
    ({"attempts": 1, "failures": 1, "error": "not finished after 30 minutes"}, Ending.TIMED_OUT),
    ({}, None),
]


@pytest.fixture
def old(tmp_path, storage):
    """A sweep as the earlier version left it: its folder, and its rows in a database."""
    sweep = register_planned(*plan(str(write_spec(tmp_path, epochs=2, seeds=len(ENDS)))), storage=storage)
    definition = sweep.definition()
    del definition["queue"], definition["address"]
    write_json(sweep.folder.definition, definition | {"remote": None})
    engine = sa.create_engine(url_of(sweep.root, storage))
    with engine.begin() as connection:
        for table in ("moe_cells", "moe_suggestions", "moe_sweeps"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        for statement in TABLES.split(";"):
            connection.exec_driver_sql(statement)
        text = sa.text(INSERT.format(", ".join(ROW), ", ".join(f":{name}" for name in ROW)))
        for number, (cell, (changes, _)) in enumerate(zip(sweep.cells, ENDS, strict=True)):
            row = {"sweep": "little", "cell": cell.run_id, "number": number, "parameters": json.dumps(cell.values)}
            row |= ROW | changes
            row["finished_at"] = row["finished_at"] and str(sweep.root.absolute())
            connection.execute(text, row)
        connection.execute(
            sa.text("INSERT INTO moe_sweeps VALUES ('little', false, :text)"), {"text": json.dumps(definition)}
        )
    engine.dispose()
    return open_sweep("little", storage)


def test_it_opens_and_its_words_become_endings(old):
    cells = status(old).cells
    assert [cell.ending for cell in cells] == [ending for _, ending in ENDS]
    assert (cells[1].state, cells[1].note) == ("finished", EARLY)
    assert (cells[3].state, cells[3].error, cells[3].note) == ("failed", "boom", "the end of its log")
    assert [cell.state for cell in status(old).cells] == [cell.state for cell in cells]  # opened once more


def test_it_goes_on(old):
    """Results that are gone are made again, what failed waits, what ended without results stays as it is."""
    with closing(open_queue(old)) as queue:
        queue.update(set(), failed=True)
        states = [cell.state for cell in queue.states().values()]
        assert states == ["waiting", "finished", "finished", *["waiting"] * 6]
        claims = [queue.claim() for _ in range(7)]
        assert queue.claim() is None
        assert [claim.attempt for claim in claims] == [1, 1, 2, 2, 2, 2, 1]
        for claim in claims:
            queue.finish(claim)
        assert {cell.state for cell in queue.states().values()} == {"finished"}


def test_machines_that_upgrade_it_at_once_do_it_once(old):
    """Some find that another has just done it."""
    with ThreadPoolExecutor(8) as machines:
        for queue in machines.map(lambda _number: open_queue(old), range(8)):
            queue.close()
    assert [cell.ending for cell in status(old).cells] == [ending for _, ending in ENDS]


def test_a_sweep_that_named_a_server_is_still_that_servers(tmp_path):
    """As the earlier version wrote it down."""
    sweep = register_planned(*plan(str(write_spec(tmp_path, epochs=2))))
    definition = sweep.definition() | {"remote": "me/moe/abc"}
    del definition["queue"], definition["address"]
    write_json(sweep.folder.definition, definition)
    found = open_sweep("little")
    assert (found.queue, found.address, found.cells) == ("wandb", "me/moe/abc", sweep.cells)
    with closing(open_queue(found)) as queue:
        assert queue.agent_command()[-1] == "me/moe/abc"
