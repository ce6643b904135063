"""Tables as CSV and as LaTeX: written here, for callbacks, probes and comparisons alike."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe.files import replacing

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
)


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]], *, digits: int | None = None) -> str:
    """A table as CSV (RFC 4180).

    Args:
        header: names of the columns.
        rows: cells; None becomes an empty one.
        digits: significant digits of floats, of which those that are not finite become empty cells; None: all digits,
            and `nan` and `inf` as they are.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([_cell(value, digits) for value in row] for row in rows)
    return text.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]], *, digits: int | None = None) -> None:
    """Write a table as CSV, making its folder; see `csv_text`."""
    with replacing(path, durable=False) as partial:
        partial.write_text(csv_text(header, rows, digits=digits), encoding="utf-8", newline="")


def latex_text(
    rows: Iterable[Sequence[Any]], *, align: str | None = None, rules: Sequence[int] = (1,), digits: int | None = None
) -> str:
    r"""A table for a paper (package booktabs). Every character stands for itself: ``\ ~ ^ # $ % & _ { }`` are escaped.

    Args:
        rows: cells, those of the header first; text with the digits that it deserves, or numbers.
        align: a letter for each column, as LaTeX has them; None: all to the left.
        rules: numbers of the rows before which a rule is drawn.
        digits: see `csv_text`.
    """
    lines: list[str] = []
    width = 0
    for place, row in enumerate(rows):
        if place in rules:
            lines.append(r"\midrule")
        cells = (_cell(value, digits) for value in row)
        lines.append(" & ".join("" if cell is None else escape_latex(str(cell)) for cell in cells) + r" \\")
        width = len(row)
    return booktabs(lines, align or "l" * width)


def booktabs(lines: Iterable[str], align: str) -> str:
    """A table of lines that are LaTeX already.

    Args:
        lines: rows and rules.
        align: a letter for each column.
    """
    begin = rf"\begin{{tabular}}{{{align}}}"
    return "\n".join([begin, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""])


def escape_latex(text: str) -> str:
    """Text as LaTeX sets it, character for character."""
    return text.translate(_LATEX)


def _cell(value: Any, digits: int | None) -> Any:
    if digits is None or not isinstance(value, float | np.floating):
        return value
    return f"{value:.{digits}g}" if np.isfinite(value) else ""
