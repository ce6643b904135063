"""What a launch would do, and how long it would take, from runs that were measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.runs import Run, RunStore, read_json

_SAME = ("model.experts", "model.top_k", "model.width", "data.image_size", "train.batch_size", "data.name")


@dataclass(frozen=True)
class Forecast:
    """How long the missing cells take.

    Attributes:
        seconds_per_epoch: mean over the finished runs that are most alike; None without any.
        runs: how many were measured.
        epochs: that are missing in all cells.
        hours: until the end with this many agents; None if unknown.
        agents: the number it was computed for.
    """

    seconds_per_epoch: float | None
    runs: int
    epochs: int
    hours: float | None
    agents: int

    def sentence(self) -> str:
        """The forecast in words."""
        if not self.epochs:
            return "nothing is missing"
        if self.seconds_per_epoch is None or self.hours is None:
            return f"{self.epochs:,} epochs to train; no finished run on this machine tells how long one takes"
        plural = "s" if self.agents > 1 else ""
        return (
            f"{self.epochs:,} epochs to train, {self.seconds_per_epoch:.1f} s each as measured in {self.runs} finished "
            f"run{'s' if self.runs > 1 else ''}: about {_duration(self.hours)} with {self.agents} agent{plural}"
        )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{math.ceil(60 * hours)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"  # noqa: PLR2004


def epochs_behind(run: Run) -> int:
    """Whole epochs that a resumed run need not repeat."""
    return int(run.progress.get("epoch", 0)) if run.checkpoint_files() else 0


def forecast(store: RunStore, missing: Sequence[tuple[Mapping[str, Any], int]], agents: int) -> Forecast:
    """How long cells take.

    Args:
        store: where finished runs are measured.
        missing: flat configuration and missing epochs of each cell.
        agents: that work at the same time.
    """
    measured = _measured(store)
    epochs = sum(count for _, count in missing)
    used: dict[str, float] = {}
    total, unknown = 0.0, False
    for config, count in missing:
        alike = _most_alike(config, measured)
        used |= dict(alike)
        if not alike:
            unknown = True
            break
        total += count * sum(seconds for _, seconds in alike) / len(alike)
    if unknown or not epochs:
        return Forecast(None, 0, epochs, None, agents)
    at_once = min(agents, len(missing))
    return Forecast(total / epochs, len(used), epochs, total / at_once / 3600, agents)


def _measured(store: RunStore) -> list[tuple[str, dict[str, Any], float]]:
    """Id, settings and seconds an epoch of every finished run."""
    rows = []
    for run_id in store.finished_ids():
        run = store.run(run_id)
        config, seconds = read_json(run.config_file), run.state.seconds
        if config is not None and seconds > 0:
            rows.append((run_id, _settings(config), seconds / config["train"]["epochs"]))
    return rows


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {path: config[path.split(".")[0]][path.split(".")[1]] for path in _SAME}


def _most_alike(
    config: Mapping[str, Any], measured: Sequence[tuple[str, dict[str, Any], float]]
) -> list[tuple[str, float]]:
    """Finished runs of the same data and size that share most other settings."""
    wanted = _settings(config)
    scores = [
        (sum(settings[path] == wanted[path] for path in _SAME), run_id, seconds)
        for run_id, settings, seconds in measured
        if all(settings[path] == wanted[path] for path in ("data.name", "data.image_size", "model.width"))
    ]
    best = max((score for score, _, _ in scores), default=0)
    return [(run_id, seconds) for score, run_id, seconds in scores if score == best]
