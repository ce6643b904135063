"""A run's numbers by the names that its summary in the tracker has for them."""

from functools import partial
from typing import Any

from callbacks.keys import SATURATION_END
from sweeps.runs.files import read_table, unless_damaged
from sweeps.runs.folders import PROBE_AGAIN, TRAIN_AGAIN, ProbedFolder
from sweeps.runs.run import Run

BEST, UNTRAINED = "best", "untrained"


def numbers(run: Run) -> dict[str, float]:
    """Every number of a run, defined ones alone.

    - of the last epoch, under the metric's key: ``val/loss``;
    - of the epoch with the lowest validation loss, and of the untrained model: ``best/val/loss``,
      ``untrained/val/loss``;
    - of its probes: ``probe/<images>/<probe>/<number>``.
    """
    rows, summary = run.history(), run.summary
    last = summary.get("last") or (rows[-1] if rows else {})
    values = dict(last)
    for which in (BEST, UNTRAINED):
        values |= {f"{which}/{key}": value for key, value in summary.get(which, {}).items()}
    for images, probe, result in run.probe_results():
        values |= {f"{probe_key(images, probe)}/{key}": value for key, value in result.items()}
    return {key: value for key, value in values.items() if isinstance(value, int | float)}


def saturation_of_the_end(run: Run) -> dict[int, dict[str, float]]:
    """For each epoch of a run that ended, the fraction of images whose set of experts is that of the end, by key."""
    file = run.routing_files.saturation
    rows: list[dict[str, str]] = unless_damaged(partial(read_table, file, TRAIN_AGAIN), []) if file.exists() else []
    return {int(row["epoch"]): {SATURATION_END: float(row["end"])} for row in rows if row["end"]}


def probe_key(images: str, probe: str) -> str:
    """What the keys of a probe's results begin with."""
    return f"probe/{images}/{probe}"


def expert_rows(folder: ProbedFolder) -> list[dict[str, Any]]:
    """A row for each expert and set of images: what the probes' own tables say of it.

    Columns are ``expert``, ``images`` and ``<probe>/<column>``, or ``<probe>/<target>/<column>`` where a table has
    several targets an expert (``tuning/gate/r2_mean``). A probe's table is the one that bears its name; tables that
    are not about one expert a row, such as similarities between experts, are left out.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for images, probe, _ in folder.probe_results():
        path = folder.probe(images, probe)
        table = path / f"{probe.partition('--')[0]}.csv"
        rows: list[dict[str, str]] = unless_damaged(partial(read_table, table, PROBE_AGAIN), [])
        if not _is_about_experts(rows):
            continue
        for row in rows:
            expert, target = int(row.pop("expert")), row.pop("target", None)
            prefix = f"{probe}/{target}" if target else probe
            values = {f"{prefix}/{column}": _value(text) for column, text in row.items()}
            found.setdefault((images, expert), {"images": images, "expert": expert}).update(values)
    return [found[key] for key in sorted(found)]


def claim_rows(folder: ProbedFolder) -> list[dict[str, Any]]:
    """A row for each of the paper's claims and set of images: what the probe `claims` says of all runs of a sweep.

    Columns are ``images``, ``claim``, ``verdict``, ``effect``, ``low``, ``high``, ``p``, ``published``, ``place``,
    ``sentence`` and the others of its ``claims.csv``; None where a number is undefined. Results under the probe's own
    options alone, and of versions before the probe none.
    """
    found = []
    for images, probe, result in folder.probe_results():
        claims = result.get("claims") if probe == "claims" else None
        for claim in claims if isinstance(claims, list) else []:
            plain = {key: value for key, value in claim.items() if not isinstance(value, dict | list)}
            found.append({"images": images, **plain})
    return found


def _is_about_experts(rows: list[dict[str, str]]) -> bool:
    """Whether a table has one row an expert (and target), and no column an expert."""
    if not rows or "expert" not in rows[0]:
        return False
    keys = [(row.get("target"), row["expert"]) for row in rows]
    matrix = {row["expert"] for row in rows} <= rows[0].keys()
    return len(set(keys)) == len(keys) and not matrix and all(row["expert"].isdigit() for row in rows)


def _value(text: str) -> float | str | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
