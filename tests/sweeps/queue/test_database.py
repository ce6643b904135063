"""The promises of a queue, kept by the local one in SQLite and in a real PostgreSQL server."""

import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa

from moe.errors import Notice, UserError
from sweeps.agents.agent import patiently
from sweeps.console import failure
from sweeps.queue import database, leases
from sweeps.queue import storage as storages
from sweeps.queue.base import LeaseLostError
from sweeps.queue.database import DatabaseQueue
from sweeps.queue.launched import LaunchedSweep, QueuedCell
from sweeps.queue.opening import open_queue
from sweeps.queue.storage import without_password
from sweeps.runs.endings import Ending
from sweeps.runs.folders import HomeFolder
from sweeps.runs.store import RunStore
from sweeps.testing import CELLS, SteerableQueueContract, claim_and_die, in_process


def launched(root, storage=None, name="sweep"):
    return LaunchedSweep(name, root, storage=storage)


class TestDatabaseQueue(SteerableQueueContract):
    """What every queue promises, and what it promises beyond that about agents on other machines."""

    kind = DatabaseQueue
    served = 4  # all have their share
    test_four_agents_at_once_never_share_a_cell = pytest.mark.slow(
        SteerableQueueContract.test_four_agents_at_once_never_share_a_cell
    )

    @pytest.fixture(autouse=True)
    def place(self, storage):
        self.storage = storage
        self.sweeps = 20 if storage is None else 5

    def launched(self, root, name="sweep"):
        return launched(root, self.storage, name)

    def test_a_cell_that_brings_its_agent_down_again_and_again_is_given_up(self, opened, monkeypatch):
        monkeypatch.setattr(leases.Owner, "known_dead", lambda self, name: name != self.name)
        backend, other = opened(), opened()
        backend.publish(CELLS[:1])
        for _ in range(database.LOSSES):
            assert other.claim() is not None
            assert backend.recover() == 1
        state = backend.states()[CELLS[0].run_id]
        assert (state.state, state.error) == ("failed", f"its agent was lost {database.LOSSES} times")

    def test_an_agent_elsewhere_keeps_its_cell_while_its_beat_goes_on(self, opened, tmp_path, monkeypatch):
        """Another machine: no lock file tells, and its clock may say anything; ours is steady."""
        clock = [1000.0]
        monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
        far = opened()
        far.owner.name = "elsewhere:boot/1-a"
        far.publish(CELLS[:1])
        claim = far.claim()
        near = opened()
        for _ in range(3):
            assert near.recover() == 0
            clock[0] += leases.LEASE - 1
            assert near.recover() == 0
            far.beat(claim)
        assert near.recover() == 0  # the beat moved on
        clock[0] += leases.LEASE + 1
        assert near.recover() == 1
        assert near.recover() == 0
        with pytest.raises(LeaseLostError, match="run00"):
            far.beat(claim)
        again = near.claim()
        with pytest.raises(LeaseLostError):
            far.finish(claim)
        with pytest.raises(LeaseLostError):
            far.fail(claim, Ending.FAILED, "late", retry=True)
        with pytest.raises(LeaseLostError):
            far.release(claim)
        near.finish(again)
        assert near.states()[CELLS[0].run_id].state == "finished"

    def test_a_cell_killed_between_claim_and_first_beat_is_recovered(self, opened, monkeypatch):
        clock = [1000.0]
        monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])
        far = opened()
        far.owner.name = "elsewhere:boot/1-a"
        far.publish(CELLS[:1])
        assert far.claim() is not None
        near = opened()
        assert near.recover() == 0
        clock[0] += leases.LEASE + 1
        assert near.recover() == 1

    def test_two_that_recover_at_once_do_it_once(self, opened, monkeypatch):
        monkeypatch.setattr(leases.Owner, "known_dead", lambda self, name: name != self.name)
        lost, first, second = opened(), opened(), opened()
        lost.publish(CELLS[:1])
        lost.claim()
        (row,) = first._rows("running")
        assert first._take_back(row)
        assert not second._take_back(row)  # it read the row before, too
        assert first.waiting() == 1

    def test_results_of_another_home_count_as_elsewhere(self, opened, tmp_path):
        backend, other = opened(), opened(tmp_path / "other")
        if backend.url != other.url:
            pytest.skip("two homes share a PostgreSQL server, not a SQLite file")
        backend.publish(CELLS[:1])
        other.finish(other.claim())
        assert not backend.states()[CELLS[0].run_id].here
        assert other.states()[CELLS[0].run_id].here


