"""What the `moe` command prints with; shared by its sub-apps."""

import contextlib
import errno
import json
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from moe.errors import Notice
from moe.wording import visible

_WIDEST = 10_000  # characters of a line of a file


class Terminal(Console):
    """Shows text as it is, for names come from people and files: no markup in "[x]", no picture in ":x:".

    What could move the cursor or colour the screen is written as an escape.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
        if self.width < 1:  # COLUMNS=0
            self.width = 80

    def render_str(self, text: str, **options: Any) -> Text:
        """Text, title or cell of a table."""
        return super().render_str("".join(c if c in "\n\t" else visible(c) for c in text), **options)


out = Terminal()
err = Terminal(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a parameter.")]
SweepName = Annotated[str, typer.Argument(help="Name of a launched sweep.")]
Storage = Annotated[
    str | None,
    typer.Option(help="Database of the queue: postgresql://USER@HOST/DATABASE for several machines; default: SQLite."),
]


def print_json(value: Any) -> None:
    """One JSON document on standard output, unless that was closed before we started."""
    if sys.stdout is not None:
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(table: Table) -> None:
    """A table of which nothing is cut: as wide as it needs where no terminal limits it, else with cells folded."""
    for column in table.columns:
        column.overflow = "fold"
    if not out.is_terminal:  # a table's own width, since that of a print is at most the console's
        wide = out.options.update(max_width=_WIDEST)
        table.width = Measurement.get(out, wide, table).maximum
    out.print(table, soft_wrap=False, crop=False)


_FULL = "free some space, and the same command goes on"
_ELSEWHERE = "MOE_HOME and MOE_DATA name other places"
_AWAY = "the disk or the way to it fails; once it is mended, the same command goes on"
_MANY = "too many files are open at once; `ulimit -n 4096` allows more"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: f"it may only be read; {_ELSEWHERE}",
    errno.EPERM: f"check its permissions; {_ELSEWHERE}",
    errno.EACCES: f"check its permissions; {_ELSEWHERE}",
    errno.ENOTDIR: f"a part of this path is a file; {_ELSEWHERE}",
    errno.ENAMETOOLONG: f"the path is longer than this disk takes; {_ELSEWHERE}",
    errno.EEXIST: "a file lies there in the place of a folder; move it away",
    errno.EISDIR: "a folder lies there in the place of a file; move it away",
    errno.EFBIG: "larger than files may be here; `ulimit -f unlimited` lifts a limit of the shell",
    errno.EIO: _AWAY,
    errno.ESTALE: _AWAY,
    errno.EMFILE: _MANY,
    errno.ENFILE: _MANY,
}
_HOUSE = Path(__file__).parents[1]
_ROOMS = ("moe", "callbacks", "sweeps", "probes")


def failure(error: BaseException) -> str:
    """What failed, in one sentence: of the system's errors the file and what helps, of others the place in our code."""
    if type(error).__module__.partition(".")[0] in _ROOMS:
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return f"{words}; {_HINTS[error.errno]}" if error.errno in _HINTS else words
    if isinstance(cause := getattr(error, "orig", None), BaseException):  # SQLAlchemy's, around the driver's
        words = str(cause).splitlines()[0]
        known = {"disk is full": errno.ENOSPC, "readonly database": errno.EROFS}
        hints = [_HINTS[number] for said, number in known.items() if said in words]
        return "; ".join([f"the queue's database: {words}", *hints])
    if isinstance(error, ImportError) and (library := re.search(r"(\S+): failed to map segment", str(error))):
        return f"{library[1]} finds no memory to be loaded into; `ulimit -v unlimited` lifts the limit of a shell"
    ours = tuple(str(_HOUSE / room) for room in _ROOMS)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(ours)]
    where = f" (in {Path(frames[-1].filename).relative_to(_HOUSE)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


_show_others = warnings.showwarning


def show_notices() -> None:
    """From now on, say notices, as of damaged files that something goes on without, in one line of standard error."""
    warnings.filterwarnings("always", category=Notice)  # each is given once anyway
    warnings.showwarning = _show


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, Notice):
        err.print(str(message))
    else:
        _show_others(message, category, *where, **more)


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar in a terminal, one line at the end elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not err.is_terminal:
        last = [0]
        yield lambda done, _total: last.__setitem__(0, done)
        err.print(f"{what}: {last[0]}")
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
