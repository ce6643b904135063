"""A sweep while it runs: a table that refreshes in a terminal, plain lines elsewhere."""

import contextlib
import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.agents.crew import Agents
from sweeps.launching import LaunchedSweep, Trial
from sweeps.queue.protocol import SweepBackend

_COLOURS = {"waiting": "dim", "running": "cyan", "finished": "green", "failed": "red"}
_ROWS, _PAUSE = 30, 0.5


def counts(trials: list[Trial]) -> str:
    """How many cells are in which state, in words."""
    found = [(state, sum(trial.state == state for trial in trials)) for state in _COLOURS]
    return ", ".join(f"{count} {state}" for state, count in reversed(found) if count)


def values(trial: Trial, swept: list[str]) -> str:
    """The cell's swept parameters, e.g. `experts=4 seed=0`."""
    return " ".join(f"{path.rsplit('.', 1)[-1]}={_short(trial.job.values.get(path, '?'))}" for path in swept)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(sweep: LaunchedSweep, trials: list[Trial], footer: str = "") -> Table:
    """Every cell in one row; long sweeps show those that run, then the first others."""
    result = Table(title=f"sweep {sweep.name}: {counts(trials)}", caption=footer, title_justify="left")
    for column in ("run", "cell", "state", "epochs", "loss", "agreement", "CV2"):
        result.add_column(column, justify="right" if column in ("loss", "agreement", "CV2") else "left")
    shown = trials
    if len(trials) > _ROWS:
        shown = sorted(trials, key=lambda trial: trial.state not in ("running", "failed"))[:_ROWS]
    for trial in shown:
        result.add_row(*_row(trial, sweep.swept))
    if len(shown) < len(trials):
        result.add_row("...", f"{len(trials) - len(shown)} more")
    return result


def _row(trial: Trial, swept: list[str]) -> list[Text | ProgressBar | str]:
    where = trial.run.progress
    bar: ProgressBar | Text | str = ProgressBar(where["epochs"], where["epoch"], width=16) if where else ""
    if trial.error:
        bar = Text(trial.error[:60])
    chance = f" ({where['chance']:.2f})" if "chance" in where else ""
    return [
        trial.run.id,
        values(trial, swept),
        Text(trial.state + (f", try {trial.attempts}" if trial.attempts > 1 else ""), style=_COLOURS[trial.state]),
        bar,
        f"{where['train_loss']:.3f}" if "train_loss" in where else "",
        f"{where['agreement']:.2f}{chance}" if "agreement" in where else "",
        f"{where['cv2']:.2f}" if "cv2" in where else "",
    ]


def _remaining(trials: list[Trial], agents: int) -> str:
    """Estimated time to the end from the finished runs' durations."""
    durations = [t.run.state.seconds for t in trials if t.state == "finished" and t.run.state.seconds > 0]
    missing = 0.0
    for trial in trials:
        if trial.state in ("waiting", "running"):
            where = trial.run.progress
            missing += 1 - (where["epoch"] / where["epochs"] if trial.state == "running" and where else 0)
    if not durations or not missing:
        return ""
    minutes = missing * sum(durations) / len(durations) / 60 / max(1, agents)
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


def watch(sweep: LaunchedSweep, backend: SweepBackend, agents: Agents, console: Console | None) -> None:
    """Look after a sweep until its agents ended, and show it; without a console, silently."""
    seen: dict[str, tuple[str, int]] = {}
    live = Live(console=console, refresh_per_second=4, transient=True) if console and console.is_terminal else None
    with live or contextlib.nullcontext():
        going = True
        while going:
            agents.tend(backend)
            going = agents.running()
            trials = sweep.trials(backend) if console else []
            remaining = _remaining(trials, len(agents.devices))
            if live:
                live.update(table(sweep, trials, remaining))
            elif console:
                _print_changes(trials, sweep.swept, seen, remaining, console)
            time.sleep(_PAUSE if going else 0)


def _print_changes(
    trials: list[Trial], swept: list[str], seen: dict[str, tuple[str, int]], remaining: str, console: Console
) -> None:
    for trial in trials:
        where = trial.run.progress if trial.state in ("running", "finished") else {}
        now = (trial.state, int(where.get("epoch", 0)))
        if seen.get(trial.run.id, ("waiting", 0)) != now:
            console.print(_line(trial, swept, remaining), markup=False)
        seen[trial.run.id] = now


def _line(trial: Trial, swept: list[str], remaining: str) -> str:
    where = trial.run.progress
    parts = [trial.run.id, values(trial, swept), trial.state]
    if trial.state in ("running", "finished") and where:
        parts.append(f"epoch {int(where['epoch'])}/{where['epochs']}")
        labels = {"train_loss": "loss", "val_loss": "val"}
        parts += [f"{label} {where[key]:.3f}" for key, label in labels.items() if key in where]
        if "agreement" in where:
            parts.append(f"agreement {where['agreement']:.2f} (chance {where['chance']:.2f}) CV2 {where['cv2']:.2f}")
    if trial.error:
        parts.append(trial.error)
    if trial.state == "finished" and trial.note:
        parts.append(trial.note)
    return "  ".join(part for part in [*parts, remaining] if part)
