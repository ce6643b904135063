"""A queue's database that is damaged is kept under another name, said, and made anew from the folders."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from sweeps.queue.opening import open_queue, open_sweep, steering
from sweeps.queue.status import status
from sweeps.runs.endings import Ending
from sweeps.runs.files import DamagedFileError, DamagedFileWarning, write_json
from tests.fuzz.asking import ask
from tests.sweeps.queue.test_steering import launch, write_history
from tests.sweeps.test_damage import COMMANDS, DAMAGES
from tests.sweeps.views.made import made_sweep


def database(sweep) -> Path:
    return sweep.root / "studies.db"


def broken(sweep, kind: str) -> None:
    file = database(sweep)
    content, change = file.read_bytes(), DAMAGES.get(kind)
    file.unlink()
    if kind == "gone":
        for log in sweep.root.glob("studies.db-*"):
            log.unlink()
    elif kind == "another's":
        with closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE readings (place TEXT, value REAL)")
    elif change is None:
        file.mkdir()
    else:
        file.write_bytes(change(content))


def said(sweep):
    """How a sweep's cells stand, and where its broken database is kept."""
    with pytest.warns(DamagedFileWarning, match=r"studies\.db is damaged: .* it is kept as studies\.db\.damaged-1"):
        now = status(open_sweep(sweep.name))
    assert (sweep.root / "studies.db.damaged-1").exists()
    return {cell.run.id: cell.state for cell in now.cells}


@pytest.mark.parametrize("kind", ["emptied", "cut", "null", "no text", "a folder", "gone", "another's"])
def test_a_grid_stands_as_before(tmp_path, kind):
    sweep = made_sweep(tmp_path, seeds=2, finished=3, probed=False)
    with closing(open_queue(sweep)) as queue:
        queue.update(sweep.store.finished_ids(), failed=False)
        queue.release(queue.claim())
    before = {cell.run.id: cell.state for cell in status(sweep).cells}
    broken(sweep, kind)
    assert said(sweep) == before
    with closing(open_queue(sweep)) as queue:
        assert queue.definition() == sweep.definition()
        assert queue.waiting() == 1
        assert queue.claim().cell == sweep.cells[3]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no text", "gone", "another's"])
def test_a_search_keeps_its_runs_and_what_it_learned_of_them(tmp_path, kind):
    _, sweep = launch(tmp_path)
    with closing(open_queue(sweep)) as queue:
        queue.publish(sweep.cells)
        steered = steering(sweep, queue)
        for number in range(3):
            claim = steered.begin(queue.claim())
            run = write_history(sweep, claim, [3.0, 2.0 - number / 10])
            if number < 2:
                write_json(run.state_file, {"state": "finished"})
                steered.finish(claim, run)
                queue.finish(claim)
            else:
                queue.release(claim, Ending.INTERRUPTED)
        learned = [(trial.params, trial.values) for trial in steered.search.study.trials if trial.values]
    before = {cell.run.id: cell.state for cell in status(sweep).cells if cell.state == "finished"}
    assert (len(before), len(learned)) == (2, 2)
    broken(sweep, kind)
    now = said(sweep)
    assert {run: state for run, state in now.items() if state == "finished"} == before
    assert len(now) == len(sweep.cells)
    with closing(open_queue(sweep)) as queue:
        steered = steering(sweep, queue)
        again = [(trial.params, trial.values) for trial in steered.search.study.trials if trial.values]
        assert sorted(values for _, values in again) == sorted(values for _, values in learned)
        third = steered.begin(queue.claim())
        assert third.cell == claim.cell  # it goes on, with its values
        assert queue.waiting() == len(sweep.cells) - 3


def test_damage_that_shows_in_the_middle_of_work_names_the_file(tmp_path):
    sweep = made_sweep(tmp_path, seeds=1, probed=False)
    with closing(open_queue(sweep)) as queue:
        queue.publish(sweep.cells)
        with closing(sqlite3.connect(database(sweep))) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        queue.engine.dispose()
        database(sweep).write_bytes(b"no database at all" * 100)
        with pytest.raises(DamagedFileError, match=r"studies\.db is damaged: .*move it away"):
            queue.states()


def test_a_database_of_another_place_is_let_be(tmp_path):
    (tmp_path / "shared.db").write_bytes(b"no database at all" * 100)
    sweep = made_sweep(tmp_path, seeds=1, probed=False)
    elsewhere = f"sqlite:///{tmp_path / 'shared.db'}"
    with pytest.raises(DamagedFileError, match=r"shared\.db is damaged"):
        open_queue(open_sweep(sweep.name, elsewhere))
    assert (tmp_path / "shared.db").read_bytes().startswith(b"no database")


@pytest.fixture
def as_nobody():
    """For a moment, a user who may write nothing of ours."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A home that may only be read: the small sweep, asked once so that everything is imported."""
    monkeypatch.chdir(tmp_path)
    sweep = made_sweep(tmp_path, seeds=1)
    with closing(open_queue(sweep)) as queue:
        queue.update(sweep.store.finished_ids(), failed=False)
    for command in READING.values():
        ask(command)
    folder = Path(tempfile.mkdtemp(prefix="moe-read-only-"))
    shutil.copytree(sweep.root, folder / "runs")
    shutil.copytree(tmp_path / "data", folder / "data")
    shutil.copy(tmp_path / "made.yaml", folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setenv("MOE_HOME", str(folder / "runs"))
    monkeypatch.setenv("MOE_DATA", str(folder / "data"))
    monkeypatch.chdir(folder)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


READING = {name: COMMANDS[name] for name in ("runs list", "sweep ls", "status", "compare", "plan", "sync")}


@pytest.mark.parametrize("name", READING)
def test_a_home_that_may_only_be_read_is_read(read_only, as_nobody, name):
    before = sorted(path.name for path in (read_only / "runs").iterdir())
    code, printed, words = ask(READING[name])
    assert code == 0, words
    assert "made" in printed or name in ("runs list", "sync")
    assert sorted(path.name for path in (read_only / "runs").iterdir()) == before


def test_a_home_that_may_only_be_read_and_has_no_queue_is_read_too(read_only, as_nobody):
    os.seteuid(os.getuid())
    (read_only / "runs").chmod(0o755)
    (read_only / "runs" / "studies.db").unlink()
    (read_only / "runs").chmod(0o555)
    if not os.getuid():
        os.seteuid(65534)
    code, printed, words = ask(COMMANDS["status"])
    assert code == 0, words
    assert printed.count('"state": "finished"') == 2
    assert not (read_only / "runs" / "studies.db").exists()
