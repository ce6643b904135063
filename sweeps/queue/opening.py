"""Queues by name, and launched sweeps by theirs.

Other packages bring queues by an entry point:

    [project.entry-points."moe.queues"]
    shelf = "my_package.shelf:ShelfQueue"
"""

import contextlib
import dataclasses
import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe.errors import UserError, suggest, unknown
from moe.registry import Registry
from sweeps.plan.spec import Sweep, expand
from sweeps.queue.base import Queue, SteerableQueue
from sweeps.queue.launched import LOCAL, LaunchedSweep
from sweeps.queue.storage import ENVIRONMENT, default_url, is_emptied, is_of_others, set_aside, without_password
from sweeps.runs.files import DamagedFileError, name_damage, read_json, reading, unless_damaged, write_json
from sweeps.runs.folders import HomeFolder, SweepFolder, home

if TYPE_CHECKING:
    from sweeps.queue.steering import Steering

AUTO = "auto"
_LAUNCH_AGAIN = "`moe sweep launch` with the sweep's file writes it again"


def _checked(loaded: Any, _name: str) -> type[Queue]:
    if not (isinstance(loaded, type) and issubclass(loaded, Queue)):
        raise UserError("it is no subclass of sweeps.queue.base.Queue")
    if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
        raise UserError(f"it has no {', '.join(missing)}")
    return loaded


QUEUES: Registry[type[Queue]] = Registry(
    "backend",
    "moe.queues",
    {"local": "sweeps.queue.database:DatabaseQueue", "wandb": "sweeps.queue.server:ServerQueue"},
    _checked,
)


def choose_queue(name: str, sweep: Sweep) -> tuple[str, str]:
    """The queue meant by `auto` or by its name, and why.

    Raises:
        UserError: no such queue, or it cannot run this sweep.
    """
    if name == AUTO:
        return _first_that_accepts(sweep)
    if name not in QUEUES:
        raise unknown("backend", name, [AUTO, *QUEUES])
    offer = QUEUES[name].offer(sweep)
    if not offer.accepted:
        raise UserError(f"--backend {name}: {offer.why}; use --backend local, which logs to W&B all the same")
    return name, "as asked"


def _first_that_accepts(sweep: Sweep) -> tuple[str, str]:
    """Of those that `auto` may take; the reason is why the others before it do not."""
    refused: list[str] = []
    asked = {name: queue for name, queue in QUEUES.usable().items() if queue.precedence >= 0}
    for name in sorted(asked, key=lambda name: -asked[name].precedence):
        offer = asked[name].offer(sweep)
        if offer.accepted and not offer.if_named:
            return name, "; ".join(refused) or offer.why
        refused.append(offer.why)
    raise UserError(f"no backend can run this sweep: {'; '.join(refused)}")


def open_queue(sweep: LaunchedSweep) -> Queue:
    """The queue that hands out a sweep's cells.

    A database in `MOE_HOME` that is damaged is kept under another name, which is said, and made anew.

    Raises:
        UserError: its service does not answer, or the package that brought it is missing.
    """
    kind, database = QUEUES[sweep.queue], HomeFolder(sweep.root).database.absolute()
    try:
        if gone := _is_gone(sweep, database):
            with contextlib.suppress(OSError):
                database.touch()
        if is_emptied(database):
            _make_anew(sweep.root, DamagedFileError(database, "it is gone" if gone else "it is empty", ""))
        elif _was_used(sweep) and is_of_others(database):
            _make_anew(sweep.root, DamagedFileError(database, "it is another program's", ""))
        return kind(sweep)
    except DamagedFileError as damage:
        if damage.path != database:
            raise
        _make_anew(sweep.root, damage)
        return kind(sweep)


def _is_gone(sweep: LaunchedSweep, database: Path) -> bool:
    """Whether the database in `MOE_HOME` that agents took a sweep's cells from is not there any more."""
    return _was_used(sweep) and not os.path.lexists(database)


def _was_used(sweep: LaunchedSweep) -> bool:
    """Whether agents took a sweep's cells from the database in `MOE_HOME`."""
    return sweep.queue == LOCAL and storage_of(sweep.storage) is None and sweep.folder.agents.is_dir()


def _make_anew(root: Path, damage: DamagedFileError) -> None:
    """Keep a damaged database under another name, and fill a new one; nothing if another process just did."""
    kept = set_aside(damage.path)
    if kept is not None:
        what = f"it is kept as {kept.name}, and the queues are made anew from the folders of sweeps and runs"
        name_damage(DamagedFileError(damage.path, damage.why, what))
        _rebuild(root)


def _rebuild(root: Path) -> None:
    """Fill a new database with what the folders hold: the sweeps, their cells, and which of these are finished."""
    for name in names(root):
        sweep = unless_damaged(partial(_here, name, root), None)
        if sweep and sweep.queue == LOCAL and sweep.storage is None:
            from sweeps.queue.rebuilding import rebuild  # Optuna takes a while to import

            with closing(QUEUES[LOCAL](sweep)) as queue:
                rebuild(sweep, queue)


def _here(name: str, root: Path, url: str | None = None) -> LaunchedSweep:
    """A sweep from its definition here.

    Raises:
        DamagedFileError: it is damaged.
    """
    file = SweepFolder(root, name).definition
    with reading(file, _LAUNCH_AGAIN):
        return _as_launched(read_json(file, _LAUNCH_AGAIN), name, root, url)


