"""Comparison over runs whose numbers are known."""

import csv
import io
import json
import statistics

import pytest

from sweeps.console import print_table
from sweeps.launching import plan, register_planned
from sweeps.runs.files import write_json
from sweeps.views import compare

SPEC = """name: known
method: grid
parameters:
  model.experts: {values: [4, 8]}
  gate.noisy: {values: [true, false]}
  seed: {values: [0, 1, 2]}
  data.name: {value: tiny}
"""
LOSS = {(4, True): [1.0, 2.0, 3.0], (4, False): [5.0, 5.0, 5.0], (8, True): [0.5, 1.5, 4.0], (8, False): [7.0]}


@pytest.fixture
def sweep(tmp_path):
    """Twelve cells; two of the last group are not finished."""
    path = tmp_path / "known.yaml"
    path.write_text(SPEC)
    launched = register_planned(*plan(str(path), {}))
    for cell in launched.cells:
        losses = LOSS[cell.values["model.experts"], cell.values["gate.noisy"]]
        seed = cell.values["seed"]
        run = launched.store.run(cell.run_id)
        if seed < len(losses):
            row = {"epoch": 2.0, "val/loss": losses[seed], "balance/cv2": 0.25}
            write_json(run.summary_file, {"untrained": {"epoch": 0.0, "val/loss": 6.0}, "last": row, "best": row})
            run.history_file.write_text("".join(json.dumps(row | {"epoch": e}) + "\n" for e in (0.0, 1.0, 2.0)))
            write_json(run.probe_result("tiny", "tuning"), {"gate_r2": 0.1 * seed, "readout_r2": None})
            write_json(run.provenance_file, {"git": {"sha": "a" * 40, "dirty": False}})
            run.set_state(state="finished")
    return launched


def test_groups_are_what_was_swept_but_for_the_seed(sweep):
    comparison = compare.compare(sweep)
    assert comparison.parameters == ["model.experts", "gate.noisy"]
    assert [tuple(group.values.values()) for group in comparison.groups] == list(LOSS)
    for group, losses in zip(comparison.groups, LOSS.values(), strict=True):
        cell = group.cells["val loss"]
        assert (cell.mean, cell.n) == (statistics.mean(losses), len(losses))
        assert cell.sd == (pytest.approx(statistics.stdev(losses)) if len(losses) > 1 else None)
        assert group.cells["untrained val loss"].mean == 6.0


def test_probe_numbers_are_columns_and_undefined_ones_are_left_out(sweep):
    comparison = compare.compare(sweep)
    assert comparison.groups[0].cells["gate r2 [tiny]"].mean == pytest.approx(0.1)
    assert "readout r2 [tiny]" not in comparison.columns


def test_the_terminal_shows_which_images_a_probe_used(sweep, capsys):
    print_table(compare.terminal_table(compare.compare(sweep)))
    assert "gate r2 [tiny]" in capsys.readouterr().out


def test_an_incomplete_group_says_so(sweep):
    comparison = compare.compare(sweep)
    assert [group.count for group in comparison.groups] == ["3", "3", "3", "1 of 3 (incomplete)"]
    assert comparison.said == ["2 runs are not finished: `moe sweep resume known`"]


def test_runs_of_different_code_are_named(sweep):
    write_json(sweep.store.run(sweep.cells[0].run_id).provenance_file, {"git": {"sha": "b" * 40, "dirty": True}})
    assert compare.compare(sweep).notes[-1].endswith("2 versions of the code: aaaaaaaa, bbbbbbbb+changes")


def test_a_folder_with_the_results_of_another_run_is_named(sweep):
    run = sweep.store.run(sweep.cells[0].run_id)
    write_json(run.provenance_file, run.provenance | {"run_id": "0123456789ab"})
    assert compare.compare(sweep).notes[0] == f"{run.path} holds the results of run 0123456789ab: rename it"


def test_runs_that_were_trained_on_other_images_of_one_name_are_named(sweep):
    runs = [run for run in (sweep.store.run(cell.run_id) for cell in sweep.cells) if run.finished]
    for run in runs:
        write_json(run.provenance_file, run.provenance | {"data": {"train": "first", "validation": "first"}})
    assert compare.compare(sweep).notes == []
    write_json(runs[3].provenance_file, runs[3].provenance | {"data": {"train": "second", "validation": "first"}})
    assert compare.compare(sweep).notes[-1].startswith("of images of one name there were 2 versions, on which")


def test_csv_holds_the_numbers(sweep):
    rows = list(csv.DictReader(io.StringIO(compare.to_csv(compare.compare(sweep)))))
    assert float(rows[2]["val loss mean"]) == 2.0
    assert float(rows[2]["val loss sd"]) == pytest.approx(statistics.stdev([0.5, 1.5, 4.0]))
    assert (rows[3]["runs"], rows[3]["planned"], rows[3]["val loss sd"]) == ("1", "3", "")


def test_latex_is_a_table_with_escaped_names(sweep):
    text = compare.to_latex(compare.compare(sweep))
    assert text.startswith("\\begin{tabular}{lrrrr}")
    assert "val loss & 2.000 $\\pm$ 1.000 & 5.000 $\\pm$ 0.000 &" in text
    assert text.count("\\\\") == len(compare.header(compare.compare(sweep)))


def test_json_holds_everything(sweep):
    document = json.loads(json.dumps(compare.compare(sweep).as_json(), allow_nan=False))
    assert document["groups"][0]["metrics"]["val loss"] == {"mean": 2.0, "sd": 1.0, "n": 3}
