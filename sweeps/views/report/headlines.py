"""Numbers of the probes beside what they are to be compared with: chance, and the same number of no trained expert."""

from collections.abc import Mapping
from typing import Any

from sweeps.runs.numbers import probe_key
from sweeps.runs.run import Run
from sweeps.views.compare import Comparison
from sweeps.views.report.reading import rounded, table
from sweeps.views.report.words import spread

OWN, NULL = "run", "by chance"
NULL_SUFFIX = "_null"
_DETAILS = ("_low", "_high", "_p", "_chance", NULL_SUFFIX)
_BASELINES = ("untrained", "random_router", "shared", "embedding", "pixels")


def beside_baselines(comparison: Comparison) -> dict[str, Any]:
    """Each headline number that has a null or a baseline, mean +- sd over the runs of a cell.

    Returns:
        ``header`` and ``rows`` of text: cell, images, number, the runs' own, chance, and one column a baseline that
        was measured.
    """
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for group in comparison.groups:
        for run in group.runs:
            for images, probe, result in run.probe_results():
                for number, values in _with_baselines(result).items():
                    row = found.setdefault((group.label, images, f"{probe}: {number}"), {})
                    for which, value in values.items():
                        row.setdefault(which, []).append(value)
    columns = [which for which in (OWN, NULL, *_BASELINES) if any(which in row for row in found.values())]
    others = sorted({which for row in found.values() for which in row} - set(columns))
    columns += others
    rows = [[*key, *(spread(row[which], 3) if which in row else "" for which in columns)] for key, row in found.items()]
    return {"header": ["cell", "images", "number", *(which.replace("_", " ") for which in columns)], "rows": rows}


def _with_baselines(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Number -> whose -> value, of numbers that have anything beside them."""
    known = {key: float(value) for key, value in result.items() if _is_number(value)}
    found: dict[str, dict[str, float]] = {}
    for key, value in known.items():
        whose, slash, number = key.rpartition("/")
        if number.endswith(_DETAILS):
            continue
        if not slash:
            found.setdefault(number, {})[OWN] = value
            if f"{number}{NULL_SUFFIX}" in known:
                found[number][NULL] = known[f"{number}{NULL_SUFFIX}"]
        elif number in known:
            found.setdefault(number, {})[whose] = value
    return {
        number: values for number, values in found.items()
        if OWN in values and len(values) > 1 and isinstance(result[number], float)
    }  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def over_training(run: Run, epochs: list[int]) -> dict[str, list[float | None]]:
    """Headline numbers of the probes at the epochs whose checkpoints were probed (`moe probe --epochs`).

    Args:
        run: the run.
        epochs: those of its history, in order; a number is None at those that were not probed.

    Returns:
        ``probe/<images>/<probe>/<number>`` -> values.
    """
    found: dict[str, list[float | None]] = {}
    for images, probe, _ in run.probe_results():
        rows = table(run.probe(images, probe) / "epochs.csv", "epoch")
        at = {int(float(row["epoch"])): row for row in rows}
        for number in rows[0] if rows else ():
            if number != "epoch" and not number.endswith(("_low", "_high", "_p")):
                values = [rounded(at[epoch].get(number)) if epoch in at else None for epoch in epochs]
                if len({value for value in values if value is not None}) > 1:
                    found[f"{probe_key(images, probe)}/{number}"] = values
    return found
