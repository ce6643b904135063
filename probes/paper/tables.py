"""Tables 1 and S1 of a sweep, as the paper prints them: rated dimensions behind gate and readout of each expert."""

from collections.abc import Sequence

from callbacks.tables import booktabs, escape_latex
from probes.paper.experts import Gaps
from probes.paper.piece import Piece, Table
from probes.paper.sources import Sources
from probes.tables import as_printed

SECTION = "Section"  # the column that names a row's section
_KINDS = {"gate": "Gating", "readout": "Readout"}


def tuning_table(sources: Sources, sizes: Sequence[int], name: str, title: str, top: int) -> Piece:
    """One table, a section for each E and kind.

    Args:
        sources: of the sweep.
        sizes: numbers of experts, in order.
        name: of the files.
        title: of the table.
        top: dimensions a row.
    """
    gaps, images = Gaps(), sources.rated
    sections: list[tuple[str, list[list[str]]]] = []
    if images is None:
        gaps.append(sources.lacks("which rated dimensions drive gates and readouts", "tuning").gap)
    columns = ["target", "expert", "r2_mean", "r2_sd", "dimension_1", "weight_1"]
    for experts in sizes if images else []:
        run = sources.examples[experts]
        rows = gaps.unless_missing(sources.table, run, str(images), "tuning", "tuning.csv", columns)
        for kind, word in _KINDS.items() if rows else ():
            mine = [row for row in rows or [] if row["target"] == kind]
            cells = [
                [row["expert"], _three(row["r2_mean"]), _three(row["r2_sd"])]
                + [cell for n in range(1, top + 1) for cell in (row.get(f"dimension_{n}", ""), _weight(row, n))]
                for row in mine
            ]  # fmt: skip
            sections.append((f"{sources.title(experts)}: {word}", cells))
    header = [
        "Expert",
        "r2 Mean",
        "r2 Std",
        *(f"{what} {n}" for n in range(1, top + 1) for what in ("Feature", "Weight")),
    ]
    caption = (
        "Loadings of rated dimensions on each expert's gating profile (which inputs route to the expert) and readout "
        f"response-magnitude profile (what the expert encodes){'' if images is None else f' on {images}'}: the expert, "
        f"r2 of a five-fold cross-validated non-negative Lasso, and the {top} dimensions with the largest coefficients "
        f"({'; '.join(f'E = {e}: run {sources.examples[e].id}' for e in sizes)})."
    )
    rows_out = [[section, *row] for section, cells in sections for row in cells]
    data = {"": Table([SECTION, *header], rows_out)} if rows_out else {}
    return Piece(name, title, caption, None, data, _latex(header, sections) if sections else "", gaps)


def _three(text: str) -> str:
    return as_printed(float(text)) if text else ""


def _weight(row: dict[str, str], n: int) -> str:
    """Three digits with the leading zero, as the paper has weights."""
    text = row.get(f"weight_{n}", "")
    return f"{float(text):.3f}" if text else ""


def _latex(header: Sequence[str], sections: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> str:
    """A booktabs table in the paper's layout: a heading over the rows of each section."""
    width = len(header)
    named = [text.replace("r2", "$r^2$") if text.startswith("r2") else escape_latex(text) for text in header]
    lines = [" & ".join(named) + r" \\"]
    for section, rows in sections:
        experts, _, word = section.partition(": ")
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{c}}{{{_heading(experts)}: {word}}} \\", r"\midrule"]
        lines += [" & ".join(escape_latex(cell) for cell in row) + r" \\" for row in rows]
    return booktabs(lines, "lcc" + "lc" * ((width - 3) // 2))


def _heading(experts: str) -> str:
    """``E = 4, k = 2`` with its variables in italics."""
    return ", ".join(f"${part}$" for part in experts.split(", "))
