"""Tables of results with the digits that they deserve, and numbers as JSON has them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callbacks.tables import latex_text, write_csv

_DIGITS = 6  # significant ones


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; NaN and None become empty cells."""
    write_csv(path, header, rows, digits=_DIGITS)


def write_latex(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], rules: Sequence[int] = ()) -> None:
    """Write a table for a paper (package booktabs); NaN and None become empty cells.

    Args:
        path: the .tex file.
        header: column names.
        rows: cells; numbers as text already, with the digits they deserve.
        rules: numbers of the rows before which a rule is drawn.
    """
    text = latex_text([header, *rows], rules=[1, *(rule + 1 for rule in rules)], digits=_DIGITS)
    path.write_text(text, encoding="utf-8")


def number(value: Any) -> float | None:
    """A headline number as JSON has it: NaN becomes None."""
    return float(value) if np.isfinite(value) else None


def mean(values: NDArray[np.floating[Any]]) -> float | None:
    """Mean of the finite values, None if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def as_printed(value: float) -> str:
    """Three digits without the leading zero, as the paper prints them: ``.538``; nothing where it is not finite."""
    if not np.isfinite(value):
        return ""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3g}"