def one_cell(root, storage):
    return LaunchedSweep("sweep", root, cells=CELLS[:1], storage=storage)


def moved(tmp_path, storage):
    """A home in which a cell was finished before it was moved."""
    with closing(open_queue(one_cell(tmp_path / "old", storage))) as queue:
        queue.publish(CELLS[:1])
        queue.finish(queue.claim())
    (tmp_path / "old").rename(tmp_path / "new")
    return tmp_path / "new"


@pytest.mark.parametrize("where", ["in it", "shared"])
def test_a_home_that_was_moved_knows_its_results(tmp_path, where):
    """They lie here, so that what is deleted of them is made again."""
    storage = None if where == "in it" else f"sqlite:///{tmp_path / 'shared.db'}"
    with closing(open_queue(one_cell(moved(tmp_path, storage), storage))) as queue:
        assert queue.states()[CELLS[0].run_id].here
        queue.update(set(), failed=False)
        assert queue.states()[CELLS[0].run_id].state == "waiting"


def test_a_home_of_the_same_path_on_another_machine_is_another_one(tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    here = moved(tmp_path, storage)
    with closing(open_queue(one_cell(tmp_path / "old", storage))) as queue:  # its disk has none of the results
        queue.update(set(), failed=False)
        assert not queue.states()[CELLS[0].run_id].here
        assert queue.states()[CELLS[0].run_id].state == "finished"
    assert len(RunStore(here).names()) == len(RunStore(tmp_path / "old").names()) == 2


def test_a_home_that_may_not_be_written_goes_by_its_path(tmp_path):
    (tmp_path / "sweeps").write_text("no folder")
    assert RunStore(tmp_path).names() == (str(tmp_path),)


def test_an_older_cell_stays_with_its_dead_owner_until_recovered(tmp_path):
    """`states` reports it as waiting, but nobody can claim it before `recover`."""
    backend = open_queue(launched(tmp_path))
    backend.publish(CELLS[:1])
    process = in_process(claim_and_die, DatabaseQueue, launched(tmp_path))
    process.join()
    assert backend.states()[CELLS[0].run_id].error == "interrupted: its agent is gone"
    assert backend.claim() is None
    assert backend.recover() == 1
    assert backend.claim() is not None
    backend.close()
    assert not list((tmp_path / "sweeps" / "sweep" / "agents").glob("*.lock"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is no database URL; write postgresql"),
        ("mysql://me@host/db", "only sqlite and postgresql"),
        ("postgresql://me:secret@127.0.0.1:1/none", "does not answer"),
    ],
)
def test_a_wrong_storage_is_a_users_mistake(tmp_path, url, message):
    if "postgresql:" in url:
        pytest.importorskip("psycopg")
    with pytest.raises(UserError, match=message) as caught:
        open_queue(launched(tmp_path, url))
    assert "secret" not in str(caught.value)


def test_who_waits_for_the_database_is_told_and_not_for_ever(tmp_path, monkeypatch):
    sweep = launched(tmp_path)
    open_queue(sweep).close()
    for name, seconds in (("_SAID", 0.05), ("_SECONDS", 0.15)):
        monkeypatch.setattr(storages, name, seconds)
    monkeypatch.setattr(storages, "_held", set())
    with closing(sqlite3.connect(tmp_path / "studies.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            pytest.warns(Notice, match=r"studies\.db is held by another process; waiting for it"),
            pytest.raises(UserError, match="database is locked; another process holds it: end that one, or try again"),
        ):
            open_queue(sweep)
        other.execute("ROLLBACK")
    open_queue(sweep).close()


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me@host/db"


def test_a_full_disk_is_said_at_once_and_nothing_is_lost(isolated):
    """SQLite's own limit of pages stands for the disk's end; waiting as for a database that is away would not help."""
    cells = [QueuedCell(f"{number:012d}", {"seed": number, "data.name": "x" * 200}) for number in range(400)]
    sweep = LaunchedSweep("full", isolated / "runs", tuple(cells))
    with closing(open_queue(sweep)) as queue:
        queue.publish(cells[:10])
        kept = queue.states()

        @sa.event.listens_for(queue.engine, "begin")
        def _no_room(connection):
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(OSError, match="No space left on device") as caught:
            patiently(lambda: queue.publish(cells))
        assert caught.value.filename == str(HomeFolder(sweep.root).database.absolute())
        assert failure(caught.value).endswith("; free some space, and the same command goes on")
    with closing(open_queue(sweep)) as queue:  # there is room again
        assert queue.states() == kept
        queue.publish(cells)
        assert len(queue.states()) == 400
