"""What a launch would do, and how long it would take, from runs that were measured."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from moe.wording import counted
from sweeps.runs.files import read_json, reading, unless_damaged
from sweeps.runs.folders import TRAIN_AGAIN
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore

_SAME = ("model.experts", "model.top_k", "model.width", "data.image_size", "train.batch_size", "data.name")
_Settings = tuple[Any, ...]  # the values of _SAME


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
        epochs = counted(self.epochs, "epoch")
        if self.seconds_per_epoch is None or self.hours is None:
            return f"{epochs} to train; no finished run on this machine tells how long one takes"
        return (
            f"{epochs} to train, {self.seconds_per_epoch:.1f} s each as measured in "
            f"{counted(self.runs, 'finished run')}: about {_duration(self.hours)} with {counted(self.agents, 'agent')}"
        )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{math.ceil(60 * hours)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def epochs_behind(run: Run) -> int:
    """Whole epochs that a resumed run need not repeat."""
    return int(run.progress.get("epoch", 0)) if run.checkpoint_files() else 0


def forecast(store: RunStore, missing: Sequence[tuple[Mapping[str, Any], int]], agents: int) -> Forecast:
    """How long cells take.

    Args:
        store: where finished runs are measured.
        missing: configuration (by section) and missing epochs of each cell.
        agents: that work at the same time.
    """
    epochs: Counter[_Settings] = Counter()  # many cells share few settings
    for config, count in missing:
        epochs[_settings(config)] += count
    every = epochs.total()
    if not every:
        return Forecast(None, 0, 0, None, agents)
    measured = _measured(store)
    used: set[_Settings] = set()
    total = 0.0
    for wanted, count in epochs.items():
        alike = _most_alike(wanted, measured)
        if not alike:
            return Forecast(None, 0, every, None, agents)
        used.update(alike)
        total += count * fmean(seconds for settings in alike for seconds in measured[settings])
    runs = sum(len(measured[settings]) for settings in used)
    at_once = min(agents, len(missing))
    return Forecast(total / every, runs, every, total / at_once / 3600, agents)


def _measured(store: RunStore) -> dict[_Settings, list[float]]:
    """Seconds an epoch of every finished run, by its settings."""
    found: dict[_Settings, list[float]] = {}
    for run_id in store.finished_ids():
        run = store.run(run_id)
        config, seconds = unless_damaged(partial(_config, run), None), run.state.seconds
        if config is not None and seconds > 0:
            settings, epochs = config
            found.setdefault(settings, []).append(seconds / epochs)
    return found


def _config(run: Run) -> tuple[_Settings, int] | None:
    """A run's settings and epochs; its configuration is not checked as a whole, because there may be thousands."""
    with reading(run.config_file, TRAIN_AGAIN):
        config = read_json(run.config_file, TRAIN_AGAIN)
        return None if config is None else (_settings(config), int(config["train"]["epochs"]))


def _settings(config: Mapping[str, Any]) -> _Settings:
    return tuple(config[section][name] for section, name in (path.split(".") for path in _SAME))


def _most_alike(wanted: _Settings, measured: Iterable[_Settings]) -> list[_Settings]:
    """Settings of finished runs: of the same data, size and width, and sharing most of the others."""
    needed = [_SAME.index(path) for path in ("data.name", "data.image_size", "model.width")]
    comparable = [settings for settings in measured if all(settings[n] == wanted[n] for n in needed)]
    shared = {settings: sum(a == b for a, b in zip(settings, wanted, strict=True)) for settings in comparable}
    most = max(shared.values(), default=0)
    return [settings for settings in comparable if shared[settings] == most]
