"""The database that a sweep's queue lives in: SQLite in MOE_HOME, or PostgreSQL by its URL for several machines."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError

from moe.errors import UserError
from sweeps.runs.folders import HomeFolder
from sweeps.runs.lock import locked

ENVIRONMENT = "MOE_STORAGE"
_SECONDS = 60  # that a writer waits for another


def default_url(root: Path) -> str:
    """SQLite in `MOE_HOME`."""
    return f"sqlite:///{HomeFolder(root).database.absolute()}"


def url_of(root: Path, given: str | None) -> str:
    """The storage's URL: as given, else `MOE_STORAGE`, else SQLite in `MOE_HOME`.

    Raises:
        UserError: it is no URL of SQLite or PostgreSQL, or the driver is missing.
    """
    text = given or os.environ.get(ENVIRONMENT) or default_url(root)
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise UserError(f'--storage "{text}" is no database URL; write postgresql://USER@HOST/DATABASE') from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(f"--storage {url.drivername}: only sqlite and postgresql keep the promises of a queue")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """A URL that may be shown and stored."""
    return sa.make_url(url)._replace(password=None).render_as_string()


@contextlib.contextmanager
def guarded(url: str) -> Iterator[None]:
    """One process at a time on this machine, for making tables: two at once would collide."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        yield
        return
    path = Path(parsed.database)
    with locked(path.with_name(f".{path.name}.create"), math.inf):
        yield


def engine_options(url: str) -> dict[str, Any]:
    """What SQLAlchemy's engine needs for this database."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _SECONDS}}
    return {"pool_pre_ping": True}


def listen(engine: sa.Engine) -> None:
    """Let SQLite writers wait for each other: its driver's own BEGIN is deferred, so that two could both read first."""
    if engine.dialect.name != "sqlite":
        return

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA busy_timeout={1000 * _SECONDS}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def open_engine(
    url: str, tables: sa.MetaData, upgrade: Callable[[sa.Engine], None] = lambda _engine: None
) -> sa.Engine:
    """An engine whose tables exist.

    Args:
        url: of the database.
        tables: made where they are missing.
        upgrade: brings tables of an earlier version up to date.

    Raises:
        UserError: the database does not answer, or its driver is not installed.
    """
    try:
        engine = sa.create_engine(url, **engine_options(url))
        listen(engine)
        with guarded(url):
            _made(engine, tables, upgrade)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise UserError('PostgreSQL needs its driver: pip install "moe-experts[postgres]"') from None
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise UserError(f"{without_password(url)} does not answer: {reason}; check --storage and the server") from None
    return engine


def _made(engine: sa.Engine, tables: sa.MetaData, upgrade: Callable[[sa.Engine], None]) -> None:
    for step in (tables.create_all, upgrade):
        try:
            step(engine)
        except (IntegrityError, ProgrammingError):  # another machine did it between our look and our change
            step(engine)


def study_storage(url: str) -> Any:
    """Optuna's storage in the same database."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with guarded(url):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=engine_options(url))
    storage.engine.dispose()
    listen(storage.engine)
    return storage
