"""The comparison as one HTML file that needs nothing else: tables, curves and the probes' figures inside."""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from callbacks.keys import Keys
from sweeps.runs.run import Run
from sweeps.views.compare import Comparison, Group, header, rows_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } details { margin: .5rem 0; } summary { cursor: pointer; } .note { color: #a00; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } th, td { border-color: #444; } img { background: #fff; }
}
"""
_CURVES = (
    (Keys.VAL_LOSS, "validation loss", None),
    (Keys.AGREEMENT, "view agreement (dashed: chance)", Keys.CHANCE_OBSERVED),
    (Keys.CV2, "CV2 of importance", None),
    (Keys.ENTROPY, "normalised entropy", None),
)


def to_html(comparison: Comparison) -> str:
    """The whole page."""
    name = escape(comparison.sweep.name)
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{name}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<h1>Sweep {name}</h1>",
        *(f"<p class='note'>{escape(note)}</p>" for note in comparison.notes),
        "<h2>Last epoch, mean ± sd over seeds</h2>",
        _table(comparison),
        "<h2>Training</h2>",
        _picture(_png(_curves(comparison)), "training curves by epoch"),
        *_across(comparison),
        "<h2>Runs</h2>",
        *(_run(run) for group in comparison.groups for run in group.runs if run.config_file.exists()),
        "</body></html>",
    ]
    return "\n".join(parts)


def _table(comparison: Comparison) -> str:
    rows = rows_of(comparison)
    lines = []
    for place, name in enumerate(header(comparison)):
        tag = "th" if place <= len(comparison.parameters) else "td"
        cells = "".join(f"<{tag}>{escape(row[place])}</{tag}>" for row in rows)
        lines.append(f"<tr><{tag}>{escape(name)}</{tag}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _curves(comparison: Comparison) -> Figure:
    """Metrics by epoch: one colour a group, one line a seed."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for axes, (key, title, chance) in zip(figure.subplots(2, 2).ravel(), _CURVES, strict=True):
        for number, group in enumerate(comparison.groups):
            for place, run in enumerate(group.runs):
                label = _group_name(group) if place == 0 else None
                rows = [row for row in run.history() if row.get(key) is not None]
                epochs = [row["epoch"] for row in rows]
                axes.plot(epochs, [row[key] for row in rows], color=f"C{number % 10}", lw=1.4, label=label)
                if chance:
                    axes.plot(epochs, [row[chance] for row in rows], color=f"C{number % 10}", lw=0.8, ls="--")
        axes.set(xlabel="epochs trained", title=title)
        axes.margins(x=0.02)
    figure.axes[0].legend(fontsize=8)
    return figure


def _group_name(group: Group) -> str:
    return " ".join(f"{path.rsplit('.', 1)[-1]}={value}" for path, value in group.values.items()) or "all runs"


def _across(comparison: Comparison) -> Iterator[str]:
    pictures = comparison.sweep.folder.probe_pictures()
    if pictures:
        yield "<h2>Experts of all runs</h2>"
        yield from _figures(pictures, 2)


def _run(run: Run) -> str:
    config = run.config
    title = f"run {run.id}: E = {config.model.experts}, k = {config.model.top_k}, seed {config.seed}"
    pictures = [*run.routing_files.newest_pictures(), *run.probe_pictures()]
    return f"<details><summary>{escape(title)}</summary>{''.join(_figures(pictures, 2))}</details>"


def _figures(paths: Sequence[Path], parents: int) -> Iterator[str]:
    for path in paths:
        where = " / ".join([*path.parts[-1 - parents : -1], path.stem])
        yield f"<h3>{escape(where)}</h3>" + _picture(path.read_bytes(), where)


def _picture(png: bytes, what: str) -> str:
    return f"<img alt='{escape(what, quote=True)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
