"""Tidy tables of a sweep whose numbers are known."""

import json
import re
import sys
import types
from pathlib import Path

import pytest

from callbacks.tables import write_csv
from moe.errors import UserError
from sweeps.launching import plan, register_planned
from sweeps.results import Rows, load
from sweeps.runs.files import write_json

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
SPEC = """name: my-sweep
method: grid
parameters:
  model.experts: {values: [4, 8]}
  seed: {values: [0, 1]}
  data.name: {value: tiny}
"""


@pytest.fixture
def sweep(tmp_path):
    """Four cells: the last has only begun, the one before has not begun."""
    path = tmp_path / "my-sweep.yaml"
    path.write_text(SPEC)
    launched = register_planned(*plan(str(path), {}))
    for number, cell in enumerate(launched.cells):
        run = launched.prepare(cell)
        losses = [number + 1 / (epoch + 1) for epoch in range(3)]
        rows = [{"epoch": float(e), "step": 3.0 * e, "val/loss": losses[e], "balance/cv2": 0.5} for e in range(3)]
        rows[1]["balance/cv2"] = rows[2]["balance/cv2"] = None
        if number == 2:
            continue
        run.history_file.write_text("".join(json.dumps(row) + "\n" for row in rows[: 2 if number == 3 else 3]))
        if number == 3:
            continue
        write_json(run.summary_file, {"untrained": rows[0], "last": rows[2], "best": rows[2]})
        run.set_state(state="finished")
        experts = range(cell.values["model.experts"])
        tuning = run.probe_result("tiny", "tuning")
        write_json(tuning, {"gate_r2": 0.25, "readout_r2": None, "notes": ["a"], "options": {"top": 3}})
        table = [[kind, expert, 0.1 * expert, None] for kind in ("gate", "readout") for expert in experts]
        write_csv(tuning.parent / "tuning.csv", ["target", "expert", "r2_mean", "dimension_1"], table, digits=6)
        write_json(run.probe_result("tiny", "coupling"), {"mean_pearson": 0.5})
        write_csv(run.probe("tiny", "coupling") / "coupling.csv", ["expert", "pearson"], [[e, e / 10] for e in experts])
        write_json(run.probe_result("tiny", "similarity"), {"mean": 0.5})
        matrix = [[str(e), *(1.0 for _ in experts)] for e in experts]
        write_csv(run.probe("tiny", "similarity") / "similarity.csv", ["expert", *map(str, experts)], matrix)
        write_json(run.probe_result("tiny", "separability"), {"mean": 0.75})
        pairs = [[e, "a", other, 0.5] for e in experts for other in ("b", "c")]
        names = ["expert", "class_a", "class_b", "accuracy"]
        write_csv(run.probe("tiny", "separability") / "separability.csv", names, pairs)
    return launched


def test_a_row_a_run_with_its_values_last_metrics_and_probe_numbers(sweep):
    runs = load("my-sweep").runs
    assert [(row["run"], row["model.experts"], row["seed"]) for row in runs] == [
        (cell.run_id, cell.values["model.experts"], cell.values["seed"]) for cell in sweep.cells
    ]
    assert [row["state"] for row in runs] == ["finished", "finished", "waiting", "waiting"]
    first = runs[0]
    assert first["val/loss"] == first["best/val/loss"] == pytest.approx(1 / 3)
    assert (first["untrained/val/loss"], first["untrained/balance/cv2"]) == (1.0, 0.5)
    assert first["probe/tiny/tuning/gate_r2"] == 0.25
    assert not {"balance/cv2", "probe/tiny/tuning/readout_r2", "probe/tiny/tuning/notes"} & first.keys()
    assert "val/loss" not in runs[2]
    assert runs[3]["val/loss"] == 3.5  # begun: its last epoch so far


def test_a_row_an_epoch(sweep):
    history = load("my-sweep").history
    assert [row["epoch"] for row in history] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert history[4] == {
        "run": sweep.cells[1].run_id, "model.experts": 4, "seed": 1, "data.name": "tiny",
        "epoch": 1.0, "step": 3.0, "val/loss": 1.5, "balance/cv2": None,
    }  # fmt: skip


