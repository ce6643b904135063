"""The local queue: a table of cells in SQLite or PostgreSQL.

Every change of a cell is one UPDATE that names the state it starts from, so the database lets exactly one process
make it: `waiting -> running` for a claim, `running by me -> ...` for its end, `running by the lost one -> waiting` for
a recovery. Who is lost, `sweeps/queue/leases.py` says.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sweeps.plan.spec import Sweep
from sweeps.queue.base import CellState, Claim, LeaseLostError, Offer, SteerableQueue
from sweeps.queue.launched import LaunchedSweep, QueuedCell
from sweeps.queue.leases import Owner
from sweeps.queue.storage import open_engine, url_of, without_password
from sweeps.runs.endings import Ending
from sweeps.runs.state import State

LOSSES = 10  # a cell that takes its agent down this often is given up
_CHUNK = 500

_TABLES = sa.MetaData()
_CELLS = sa.Table(
    "moe_cells",
    _TABLES,
    sa.Column("sweep", sa.String(200), primary_key=True),
    sa.Column("cell", sa.String(64), primary_key=True),  # the run id it was published under
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # order of claims
    sa.Column("present", sa.Boolean, nullable=False),  # False: of an earlier version of the sweep
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),  # claims that were not handed back
    sa.Column("failures", sa.Integer, nullable=False),  # attempts that failed by themselves
    sa.Column("losses", sa.Integer, nullable=False),  # attempts whose agent was lost
    sa.Column("weight", sa.Integer, nullable=False),  # slots on a device that it needs
    sa.Column("owner", sa.String(300)),
    sa.Column("beat", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("finished_at", sa.Text),  # a name of the MOE_HOME that has the results
    sa.Column("trial", sa.Integer),  # number of the attempt in the Optuna study
    sa.Column("note", sa.Text),
    sa.Column("ending", sa.String(20)),  # of the newest trial
    sa.Index("moe_cells_waiting", "sweep", "present", "state", "number"),
)
_SUGGESTIONS = sa.Table(
    "moe_suggestions",
    _TABLES,
    sa.Column("sweep", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("parameters", sa.Text, nullable=False),
)
_SWEEPS = sa.Table(
    "moe_sweeps",
    _TABLES,
    sa.Column("sweep", sa.String(200), primary_key=True),
    sa.Column("stop", sa.Boolean, nullable=False),
    sa.Column("definition", sa.Text),
)


_FRESH = {"attempts": 0, "failures": 0, "losses": 0, "ending": None}
_DONE = {"state": "finished", "ending": Ending.FINISHED.value}


class DatabaseQueue(SteerableQueue):
    """A sweep's cells in a database that its agents share."""

    precedence = 0

    def __init__(self, sweep: LaunchedSweep) -> None:
        super().__init__(sweep)
        self.homes = sweep.store.names() if sweep.storage else (f"{sweep.root.absolute()}",)
        self.url = url_of(sweep.root, sweep.storage)
        self.engine = open_engine(self.url, _TABLES, _upgrade)
        self.owner = Owner(sweep.folder.agents)

    @classmethod
    def offer(cls, sweep: Sweep) -> Offer:
        """It runs every sweep."""
        return Offer(accepted=True, why="a database on this machine, or the one of --storage")

    @property
    def place(self) -> str:
        """The database, without its password."""
        return without_password(self.sweep.storage) if self.sweep.storage else "SQLite"

    @property
    def study(self) -> str:
        """The same database."""
        return self.url

    # --- cells ------------------------------------------------------------------------------------------------------

    def publish(self, cells: Sequence[QueuedCell]) -> None:
        """Make these the sweep's cells, in this order; known ones keep their state, others are let be."""
        with self.engine.begin() as connection:
            known = {row.cell for row in connection.execute(sa.select(_CELLS.c.cell).where(self._mine()))}
            connection.execute(sa.update(_CELLS).where(self._mine()).values(present=False))
            again = [{"key": cell.run_id, "order": number} for number, cell in enumerate(cells) if cell.run_id in known]
            if again:
                back = sa.update(_CELLS).where(self._mine(), _CELLS.c.cell == sa.bindparam("key"))
                connection.execute(back.values(present=True, number=sa.bindparam("order")), again)
            new = [self._row(cell, number) for number, cell in enumerate(cells) if cell.run_id not in known]
            for start in range(0, len(new), _CHUNK):
                connection.execute(sa.insert(_CELLS), new[start : start + _CHUNK])

    def _row(self, cell: QueuedCell, number: int) -> dict[str, Any]:
        return {
            "sweep": self.sweep.name, "cell": cell.run_id, "run_id": cell.run_id, "number": number, "present": True,
            "parameters": json.dumps(cell.values), "state": "waiting", "attempts": 0, "failures": 0, "losses": 0,
            "weight": 1, "beat": 0,
        }  # fmt: skip

    def publish_again(self, cells: Sequence[QueuedCell]) -> None:
        """Let finished cells wait again."""
        for cell in cells:
            self._change(cell.run_id, {"state": "finished"}, state="waiting", **_FRESH, finished_at=None)

    def mark_finished(self, cells: Sequence[QueuedCell]) -> None:
        """Close waiting cells whose run is finished already."""
        for cell in cells:
            self._change(cell.run_id, {"state": "waiting"}, **_DONE, finished_at=self.homes[0])

    def skip_waiting(self, note: str) -> int:
        """Close the cells that wait: they need not be run."""
        waiting = sa.update(_CELLS).where(self._present(), _CELLS.c.state == "waiting")
        with self.engine.begin() as connection:
            done = waiting.values(state="finished", ending=Ending.NOT_NEEDED.value, note=note)
            return int(connection.execute(done).rowcount)

    def claim(self) -> Claim | None:
        """Take the first waiting cell, or None if none waits."""
        self.owner.sign_in()
        first = (
            sa.select(_CELLS.c.cell)
            .where(self._present(), _CELLS.c.state == "waiting")
            .order_by(_CELLS.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        take = (
            sa.update(_CELLS)
            .where(self._mine(), _CELLS.c.cell == first, _CELLS.c.state == "waiting")
            .values(state="running", owner=self.owner.name, attempts=_CELLS.c.attempts + 1, ending=None, beat=0)
            .returning(_CELLS)
        )
        with self.engine.begin() as connection:
            row = connection.execute(take).first()
        if row is None:
            return None
        return Claim(_cell(row), row.attempts, row.failures, row.weight, row.cell, row.trial)

    # --- what the holder of a cell says -----------------------------------------------------------------------------

    def beat(self, claim: Claim) -> None:
        """Say that the cell's agent lives."""
        self._own(claim, beat=_CELLS.c.beat + 1)

    def finish(self, claim: Claim, ending: Ending = Ending.FINISHED, note: str | None = None) -> None:
        """The cell is done."""
        done = {"state": "finished", "ending": ending.value, "note": note, "finished_at": self.homes[0]}
        self._own(claim, error=None, owner=None, **done)

    def fail(self, claim: Claim, ending: Ending, reason: str, *, retry: bool, tail: str | None = None) -> None:
        """The trial failed; with `retry` the cell waits again."""
        end = {"state": "waiting" if retry else "failed", "ending": ending.value, "error": reason, "note": tail}
        self._own(claim, owner=None, failures=_CELLS.c.failures + 1, **end)

    def release(self, claim: Claim, ending: Ending = Ending.INTERRUPTED, *, weight: int | None = None) -> None:
        """Hand a cell back unfinished, not counted as an attempt; it may need more slots on a device next time."""
        changes: dict[str, Any] = {} if weight is None else {"weight": weight}
        self._own(claim, state="waiting", ending=ending.value, owner=None, attempts=_CELLS.c.attempts - 1, **changes)

    def fill(self, claim: Claim, cell: QueuedCell) -> Claim:
        """Give a claimed cell the values that were found for it."""
        self._own(claim, run_id=cell.run_id, parameters=json.dumps(cell.values))
        return dataclasses.replace(claim, cell=cell)

    def record_trial(self, claim: Claim, trial: int) -> None:
        """Remember the number of the cell's trial in the Optuna study."""
        self._own(claim, trial=trial)

    def _own(self, claim: Claim, **changes: Any) -> None:
        if not self._change(claim.key, {"state": "running", "owner": self.owner.name}, **changes):
            raise LeaseLostError(f"cell {claim.cell.run_id} was given to another agent")

    def _change(self, cell: str, expected: Mapping[str, Any], **changes: Any) -> bool:
        """Change a cell if it is in the expected state; False if it is not."""
        same = [_CELLS.c[name] == value for name, value in expected.items()]
        statement = sa.update(_CELLS).where(self._mine(), _CELLS.c.cell == cell, *same).values(**changes)
        with self.engine.begin() as connection:
            return bool(connection.execute(statement).rowcount)

    # --- the lost ---------------------------------------------------------------------------------------------------

    def recover(self, *, failed: bool = False) -> int:
        """Let cells whose agent is gone wait again, and with `failed` those that failed for good."""
        lost = [r for r in self._rows("running") if r.owner and self.owner.lost(r.owner, r.number, r.beat)]
        count = sum(self._take_back(row) for row in lost)
        for owner in {row.owner for row in lost}:
            self.owner.forget(owner)
        if failed:
            for row in self._rows("failed"):
                count += self._change(row.cell, {"state": "failed"}, state="waiting", **_FRESH)
        return count

    def _take_back(self, row: Any) -> bool:
        final = row.losses + 1 >= LOSSES
        return self._change(
            row.cell,
            {"state": "running", "owner": row.owner, "beat": row.beat},
            state="failed" if final else "waiting",
            error=f"its agent was lost {row.losses + 1} times" if final else "interrupted: its agent was lost",
            ending=Ending.LOST.value,
            losses=row.losses + 1,
            owner=None,
        )  # fmt: skip

    def _rows(self, state: State | None = None) -> Sequence[Any]:
        query = sa.select(_CELLS).where(self._present()).order_by(_CELLS.c.number)
        with self.engine.connect() as connection:
            return connection.execute(query if state is None else query.where(_CELLS.c.state == state)).all()

    def waiting(self) -> int:
        """Number of cells that wait."""
        query = sa.select(sa.func.count()).where(self._present(), _CELLS.c.state == "waiting")
        with self.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def states(self) -> dict[str, CellState]:
        """State of every cell; one whose agent is known to be gone counts as waiting."""
        result = {}
        for row in self._rows():
            state: State = row.state
            ending = Ending(row.ending) if row.ending else None
            error = row.error if state != "finished" else None
            if state == "running" and row.owner and self.owner.known_dead(row.owner):
                state, ending, error = "waiting", Ending.LOST, "interrupted: its agent is gone"
            here = self.sweep.storage is None or row.finished_at in (None, *self.homes)
            where = (row.owner or "").rsplit("/", 1)[0].split(":", 1)[0] or None
            result[row.cell] = CellState(_cell(row), state, row.attempts, error, here, where, ending, row.note)
        return result

    # --- the sweep --------------------------------------------------------------------------------------------------

    def request_stop(self, *, stop: bool) -> None:
        """Set or clear the sweep's stop mark."""
        self._upsert(stop=stop)

    def stop_requested(self) -> bool:
        """Read the sweep's stop mark."""
        return bool(self._sweep_column(_SWEEPS.c.stop))

    def define(self, definition: Mapping[str, Any]) -> None:
        """Store what another machine needs to join."""
        self._upsert(definition=json.dumps(definition))

    def definition(self) -> dict[str, Any] | None:
        """What `define` stored."""
        text = self._sweep_column(_SWEEPS.c.definition)
        return None if text is None else json.loads(text)

    def _sweep_column(self, column: sa.Column[Any]) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(sa.select(column).where(_SWEEPS.c.sweep == self.sweep.name)).scalar()

    def suggestion(self, number: int, propose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The values of a suggestion: the first that any agent proposed, for all of them."""
        found = sa.select(_SUGGESTIONS.c.parameters).where(
            _SUGGESTIONS.c.sweep == self.sweep.name, _SUGGESTIONS.c.number == number
        )
        with self.engine.connect() as connection:
            text = connection.execute(found).scalar()
        if text is None:
            row = {"sweep": self.sweep.name, "number": number, "parameters": json.dumps(propose())}
            try:
                with self.engine.begin() as connection:
                    connection.execute(sa.insert(_SUGGESTIONS).values(**row))
            except IntegrityError:  # another agent was first
                return self.suggestion(number, propose)
            text = row["parameters"]
        values: dict[str, Any] = json.loads(str(text))
        return values

    def _upsert(self, **changes: Any) -> None:
        with self.engine.begin() as connection:
            found = connection.execute(sa.update(_SWEEPS).where(_SWEEPS.c.sweep == self.sweep.name).values(**changes))
            if not found.rowcount:
                row = {"sweep": self.sweep.name, "stop": False} | changes
                connection.execute(sa.insert(_SWEEPS).values(**row))

    def close(self) -> None:
        """Let go of what is held."""
        self.owner.sign_out()
        self.with_it.close()
        self.engine.dispose()

    def _mine(self) -> sa.ColumnElement[bool]:
        return _CELLS.c.sweep == self.sweep.name

    def _present(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._mine(), _CELLS.c.present)


def _cell(row: Any) -> QueuedCell:
    return QueuedCell(row.run_id, json.loads(row.parameters))


def _upgrade(engine: sa.Engine) -> None:
    """Give a database of an earlier version the column that says how trials ended, filled in from its words."""
    if "ending" in {column["name"] for column in sa.inspect(engine).get_columns(_CELLS.name)}:
        return
    state, note, error = _CELLS.c.state, _CELLS.c.note, _CELLS.c.error
    known = sa.case(
        (sa.and_(state == "finished", note.like("not run%")), Ending.NOT_NEEDED.value),
        (sa.and_(state == "finished", note.is_not(None)), Ending.STOPPED_EARLY.value),
        (state == "finished", Ending.FINISHED.value),
        (error.like("%its agent was lost%"), Ending.LOST.value),
        (error.like("killed by SIG%"), Ending.KILLED.value),
        (error.like("not finished after % minutes"), Ending.TIMED_OUT.value),
        (error.like("no sign of life%"), Ending.SILENT.value),
        (error.is_not(None), Ending.FAILED.value),
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {_CELLS.name} ADD COLUMN ending VARCHAR(20)")
        connection.execute(sa.update(_CELLS).values(ending=known))
