"""A sweep while it runs: a table that refreshes in a terminal, plain lines elsewhere."""

from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.queue.status import CellStatus, SweepStatus
from sweeps.runs.state import State

_COLOURS: dict[State, str] = {"waiting": "dim", "running": "cyan", "finished": "green", "failed": "red"}
_ROWS = 30


def counts(status: SweepStatus) -> str:
    """How many cells are in which state, in words."""
    found = [(state, status.count(state)) for state in _COLOURS]
    return ", ".join(f"{count} {state}" for state, count in reversed(found) if count)


def values(cell: CellStatus, swept: Sequence[str]) -> str:
    """The cell's swept parameters, e.g. `experts=4 seed=0`."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={_short(cell.cell.values.get(path, '?'))}" for path in swept)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(status: SweepStatus, footer: str = "") -> Table:
    """Every cell in one row; long sweeps show those that run, then the first others."""
    result = Table(title=f"sweep {status.name}: {counts(status)}", caption=footer, title_justify="left")
    for column in ("run", "cell", "state", "epochs", "loss", "agreement", "CV2"):
        result.add_column(column, justify="right" if column in ("loss", "agreement", "CV2") else "left")
    shown: Sequence[CellStatus] = status.cells
    if len(status.cells) > _ROWS:
        shown = sorted(status.cells, key=lambda cell: cell.state not in ("running", "failed"))[:_ROWS]
    for cell in shown:
        result.add_row(*_row(cell, status.sweep.swept))
    if len(shown) < len(status.cells):
        result.add_row("...", f"{len(status.cells) - len(shown)} more")
    return result


def _row(cell: CellStatus, swept: Sequence[str]) -> list[Text | ProgressBar | str]:
    where = cell.run.progress
    bar: ProgressBar | str = ProgressBar(where["epochs"], where["epoch"], width=16) if where else ""
    if cell.error or (cell.state == "finished" and cell.note):
        bar = (cell.error or cell.note or "")[:60]
    chance = f" ({where['chance']:.2f})" if "chance" in where else ""
    return [
        cell.run.id,
        values(cell, swept),
        Text(cell.state + (f", try {cell.attempts}" if cell.attempts > 1 else ""), style=_COLOURS[cell.state]),
        bar,
        f"{where['train_loss']:.3f}" if "train_loss" in where else "",
        f"{where['agreement']:.2f}{chance}" if "agreement" in where else "",
        f"{where['cv2']:.2f}" if "cv2" in where else "",
    ]


def _remaining(cells: Sequence[CellStatus], agents: int) -> str:
    """Estimated time to the end from the finished runs' durations."""
    durations = [t.run.state.seconds for t in cells if t.state == "finished" and t.run.state.seconds > 0]
    missing = 0.0
    for cell in cells:
        if cell.state in ("waiting", "running"):
            where = cell.run.progress
            missing += 1 - (where["epoch"] / where["epochs"] if cell.state == "running" and where else 0)
    if not durations or not missing:
        return ""
    minutes = missing * sum(durations) / len(durations) / 60 / max(1, agents)
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


class Screen:
    """Shows a launch on a console, as a Reporter of `sweeps.launching`; a context, at whose end the table is cleared.

    Args:
        console: where to print.
        quiet: print what happens once, and not how the cells stand.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self._live: Live | None = None
        self._seen: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, line: str) -> None:
        """Print it."""
        self.console.print(line)

    def look(self, read: Callable[[], SweepStatus], agents: int) -> None:
        """Refresh the table in a terminal; elsewhere print a line for every cell that moved on."""
        if self.quiet:
            return
        status = read()
        remaining = _remaining(status.cells, agents)
        if not self.console.is_terminal:
            _print_changes(status, self._seen, remaining, self.console)
            return
        if self._live is None:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(table(status, remaining))


def _print_changes(status: SweepStatus, seen: dict[str, tuple[str, int]], remaining: str, console: Console) -> None:
    for cell in status.cells:
        where = cell.run.progress if cell.state in ("running", "finished") else {}
        now = (cell.state, int(where.get("epoch", 0)))
        if seen.get(cell.run.id, ("waiting", 0)) != now:
            console.print(_line(cell, status.sweep.swept, remaining))
        seen[cell.run.id] = now


def _line(cell: CellStatus, swept: Sequence[str], remaining: str) -> str:
    where = cell.run.progress
    parts = [cell.run.id, values(cell, swept), cell.state]
    if cell.state in ("running", "finished") and where:
        parts.append(f"epoch {int(where['epoch'])}/{where['epochs']}")
        labels = {"train_loss": "loss", "val_loss": "val"}
        parts += [f"{label} {where[key]:.3f}" for key, label in labels.items() if key in where]
        if "agreement" in where:
            parts.append(f"agreement {where['agreement']:.2f} (chance {where['chance']:.2f}) CV2 {where['cv2']:.2f}")
    if cell.error:
        parts.append(cell.error)
    if cell.state == "finished" and cell.note:
        parts.append(cell.note)
    return "  ".join(part for part in [*parts, remaining] if part)
