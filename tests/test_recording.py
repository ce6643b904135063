"""Ids, a small run's model and every probe's numbers are those that an earlier version gave."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moe.config import RunConfig
from sweeps.plan.spec import expand, load_sweep
from tests.recordings import record

RECORDING = json.loads((Path(record.__file__).parent / "recording.json").read_text())
# on another processor a run's floats differ in their last bits, and what is computed from them a little more
NEAR = {"rel_tol": 0.01, "abs_tol": 0.001}
# sums of the libraries under the probes take the processor's own order, also within a family of one name
DERIVED, LAST_DIGITS = ("/probes/", "/tables/"), {"rel_tol": 1e-11, "abs_tol": 1e-13}
CHAOTIC = ("/tsne_1", "/tsne_2")  # an embedding in the plane that turns with the last bit
CHANGED: dict[str, str] = {  # what was changed on purpose since: the beginning of a leaf's path -> why
    "/probes/exciting/overlap_p": "images are permuted for all experts alike, which keeps the experts' correlations",
    "/probes/separability/mean_low": "classes are a random sample; three of them cannot tell",
    "/probes/separability/mean_high": "the same",
    "/probes/separability/expert_pairs_that_differ": "the same, corrected for all pairs of experts",
    "/tables/recorded/separability/differences.csv": "the same",
    "/probes/similarity/mean_similarity_low": "infinitesimal jackknife over images, not quantiles of 20 half samples",
    "/probes/similarity/mean_similarity_high": "the same",
}


def test_ids_of_shipped_sweeps_are_those_recorded():
    """The quickstart's recipe has changed since; its old file has the old ids."""
    files = {"quickstart": str(Path(record.__file__).parent / "quickstart.yaml")}
    ids = {name: [cell.run_id for cell in expand(load_sweep(files.get(name, name)))] for name in RECORDING["sweeps"]}
    assert ids == RECORDING["sweeps"]


@pytest.mark.parametrize("number", range(len(record.CONFIGS)))
def test_ids_of_configs_are_those_recorded(number):
    assert RunConfig.model_validate(record.CONFIGS[number]).identity() == RECORDING["configs"][number]


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below a tree with its path; a table's by line and column."""
    if isinstance(tree, dict):
        for name, child in tree.items():
            yield from leaves(child, f"{path}/{name}")
    elif isinstance(tree, list):
        for number, child in enumerate(tree):
            yield from leaves(child, f"{path}/{number}")
    elif isinstance(tree, str) and path.endswith(".csv"):
        header, *rows = csv.reader(tree.splitlines())
        for number, row in enumerate(rows):
            for column, cell in zip(header, row, strict=True):
                yield f"{path}/{number}/{column}", _number(cell)
    else:
        yield path, tree


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def same(path: str, old: Any, new: Any, *, exactly: bool) -> bool:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    if exactly:
        derived = numbers and path.startswith(DERIVED)
        return math.isclose(old, new, **LAST_DIGITS) if derived else bool(old == new)
    if path.endswith("/sha256") or path.endswith(CHAOTIC):
        return True
    return math.isclose(old, new, **NEAR) if numbers else bool(old == new)


@pytest.mark.slow
def test_a_small_run_and_its_probes_give_what_was_recorded(tmp_path):
    """Under the recorded conditions model and history to the bit, probes but for the last digits; elsewhere closely.

    More numbers than were recorded are welcome.
    """
    old = dict(leaves(RECORDING["run"]))
    new = dict(leaves(record.small_run(tmp_path)))
    exactly = record.conditions() == RECORDING["conditions"]
    wrong = {
        path: (value, new.get(path, "missing"))
        for path, value in old.items()
        if not path.startswith(tuple(CHANGED)) and not same(path, value, new.get(path), exactly=exactly)
    }
    assert wrong == {}


def test_the_comparison_notices_a_difference():
    old = {"a": 1.0, "b": {"sha256": "x"}, "t.csv": "name,x,tsne_1\none,2,3\n"}
    new = {"a": 1.02, "b": {"sha256": "y"}, "t.csv": "name,x,tsne_1\none,2.001,9\n"}
    pairs = [(path, value, dict(leaves(new))[path]) for path, value in leaves(old)]
    assert [path for path, *both in pairs if not same(path, *both, exactly=False)] == ["/a"]
    assert [path for path, *both in pairs if not same(path, *both, exactly=True)] == [
        "/a", "/b/sha256", "/t.csv/0/x", "/t.csv/0/tsne_1"
    ]  # fmt: skip
    assert same("/probes/x", 1.0, 1.0 + 1e-14, exactly=True)
    assert not same("/probes/x", 1.0, 1.0 + 1e-9, exactly=True)
    assert not same("/history/0/x", 1.0, 1.0 + 1e-14, exactly=True)
