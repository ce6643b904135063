"""The database that a sweep's queue lives in: SQLite in MOE_HOME, or PostgreSQL by its URL for several machines."""

import contextlib
import errno
import math
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError

from moe.errors import Notice, UserError
from moe.files import is_full
from moe.wording import reason
from sweeps.runs.files import DamagedFileError
from sweeps.runs.folders import HomeFolder
from sweeps.runs.lock import locked

ENVIRONMENT = "MOE_STORAGE"
_OURS = "moe_"  # what the names of a queue's tables begin with
_SECONDS = 60  # that a writer waits for another
_SAID = 5  # after which it says so
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_MOVE = "move it away, and the next command on its sweeps makes it anew from their folders and their runs'"


def default_url(root: Path) -> str:
    """SQLite in `MOE_HOME`."""
    return f"sqlite:///{HomeFolder(root).database.absolute()}"


def url_of(root: Path, given: str | None) -> str:
    """The storage's URL: as given, else `MOE_STORAGE`, else SQLite in `MOE_HOME`.

    Raises:
        UserError: it is no URL of SQLite or PostgreSQL, or of a file that cannot be.
    """
    text = given or os.environ.get(ENVIRONMENT) or default_url(root)
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise UserError(f'--storage "{text}" is no database URL; write postgresql://USER@HOST/DATABASE') from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(f"--storage {url.drivername}: only sqlite and postgresql keep the promises of a queue")
    if url.get_backend_name() == "sqlite":
        _check_name(file_of(url))
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def _check_name(file: Path) -> None:
    """Refuse what cannot name a file, as it is too long or leads through a file, before something is made for it.

    Raises:
        UserError: it cannot.
    """
    try:
        str(file).encode()  # SQLite takes nothing else
        file.stat()
    except (FileNotFoundError, PermissionError):
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot hold the queue: {reason(error)}; name another file with --storage") from None


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
    with locked(_guard(Path(parsed.database)), math.inf):
        yield


def _guard(file: Path) -> Path:
    return file.with_name(f".{file.name}.create")


def engine_options(url: str) -> dict[str, Any]:
    """What SQLAlchemy's engine needs for this database."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _SECONDS}}
    return {"pool_pre_ping": True}


def listen(engine: sa.Engine) -> None:
    """Let SQLite writers wait for each other: its driver's own BEGIN is deferred, so that two could both read first.

    A damaged file comes out as DamagedFileError, a full disk as OSError, whatever was asked: waiting helps neither.
    """
    if engine.dialect.name != "sqlite":
        return
    file = file_of(engine.url)
    _name_damage(engine, file)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(1000 * _SAID)}")
        if not _in_turn(connection, "PRAGMA journal_mode=WAL", file):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        if not _in_turn(connection.connection.dbapi_connection, "BEGIN IMMEDIATE", file):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # says what is wrong


_held = set[Path]()  # said once a process


def _in_turn(connection: sqlite3.Connection, statement: str, file: Path) -> bool:
    """Whether a statement that needs the database for itself could be executed, once the processes before it are done.

    Who waits long is told.
    """
    for _ in range(int(_SECONDS / _SAID) - 1):
        try:
            connection.execute(statement)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                return False
        else:
            return True
        if file not in _held:
            _held.add(file)
            waits = f"waiting for it, {_SECONDS} seconds at most"
            warnings.warn(Notice(f"{file} is held by another process; {waits}"), stacklevel=2)
    return False


def _name_damage(engine: sa.Engine, file: Path) -> None:
    @sa.event.listens_for(engine, "handle_error")
    def _damaged(context: sa.engine.ExceptionContext) -> None:
        error = context.original_exception
        if _is_full(error, file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:  # the low byte; the others say more of it
            raise DamagedFileError(file, str(error), _MOVE) from error


def _is_full(error: BaseException | None, file: Path) -> bool:
    """Whether an error of SQLite comes from a full disk, which it also calls one of input and output."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return is_full(file.parent)
    return code == sqlite3.SQLITE_FULL