def steering(sweep: LaunchedSweep, queue: Queue) -> "Steering | None":
    """What steers a bayes sweep or one with early termination; None for others.

    Raises:
        UserError: the queue is not made for such sweeps.
    """
    if not sweep.steered or queue.steers_itself:
        return None
    if not isinstance(queue, SteerableQueue):
        raise UserError(f"the backend {sweep.queue} runs no sweep whose results decide how it goes on; use local")
    from sweeps.queue.steering import Steering  # Optuna takes a while to import

    return Steering(sweep, queue)


# --- launched sweeps ------------------------------------------------------------------------------------------------


def names(root: Path | None = None) -> list[str]:
    """Sweeps launched on this machine."""
    return HomeFolder(root).sweeps()


def open_sweep(name: str, storage: str | None = None, root: Path | None = None) -> LaunchedSweep:
    """A launched sweep by its name or by its address in a queue's own service, which may be new to this machine.

    Args:
        name: as launched; or, of a sweep on a W&B server, ENTITY/PROJECT/SWEEP.
        storage: database URL of its queue; None: `MOE_STORAGE`, or where it was launched.
        root: `MOE_HOME`.

    Raises:
        UserError: there is no such sweep, or this version cannot run it.
    """
    root = root or home()
    if name in names(root):
        return _read(name, storage, root)
    for kind, queue in QUEUES.usable().items():
        if (found := queue.find(name)) is not None:
            return _adopt(found, kind, name, storage, root)
    return _fetch(name, storage, root)


def write_down(sweep: LaunchedSweep) -> LaunchedSweep:
    """Keep a sweep's definition here and in its queue, where other machines find it."""
    definition = sweep.definition()
    with closing(open_queue(sweep)) as queue:  # first, so that nothing is kept of a sweep whose storage is away
        queue.define(definition)
    write_json(sweep.folder.definition, definition)
    return sweep


def launched_before(name: str, storage: str | None = None, root: Path | None = None) -> LaunchedSweep | None:
    """A sweep as it was launched under a name, here or by another machine on the same storage; writes nothing."""
    root = root or home()
    if name in names(root) and (known := unless_damaged(partial(_read, name, storage, root), None)):
        return known
    url = storage_of(storage)
    definition = _stored(name, root, url)[0] if url else None
    return LaunchedSweep.read(definition, root, url) if definition else None


def check_storage(queue: str, name: str, given: str | None) -> None:
    """Look for a sweep in the storage that is named, if any, as a launch in this kind of queue will.

    Raises:
        UserError: it is no storage of this kind of queue, or does not answer.
    """
    if url := storage_of(given):
        QUEUES[queue].stored(name, home(), url)


def storage_of(given: str | None) -> str | None:
    """The URL of the queue's database, if one is named: as given, else by `MOE_STORAGE`."""
    return given or os.environ.get(ENVIRONMENT)


def _read(name: str, storage: str | None, root: Path) -> LaunchedSweep:
    """A sweep from its definition here; from the copy in its queue's database if that file is damaged.

    Raises:
        DamagedFileError: it is, and there is no copy.
    """
    url = storage_of(storage)
    try:
        return _here(name, root, url)
    except DamagedFileError as damage:
        copy = _stored(name, root, url or default_url(root))[0]
        if copy is None:
            raise
        name_damage(damage)
        return _as_launched(copy, name, root, url)


def _as_launched(definition: dict[str, Any], name: str, root: Path, url: str | None) -> LaunchedSweep:
    sweep = LaunchedSweep.read(definition, root, url)
    if sweep.name != name:
        raise ValueError(f'it is that of sweep "{sweep.name}"')
    return sweep


def _adopt(found: Sweep, queue: str, address: str, storage: str | None, root: Path) -> LaunchedSweep:
    """Take in a sweep that another machine launched, under a name that no other sweep has here."""
    known = {name: unless_damaged(partial(_read, name, storage, root), None) for name in names(root)}
    for sweep in known.values():
        if sweep and (sweep.queue, sweep.address) == (queue, address):
            return sweep
    name = found.name if found.name not in known else f"{found.name}-{address.rsplit('/', 1)[-1]}"
    sweep = LaunchedSweep.of(
        found, expand(found), root, queue, address, storage_of(storage), blanks=QUEUES[queue].draws(found)
    )
    return write_down(dataclasses.replace(sweep, name=name))


def _fetch(name: str, storage: str | None, root: Path) -> LaunchedSweep:
    """The definition from the storage, for a machine that did not launch the sweep."""
    url = storage_of(storage)
    definition, mistakes = _stored(name, root, url) if url else (None, [])
    if definition is not None:
        write_json(SweepFolder(root, name).definition, definition)
        return _read(name, url, root)
    if mistakes:
        raise mistakes[0]
    where = without_password(url) if url else root
    raise UserError(f'no sweep "{name}" in {where}: {suggest(name, names(root))}')


def _stored(name: str, root: Path, url: str) -> tuple[dict[str, Any] | None, list[UserError]]:
    """What a storage holds of a sweep, and why queues could not look."""
    mistakes = []
    for queue in QUEUES.usable().values():
        try:
            if (definition := queue.stored(name, root, url)) is not None:
                return definition, []
        except UserError as mistake:  # not a storage of this kind of queue
            mistakes.append(mistake)
    return None, mistakes
