"""All figures and tables of the paper from one sweep, and writing them into a folder."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from shlex import quote

from PIL import Image

from probes.drawing.printed import print_style, save_print
from probes.paper.beside import beside_the_paper
from probes.paper.clusters import figure_6, figure_s3
from probes.paper.experts import IMAGES, IMAGES_OF_MANY, figure_2, figure_3, figure_4, figure_5
from probes.paper.piece import Piece
from probes.paper.sources import Sources
from probes.paper.tables import SECTION, tuning_table
from probes.tables import write_table
from sweeps.queue.launched import LaunchedSweep
from sweeps.runs.files import DamagedFileError, name_damage
from sweeps.views.compare import Gap
from sweeps.views.report.experts import webp
from sweeps.views.report.plates import Plate, Rows

Make = Callable[[Sources], Piece]

_DOTS = 200  # an inch, of the page's pictures
_MOST_PIXELS = 1200  # of their width
_MOST_ROWS = 60  # of the numbers behind a figure


def paper_pieces(sweep: LaunchedSweep) -> list[Piece]:
    """The paper's figures and tables, in its order, over the numbers of experts of the sweep.

    As there, the smallest model has figures of its own (4, 5, 6, Table 1), the two smallest share Figure 3, and the
    others stand in the supplement (S1, S2, S4, Table S1). None before a run is finished.
    """
    sources = Sources(sweep)
    sizes = list(sources.examples)
    if not sizes:
        return []
    first, others = sizes[:1], sizes[1:]
    asked: list[tuple[str, str, Make]] = [
        ("figure_2", "Figure 2", figure_2),
        ("figure_3", "Figure 3", lambda of: figure_3(of, sizes[:2], "figure_3", "Figure 3", IMAGES)),
        ("table_1", "Table 1", lambda of: tuning_table(of, first, "table_1", "Table 1", top=3)),
        ("figure_4", "Figure 4", lambda of: figure_4(of, first, "figure_4", "Figure 4")),
        ("figure_5", "Figure 5", figure_5),
        ("figure_6", "Figure 6", lambda of: figure_6(of, first, "figure_6", "Figure 6")),
    ]
    if others:
        asked += [("figure_s1", "Figure S1", lambda of: figure_4(of, others, "figure_s1", "Figure S1"))]
    if sizes[2:]:
        s2 = partial(figure_3, sizes=sizes[2:], name="figure_s2", title="Figure S2", count=IMAGES_OF_MANY)
        asked += [("figure_s2", "Figure S2", s2)]
    if others:
        asked += [("table_s1", "Table S1", lambda of: tuning_table(of, others, "table_s1", "Table S1", top=5))]
    asked += [("figure_s3", "Figure S3", figure_s3)]
    if others:
        asked += [("figure_s4", "Figure S4", lambda of: figure_6(of, others, "figure_s4", "Figure S4"))]
    with print_style():
        pieces = [_made(sources, *one) for one in asked]
    beside = beside_the_paper(sources)
    every = pieces if beside is None else [beside, *pieces]
    return [piece for piece in every if piece.figure is not None or piece.data or piece.gaps]


def _made(sources: Sources, name: str, title: str, make: Make) -> Piece:
    """A piece; where a table holds what it should not, the damage is named and the piece is a gap."""
    try:
        with sources.reading():
            return make(sources)
    except DamagedFileError as damage:
        name_damage(damage)
        gap = Gap(f"{damage.path} is damaged: {damage.why}", f"moe probe --sweep {quote(sources.sweep.name)}")
        return Piece(name, title, "", gaps=[gap])


def write_pieces(pieces: Sequence[Piece], folder: Path) -> Iterator[Path]:
    """Write each piece: PDF, SVG and PNG of a figure, LaTeX of a table, CSV of the numbers, all captions in one file.

    Yields:
        The files, as they are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        if piece.figure is not None:
            yield from save_print(piece.figure, folder / piece.name)
        if piece.latex:
            file = folder / f"{piece.name}.tex"
            file.write_text(piece.latex, encoding="utf-8")
            yield file
        for part, table in piece.data.items():
            file = folder / (f"{piece.name}_{part}.csv" if part else f"{piece.name}.csv")
            write_table(file, table.header, table.rows)
            yield file
    file = folder / "captions.md"
    file.write_text("\n".join(_caption(piece) for piece in pieces), encoding="utf-8")
    yield file


def _caption(piece: Piece) -> str:
    missing = "".join(f"\nMissing: {gap.text}: `{gap.command}`\n" for gap in piece.gaps)
    return f"**{piece.title}.** {piece.caption}\n{missing}"


def plates(pieces: Sequence[Piece]) -> list[Plate]:
    """The pieces as the page shows them."""
    return [
        Plate(piece.name, piece.title, piece.caption, _picture(piece), _tables(piece), piece.gaps) for piece in pieces
    ]


def _picture(piece: Piece) -> str:
    """A piece's figure as a data URI."""
    if piece.figure is None:
        return ""
    buffer = io.BytesIO()
    with print_style():
        piece.figure.savefig(buffer, dpi=_DOTS, format="png")
    with Image.open(buffer) as drawn:
        return webp(drawn.convert("RGB"), (_MOST_PIXELS, 4 * _MOST_PIXELS), quality=82)


def _tables(piece: Piece) -> list[Rows]:
    """A table's sections; of a figure what can be read in a minute."""
    found = []
    for part, table in piece.data.items():
        if piece.figure is not None and len(table.rows) > _MOST_ROWS:
            continue
        header, rows = list(table.header), [["" if cell is None else str(cell) for cell in row] for row in table.rows]
        if header[0] == SECTION:
            by_section: dict[str, list[list[str]]] = {}
            for section, *cells in rows:
                by_section.setdefault(section, []).append(cells)
            found.append(Rows(part, header[1:], list(by_section.items())))
        else:
            found.append(Rows(part, header, [("", rows)]))
    return found