def file_of(url: sa.URL) -> Path:
    """The file of an SQLite database."""
    return Path(url.database or "")


def _check(engine: sa.Engine) -> None:
    """Look through the pages of an SQLite file, which otherwise would be found damaged in the middle of some work.

    Raises:
        DamagedFileError: they do not fit together.
    """
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise DamagedFileError(file_of(engine.url), str(found), _MOVE)


def set_aside(file: Path) -> Path | None:
    """Give a damaged database, and the logs beside it, a name under which they are kept.

    Returns:
        The name; None if the database is not damaged any more: of several processes that find it so, one does it.
    """
    with locked(_guard(file), math.inf):
        if not file.exists() or not is_damaged(file):
            return None
        aside = next(name for number in count(1) if not (name := Path(f"{file}.damaged-{number}")).exists())
        for end in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{file}{end}").rename(f"{aside}{end}")
        return aside


def is_emptied(file: Path) -> bool:
    """Whether a database that may be written is a file without content, which SQLite would take for a new one."""
    return file.is_file() and not file.stat().st_size and _may_write(file.parent)


def is_damaged(file: Path) -> bool:
    """Whether an SQLite file that is there is none, or another program's; an empty one held tables once."""
    if not file.is_file() or not file.stat().st_size:
        return True
    with closing(sqlite3.connect(file)) as connection:
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode & 0xFF in _DAMAGE
    return bool(found != ("ok",)) or is_of_others(file)


def is_of_others(file: Path) -> bool:
    """Whether an SQLite file has tables and none of a queue's, which are the first to be made."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    except sqlite3.Error:  # it is found out when it is opened
        return False
    return bool(names) and not any(name.startswith(_OURS) for name in names)


def open_engine(
    url: str, tables: sa.MetaData, upgrade: Callable[[sa.Engine], None] = lambda _engine: None
) -> sa.Engine:
    """An engine whose tables exist.

    Args:
        url: of the database.
        tables: made where they are missing.
        upgrade: brings tables of an earlier version up to date.

    Raises:
        DamagedFileError: the database is an SQLite file, and damaged.
        UserError: it does not answer, or its driver is not installed.
    """
    if _only_readable(url):
        return _as_it_is(file_of(sa.make_url(url)), tables)
    try:
        engine = sa.create_engine(url, **engine_options(url))
        with contextlib.ExitStack() as unless_done:
            unless_done.callback(engine.dispose)
            listen(engine)
            if engine.dialect.name == "sqlite" and file_of(engine.url).is_dir():
                raise DamagedFileError(file_of(engine.url), "it is a folder", _MOVE)
            with guarded(url):
                _made(engine, tables, upgrade)
                _check(engine)
            unless_done.pop_all()
    except (ModuleNotFoundError, NoSuchModuleError):
        raise UserError('PostgreSQL needs its driver: pip install "moe-experts[postgres]"') from None
    except OperationalError as error:
        held = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        way = "another process holds it: end that one, or try again" if held else "check --storage and the server"
        raise UserError(f"{without_password(url)} does not answer: {reason(error.orig or error)}; {way}") from None
    return engine


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _only_readable(url: str) -> bool:
    """Whether an SQLite file lies where this process may not write."""
    parsed = sa.make_url(url)
    folder = file_of(parsed).parent
    return parsed.get_backend_name() == "sqlite" and folder.is_dir() and not _may_write(folder)


def _as_it_is(file: Path, tables: sa.MetaData) -> sa.Engine:
    """For reading alone: SQLite makes no files beside the database, and one that is not there has empty tables."""
    if not file.exists() or not file.stat().st_size:
        empty = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        tables.create_all(empty)
        return empty
    log = Path(f"{file}-wal")
    still = not log.exists() or not log.stat().st_size  # nobody is at work; with a log, SQLite has to read that too
    engine = sa.create_engine(f"sqlite:///{file.as_uri()}?mode=ro{'&immutable=1' if still else ''}&uri=true")
    _name_damage(engine, file)
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
