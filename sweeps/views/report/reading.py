"""Reading what probes wrote, for the page: tables that may be absent or damaged, numbers that may be none."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.runs.files import read_table, reading, unless_damaged
from sweeps.runs.folders import PROBE_AGAIN


def table(file: Path, *columns: str, mend: str = PROBE_AGAIN) -> list[dict[str, str]]:
    """Rows of a CSV file; none where there is no file, or (which is said) it is damaged.

    Args:
        file: the table.
        columns: that it must have.
        mend: what to do if it is damaged.
    """
    return unless_damaged(partial(_table, file, columns, mend), [])


def _table(file: Path, columns: Sequence[str], mend: str) -> list[dict[str, str]]:
    rows = read_table(file, mend)
    with reading(file, mend):
        for row in rows[:1]:
            if missing := sorted(set(columns) - row.keys()):
                raise ValueError(f"it has no column {missing[0]}")
    return rows


def rounded(value: Any) -> float | None:
    """A number to five digits; None for what is none, or is not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return float(f"{number:.5g}") if np.isfinite(number) else None
