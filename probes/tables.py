"""Tables of results as CSV, and numbers as JSON has them."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; NaN and None become empty cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def number(value: Any) -> float | None:
    """A headline number as JSON has it: NaN becomes None."""
    return float(value) if np.isfinite(value) else None


def mean(values: NDArray[np.floating[Any]]) -> float | None:
    """Mean of the finite values, None if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def write_latex(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], rules: Sequence[int] = ()) -> None:
    """Write a table for a paper (package booktabs); NaN and None become empty cells.

    Args:
        path: the .tex file.
        header: column names.
        rows: cells; numbers as text already, with the digits they deserve.
        rules: numbers of the rows before which a rule is drawn.
    """
    lines = [rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\toprule", _latex_row(header), r"\midrule"]
    for place, row in enumerate(rows):
        if place in rules:
            lines.append(r"\midrule")
        lines.append(_latex_row([_cell(value) for value in row]))
    path.write_text("\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]), encoding="utf-8")


def _latex_row(cells: Sequence[Any]) -> str:
    special = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"})
    return " & ".join(str(cell).translate(special) for cell in cells) + r" \\"
