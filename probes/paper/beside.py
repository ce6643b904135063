"""A sweep's numbers beside those that the paper reports, where its models have the paper's E and k."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

from callbacks.keys import Keys
from callbacks.tables import latex_text
from moe.config import RunConfig, flat, from_flat
from probes.paper.clusters import grouped_experts, images_of
from probes.paper.experts import Gaps
from probes.paper.piece import Piece, Table
from probes.paper.sources import Row, Sources
from probes.suite.published import Published, published_agreement, published_clusters, published_r2, published_tuning
from probes.tables import as_printed
from sweeps.runs.files import read_table, unless_damaged
from sweeps.runs.run import Run

_TOP_K = 2  # of all models of the paper
_HEADER = ("number", "E", "here: mean", "sd", "runs", "paper", "sd of the paper", "difference in sd", "place")
_LEAST_RUNS = 3  # to tell how much runs differ
_MOST_NAMED = 8  # settings that differ


def beside_the_paper(sources: Sources) -> Piece | None:
    """One row a number that both have; None where no run has the paper's E and k."""
    gaps, rows = Gaps(), list[list[Any]]()
    runs = [run for run in sources.runs if run.config.model.top_k == _TOP_K]
    measured: list[tuple[str, Sequence[Published], Callable[[Run], float | None]]] = [
        ("view agreement", published_agreement(), lambda run: run.summary.get("last", {}).get(Keys.AGREEMENT))
    ]
    for target in ("gate", "readout") if _same_dimensions(sources) else ():
        of = partial(_probed, sources.rated, "tuning", f"{target}_r2")
        measured.append((f"{target} r2 (mean over experts)", published_r2(target), of))
    for name, published, number_of in measured:
        for one in published:
            values = [number_of(run) for run in runs if run.config.model.experts == one.experts]
            rows += [_row(name, one, [value for value in values if value is not None])] if any(values) else []
    rows += _cluster_rows(sources, {run.config.model.experts for run in runs}, gaps)
    if not rows:
        return None
    differing = _differing(runs)
    caption = (
        "Beside the paper (arXiv:2605.20610). Difference: ours less the paper's, in standard deviations of a run (over "
        "our seeds, three or more; pooled with the paper's where it gives one). The paper's r2 are those of one "
        f"model of each E. {differing}"
    )
    printed = [[_text(cell) for cell in row] for row in rows]
    latex = latex_text([_HEADER, *printed], align="lr" + "r" * 6 + "l")
    return Piece("beside_the_paper", "Beside the paper", caption, None, {"": Table(_HEADER, printed)}, latex, gaps)


def _same_dimensions(sources: Sources) -> bool:
    """Whether the rated dimensions are THINGS', so that an r2 of theirs is about the same as the paper's."""
    if sources.rated is None:
        return False
    example = next(iter(sources.examples.values()))
    file = example.probe(sources.rated, "tuning") / "coefficients.csv"
    rows: list[Row] = unless_damaged(partial(read_table, file), [])
    named = {name for row in published_tuning() for name, _ in row.top}
    return bool(rows) and len(named & rows[0].keys()) > len(named) / 2  # versions of THINGS spell some differently


def _probed(images: str | None, probe: str, key: str, run: Run) -> float | None:
    for one, name, numbers in run.probe_results():
        if (one, name) == (images, probe) and isinstance(numbers.get(key), int | float):
            return float(numbers[key])
    return None


def _row(name: str, published: Published, values: Sequence[float]) -> list[Any]:
    mean, sd = fmean(values), stdev(values) if len(values) > 1 else None
    return [
        name, published.experts, mean, sd, len(values), published.value, published.sd,
        difference(mean, sd if len(values) >= _LEAST_RUNS else None, published), published.place,
    ]  # fmt: skip


def difference(mean: float, sd: float | None, published: Published) -> float | None:
    """Ours less the paper's in standard deviations of a run: Cohen's d with both sd, Glass's with ours alone.

    None where our sd is not known, or 0.
    """
    if not sd:
        return None
    spread = sd if published.sd is None else ((sd**2 + published.sd**2) / 2) ** 0.5
    return (mean - published.value) / spread


def _cluster_rows(sources: Sources, sizes: Collection[int], gaps: Gaps) -> list[list[Any]]:
    images, found = images_of(sources), []
    for one in published_clusters():
        if images is None or one.experts not in sizes:
            continue
        grouped = gaps.unless_missing(grouped_experts, sources, images, one.experts)
        if grouped is not None:
            runs = len({member["run"] for member in grouped.members})
            count = int(grouped.labels_N.max()) + 1
            found.append(["clusters of experts", one.experts, count, None, runs, int(one.value), None, None, one.place])
    return found


def _differing(runs: Sequence[Run]) -> str:
    """Which settings are not the paper's, whose recipe is RunConfig's defaults."""
    paper = flat(from_flat({}))
    other: dict[str, set[str]] = {}
    for run in runs:
        for path, value in _scientific(run.config).items():
            if value != paper.get(path):
                other.setdefault(path, set()).add(str(value))
    if not other:
        return "Every setting is the paper's."
    named = [f"{path} {' or '.join(sorted(values))} (paper: {paper.get(path)})" for path, values in other.items()]
    more = len(named) - _MOST_NAMED
    return f"Not the paper's: {'; '.join(named[:_MOST_NAMED])}{f'; and {more} more' if more > 0 else ''}."


def _scientific(config: RunConfig) -> Mapping[str, Any]:
    skipped = ("seed", "model.experts", "machine.")
    return {path: value for path, value in flat(config).items() if not path.startswith(skipped)}


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return as_printed(cell) if isinstance(cell, float) else str(cell)
