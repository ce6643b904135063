"""A sweep as one HTML page that needs nothing else: what was found, comparison, training, experts, figures.

The page is `assets/page.html` with its style, its script and plotly around the numbers of `data`. Text from runs
is escaped by the template or set as text by the script: no name becomes markup.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template
from markupsafe import Markup, escape
from PIL import Image

from moe.files import content
from sweeps.runs.files import reading, unless_damaged
from sweeps.runs.folders import PROBE_AGAIN
from sweeps.runs.run import Run
from sweeps.views.compare import Comparison, header, rows_of
from sweeps.views.report.claims import claims, unasked
from sweeps.views.report.data import collect, described
from sweeps.views.report.experts import webp
from sweeps.views.report.headlines import beside_baselines
from sweeps.views.report.plates import Plate
from sweeps.views.report.words import found, missing

MOST = 11_500_000  # bytes of the page
ROOM = 5_000_000  # bytes of the probes' figures that the page takes, at most; of further runs it names the folder
_WIDTH = 1000  # pixels of a figure


@dataclass(frozen=True)
class Copy:
    """A figure in the page: what it shows, and its data URI."""

    what: str
    source: str


@dataclass(frozen=True)
class Part:
    """The figures of a run, or of all runs together.

    Attributes:
        title: whose.
        count: how many there are.
        folder: where they lie.
        copies: all of them, or none where the page has no room left.
    """

    title: str
    count: int
    folder: Path
    copies: list[Copy] = field(default_factory=list)


def to_html(comparison: Comparison, plates: Sequence[Plate] = ()) -> str:
    """The whole page.

    Args:
        comparison: of the sweep.
        plates: further figures and tables, drawn by others: those of the paper.
    """
    script, text = _plotly(), _as_script(data := collect(comparison))
    room = MOST - len(script) - len(text) - sum(len(plate.source) for plate in plates)
    return _page().render(
        data=data,
        header=header(comparison),
        rows=rows_of(comparison),
        found=found(comparison),
        claims=claims(comparison),
        missing=[*unasked(comparison), *missing(comparison)],
        figures=list(figures(comparison, min(ROOM, room))),
        plates=plates,
        shown={plate.name: plate.title for plate in plates},
        baselines=beside_baselines(comparison),
        css=_asset("page.css"),
        script=_asset("page.js"),
        plotly=script,
        json=text,
    )


@cache
def _page() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["coded"] = _coded
    return environment.from_string(_asset("page.html"))


def _coded(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _asset(name: str) -> str:
    return resources.files("sweeps").joinpath("views", "report", "assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")


def _as_script(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element, whatever it holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def figures(comparison: Comparison, room: int = ROOM) -> Iterator[Part]:
    """The probes' own figures, smaller: of all runs together first, then run by run, while there is room."""
    runs = described(comparison)
    sources = [("all runs", comparison.sweep.folder.probe_pictures())]
    for title, pictures in sources + [(_title(run), run.probe_pictures()) for run in runs]:
        if not pictures:
            continue
        tried = [unless_damaged(partial(_copy, path), None) for path in pictures] if room > 0 else []
        copies = [copy for copy in tried if copy is not None]
        room -= sum(len(copy.source) for copy in copies)
        yield Part(title, len(pictures), pictures[0].parents[2], copies if room > 0 else [])


def _title(run: Run) -> str:
    config = run.config
    return f"run {run.id}: E = {config.model.experts}, k = {config.model.top_k}, seed {config.seed}"


def _copy(path: Path) -> Copy:
    """A figure as a small WebP."""
    with reading(path, PROBE_AGAIN), Image.open(io.BytesIO(content(path))) as picture:
        small = picture.convert("RGB")
    source = webp(small, (_WIDTH, 4 * _WIDTH), quality=80)
    return Copy(" / ".join([*path.parts[-3:-1], path.stem]), source)
