"""What the `moe` command prints with; shared by its sub-apps."""

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console

from sweeps.runs.files import DamagedFileWarning

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a parameter.")]
SweepName = Annotated[str, typer.Argument(help="Name of a launched sweep.")]
Storage = Annotated[
    str | None,
    typer.Option(help="Database of the queue: postgresql://USER@HOST/DATABASE for several machines; default: SQLite."),
]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


_show_others = warnings.showwarning


def show_damage() -> None:
    """From now on, say in one line of standard error which damaged files something goes on without."""
    warnings.filterwarnings("always", category=DamagedFileWarning)  # each is given once anyway
    warnings.showwarning = _show


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, DamagedFileWarning):
        err.print(str(message), markup=False)
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
