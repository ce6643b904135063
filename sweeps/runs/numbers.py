"""A run's numbers by the names that its summary in the tracker has for them."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from callbacks.keys import PER_EXPERT, SATURATION_END, Keys
from sweeps.runs.files import read_table, unless_damaged
from sweeps.runs.folders import OVER_TRAINING, PROBE_AGAIN, TRAIN_AGAIN, ProbedFolder
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
    rows: list[dict[str, str]] = unless_damaged(partial(read_table, file, TRAIN_AGAIN), [])
    return {int(row["epoch"]): {SATURATION_END: float(row["end"])} for row in rows if row["end"]}


def probe_key(images: str, probe: str) -> str:
    """What the keys of a probe's results begin with; a number's name, which has no `/` of its own, follows."""
    return f"probe/{images}/{probe}"


def figure_key(start: str, name: str) -> str:
    """The key of a picture among keys that begin alike: never that of a number or a table."""
    return f"{start}/figures/{name}"


def table_key(start: str, name: str) -> str:
    """The key of a table."""
    return f"{start}/tables/{name}"


_HEADLINES = (
    Keys.EPOCH, Keys.VAL_LOSS, Keys.VAL_ACCURACY, Keys.AGREEMENT, Keys.CHANCE_OBSERVED, Keys.CV2, Keys.DEAD,
)  # fmt: skip
_ABOUT_OTHERS = ("low", "high", "null", "sd")  # `x_low` is about the number `x`


def headlines(run: Run) -> dict[str, float]:
    """Of `numbers` those that a list of runs should show; the others are in tables (`table_of_numbers`, `of_experts`).

    - of the last epoch all but those of single experts;
    - of the best epoch and of the untrained model the most important ones;
    - of probes all but baselines, intervals and null values.
    """
    experts = {key(expert) for key in PER_EXPERT for expert in range(run.config.model.experts)}
    spoken = {f"{which}/{key}" for which in (BEST, UNTRAINED) for key in _HEADLINES}
    found = {}
    for key, value in numbers(run).items():
        which = key.partition("/")[0]
        if which != "probe" and key not in experts and (which not in (BEST, UNTRAINED) or key in spoken):
            found[key] = value
    for images, probe, result in run.probe_results():
        found |= headlines_of(probe_key(images, probe), result)
    return found


def headlines_of(start: str, result: Mapping[str, Any]) -> dict[str, float]:
    """A probe's own headline numbers, under keys that begin alike."""
    own = {name: value for name, value in result.items() if isinstance(value, int | float) and "/" not in name}
    return {f"{start}/{name}": value for name, value in own.items() if _about(name, own) is None}


def _about(name: str, known: Iterable[str]) -> str | None:
    """The number that another one (its interval, its null value) belongs to; None if it stands for itself."""
    base, _, what = name.rpartition("_")
    return base if what in _ABOUT_OTHERS and base in known else None


def table_of_numbers(result: Mapping[str, Any]) -> list[list[Any]]:
    """A row a headline number, with what is known about it; the header first, cells that are unknown None.

    Columns are ``number``, ``value``, then as there are ``low``, ``high``, ``null``, ``sd`` and the value of each
    baseline.
    """
    known = {name: value for name, value in result.items() if isinstance(value, int | float)}
    rows: dict[str, dict[str, Any]] = {}
    baselines: dict[str, None] = {}
    for name, value in known.items():
        baseline, _, number = name.rpartition("/")
        base = _about(number, known)
        if not baseline:
            rows.setdefault(base or number, {})[number.rpartition("_")[2] if base else "value"] = value
        elif base is None:
            baselines[baseline] = None
            rows.setdefault(number, {})[baseline] = value
    found = {column for row in rows.values() for column in row}
    columns = ["value", *(what for what in _ABOUT_OTHERS if what in found), *baselines]
    return [["number", *columns], *([name, *(row.get(column) for column in columns)] for name, row in rows.items())]


def of_experts(run: Run) -> list[list[Any]]:
    """A row an expert with what the last epoch says of it alone; the header first."""
    last, experts = numbers(run), range(run.config.model.experts)
    logged = [key for key in PER_EXPERT if any(key(expert) in last for expert in experts)]
    names = [key("").rpartition("/")[2].rstrip("_") for key in logged]
    rows = [[expert, *(last.get(key(expert)) for key in logged)] for expert in experts]
    return [["expert", *names], *rows]


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


def training_rows(folder: ProbedFolder) -> list[dict[str, Any]]:
    """A row for each epoch and set of images that probes were run on: their headline numbers over training.

    Columns are ``images``, ``epoch`` (0 is the untrained model) and ``<probe>/<number>``.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for images, probe, _ in folder.probe_results():
        file = folder.probe(images, probe) / OVER_TRAINING
        rows: list[dict[str, str]] = unless_damaged(partial(read_table, file, PROBE_AGAIN), [])
        for row in rows:
            epoch = int(row.pop("epoch"))
            values = {f"{probe}/{column}": _value(text) for column, text in row.items()}
            found.setdefault((images, epoch), {"images": images, "epoch": epoch}).update(values)
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