def test_an_epoch_knows_the_end_once_its_run_ended(sweep):
    run = sweep.store.run(sweep.cells[0].run_id)
    write_csv(run.routing_files.saturation, ["epoch", "before", "end"], [[0, None, 0.25], [1, None, None]])
    history = load("my-sweep").history
    assert [row.get("routing/saturation_end") for row in history[:3]] == [0.25, None, None]


def test_a_row_an_expert_and_set_of_images(sweep):
    experts = load("my-sweep").experts
    assert [(row["seed"], row["images"], row["expert"]) for row in experts] == [
        (seed, "tiny", expert) for seed in range(2) for expert in range(4)
    ]
    row = experts[3]
    assert row["tuning/gate/r2_mean"] == row["tuning/readout/r2_mean"] == pytest.approx(0.3)
    assert (row["coupling/pearson"], row["tuning/gate/dimension_1"]) == (0.3, None)
    assert not any(key.startswith(("similarity", "separability")) for key in row)


def test_a_row_a_kept_epoch_and_set_of_images(sweep):
    run = sweep.store.run(sweep.cells[1].run_id)
    write_csv(run.probe("tiny", "tuning") / "epochs.csv", ["epoch", "gate_r2"], [[0, 0.0], [5, 0.25]])
    write_csv(run.probe("tiny", "coupling") / "epochs.csv", ["epoch", "mean_pearson"], [[0, None], [5, 0.5]])
    first, second = load("my-sweep").training
    assert first == {
        "run": run.id, "model.experts": 4, "seed": 1, "data.name": "tiny", "images": "tiny", "epoch": 0,
        "coupling/mean_pearson": None, "tuning/gate_r2": 0.0,
    }  # fmt: skip
    assert (second["epoch"], second["tuning/gate_r2"], second["coupling/mean_pearson"]) == (5, 0.25, 0.5)


def test_the_example_of_the_guide_runs(sweep, capsys):
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", GUIDE.read_text(), flags=re.MULTILINE)
    (example,) = [block for block in blocks if "sweeps.results" in block]
    for cell in sweep.cells[2:]:  # as a sweep that is finished
        run = sweep.store.run(cell.run_id)
        write_json(run.summary_file, {"last": {"val/loss": 2.0}})
    exec(re.sub(r"^    ", "", example, flags=re.MULTILINE), {})  # noqa: S102 - the document's own words
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"4 0 {1 / 3}"
    assert len(printed) == 4 + 8 + 8


def test_with_pandas_rows_are_a_frame(monkeypatch):
    """pandas is no dependency; what it is called with is the list and the order of the columns."""
    stand_in = types.ModuleType("pandas")
    stand_in.DataFrame = lambda rows, columns: (rows, columns)
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    rows = Rows([{"run": "a", "x": 1}, {"run": "b", "y": 2}])
    assert rows.frame() == ([{"run": "a", "x": 1}, {"run": "b", "y": 2}], ["run", "x", "y"])


def test_an_unknown_sweep_is_said():
    with pytest.raises(UserError, match='no sweep "nothing"'):
        load("nothing")


def test_claims_of_all_runs_are_rows(sweep):
    from sweeps.views.compare import claim_lines, compare

    assert load("my-sweep").claims == []
    row = {"claim": "two_clusters", "verdict": "holds", "effect": 0.25, "low": 0.1, "high": 0.4, "published": None}
    other = {"claim": "gate_above_readout", "verdict": "not asked", "effect": None, "low": None, "high": None}
    claims = [row | {"more": {"clusters": 2.0}}, other]
    write_json(sweep.folder.probe_result("tiny", "claims"), {"two_clusters": 0.25, "claims": claims})
    write_json(sweep.folder.probe_result("tiny", "claims--halves-2"), {"claims": claims})
    found = load("my-sweep").claims
    assert found == [{"images": "tiny", **row}, {"images": "tiny", **other}]
    assert compare(sweep).as_json()["claims"] == found
    assert claim_lines(found) == ["claim two_clusters on tiny: holds, 0.250 (0.100 to 0.400)"]
