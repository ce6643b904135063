"""What the report page shows, gathered from the files of a sweep and its runs: plain JSON types, rounded."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.files import View
from callbacks.keys import Keys, importance, load
from sweeps.runs.files import unless_damaged
from sweeps.runs.folders import TRAIN_AGAIN
from sweeps.runs.run import Run
from sweeps.views.compare import Comparison, Group
from sweeps.views.report.experts import Gallery, cards, maps
from sweeps.views.report.headlines import NULL_SUFFIX, over_training
from sweeps.views.report.importance import importance as importance_of
from sweeps.views.report.reading import rounded, table

EPOCHS = 40  # of routing, kept for the slider; of longer runs evenly many, first and last among them
_FIRST = (Keys.VAL_LOSS, Keys.TRAIN_LOSS, Keys.AGREEMENT, Keys.CV2, Keys.ENTROPY, Keys.DEAD, Keys.GATE_ENTROPY)
_CHANCE = {Keys.AGREEMENT: Keys.CHANCE_OBSERVED, Keys.TRAIN_AGREEMENT: Keys.TRAIN_CHANCE_OBSERVED}


def collect(comparison: Comparison) -> dict[str, Any]:
    """Everything of a sweep that the page shows.

    Returns:
        ``cells`` (label, values, runs), ``columns`` and ``rows`` of the comparison, ``runs``, ``history`` (metric ->
        values by epoch, a run), ``first`` (metrics to begin with), ``chance`` (metric -> its chance level),
        ``routing`` (by epoch, a run), ``importance`` (of swept parameters), ``experts`` (one a card), ``maps`` (experts
        in the plane by similarity, one for each image set), ``thumbnails`` (image -> data URI).
    """
    runs = described(comparison)
    gallery = Gallery()
    experts = [card for run in runs for card in cards(run, gallery)]
    histories = {run.id: history(run) for run in runs}
    return {
        "name": comparison.sweep.name,
        "parameters": comparison.parameters,
        "notes": comparison.notes,
        "cells": [_cell(group, runs) for group in comparison.groups],
        "columns": comparison.columns,
        "rows": [[_number(group, column) for column in comparison.columns] for group in comparison.groups],
        "runs": [_run(run) for run in runs],
        "history": histories,
        "routing": {run.id: found for run in runs if (found := routing(run))},
        "first": _FIRST,
        "chance": _chance(histories),
        "importance": importance_of(comparison),
        "experts": experts,
        "maps": maps(comparison),
        "thumbnails": gallery.pictures,
    }


def described(comparison: Comparison) -> list[Run]:
    """The runs of a comparison whose configuration can be read; damaged ones are named."""
    runs = [run for group in comparison.groups for run in group.runs]
    return [run for run in runs if unless_damaged(partial(getattr, run, "config"), None) is not None]


def _cell(group: Group, shown: Sequence[Run]) -> dict[str, Any]:
    return {
        "label": group.label,
        "values": group.values,
        "planned": group.planned,
        "runs": [run.id for run in group.runs if any(run.id == one.id for one in shown)],
    }


def _number(group: Group, column: str) -> dict[str, Any] | None:
    cell = group.cells[column]
    return None if cell is None else {"mean": rounded(cell.mean), "sd": rounded(cell.sd), "n": cell.n}


def _run(run: Run) -> dict[str, Any]:
    config = run.config
    return {"id": run.id, "experts": config.model.experts, "top_k": config.model.top_k, "seed": config.seed}


def _chance(histories: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> the metric that is its level by chance."""
    known = {key for one in histories.values() for key in one["metrics"]}
    nulls = {key.removesuffix(NULL_SUFFIX): key for key in known if key.endswith(NULL_SUFFIX)}
    return _CHANCE | {key: null for key, null in sorted(nulls.items()) if key in known}


def history(run: Run) -> dict[str, Any]:
    """Epochs done, and the values of every metric at each of them; experts' own shares are left out.

    Numbers of probes are among them where checkpoints were probed.
    """
    rows = run.history()
    experts = {name(expert) for name in (importance, load) for expert in range(run.config.model.experts)}
    keys = {key for row in rows for key in row} - experts - {"epoch", "step"}
    metrics = {key: [rounded(row.get(key)) for row in rows] for key in sorted(keys)}
    epochs = [int(row["epoch"] or 0) for row in rows]
    return {"epochs": epochs, "metrics": metrics | over_training(run, epochs)}


def routing(run: Run) -> dict[str, Any] | None:
    """Share of each class's images that each expert gets, and how often experts are chosen together, by epoch."""
    files, epochs = run.routing_files, [int(row["epoch"] or 0) for row in run.history()]
    there = [epoch for epoch in epochs if files.table(View.HEATMAP, epoch).exists()]
    if not there:
        return None
    kept = [
        there[place] for place in np.unique(np.linspace(0, len(there) - 1, min(EPOCHS, len(there))).round()).astype(int)
    ]
    tables = [[_matrix(files.table(view, epoch)) for view in (View.HEATMAP, View.COACTIVATION)] for epoch in kept]
    whole = [(epoch, heat, pairs) for epoch, (heat, pairs) in zip(kept, tables, strict=True) if heat[0] and pairs[0]]
    return {
        "epochs": [epoch for epoch, _, _ in whole],
        "classes": whole[0][1][0],
        "heatmap": [values for _, (_, values), _ in whole],
        "coactivation": [values for _, _, (_, values) in whole],
    } if whole else None  # fmt: skip


def _matrix(file: Path) -> tuple[list[str], list[list[float | None]]]:
    """Names of the rows, and the numbers beside them, to three decimals; nothing of a damaged table."""
    rows = [list(row.values()) for row in table(file, mend=TRAIN_AGAIN)]
    names = [row[0] for row in rows]
    return names, [[None if (x := rounded(cell)) is None else round(x, 3) for cell in row[1:]] for row in rows]
