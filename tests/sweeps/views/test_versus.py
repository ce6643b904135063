"""Several sweeps side by side."""

import json
import math

import numpy as np
import pytest

from sweeps.console import print_table
from sweeps.launching import plan, register_planned
from sweeps.runs.files import write_json
from sweeps.views import compare, versus
from sweeps.views.compare import Cell

SPEC = """name: {name}
method: grid
parameters:
  model.experts: {{values: [4, 8]}}
  seed: {{values: [0, 1, 2]}}
  data.name: {{value: tiny}}
  loss.temperature: {{value: {temperature}}}
"""


def made(tmp_path, name, temperature, offset, further=""):
    path = tmp_path / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, temperature=temperature) + further)
    launched = register_planned(*plan(str(path), {}))
    for cell in launched.cells:
        run = launched.store.run(cell.run_id)
        loss = cell.values["model.experts"] + offset + 0.5 * cell.values["seed"]
        row = {"epoch": 1.0, "val/loss": loss}
        write_json(run.config_file, launched.prepare(cell).config.model_dump(mode="json"))
        write_json(run.summary_file, {"last": row, "best": row})
        run.history_file.write_text(json.dumps(row) + "\n")
        run.set_state(state="finished")
    return launched


@pytest.fixture
def launched(tmp_path):
    return [made(tmp_path, *one) for one in (("warm", 0.5, 0.0), ("cold", 0.1, 1.5))]


@pytest.fixture
def both(launched):
    return [compare.compare(sweep) for sweep in launched]


def test_what_differs_between_sweeps_becomes_a_parameter(both):
    merged, _ = versus.side_by_side(both)
    assert merged.parameters == ["sweep", "model.experts", "loss.temperature"]
    assert [tuple(group.values.values()) for group in merged.groups] == [
        ("warm", 4, 0.5), ("warm", 8, 0.5), ("cold", 4, 0.1), ("cold", 8, 0.1),
    ]  # fmt: skip
    assert merged.name == "warm, cold"
    print_table(compare.terminal_table(merged))


def test_what_some_cells_of_a_sweep_alone_have_is_no_setting_of_it(tmp_path):
    """`gate.noisy` is an option of one of the first sweep's gates, and of none of the second's."""
    gates = "  gate.kind: {{values: [{}]}}\n"
    sweeps = [
        made(tmp_path, "gates", 0.5, 0.0, gates.format("noisy_top_k, top_k")),
        made(tmp_path, "plain", 0.5, 0.0, gates.format("top_k")),
    ]
    merged, _ = versus.side_by_side([compare.compare(sweep) for sweep in sweeps])
    assert merged.parameters == ["sweep", "model.experts", "gate.kind"]
    kinds = [group.values["gate.kind"] for group in merged.groups]
    assert kinds == ["noisy_top_k", "top_k", "noisy_top_k", "top_k", "top_k", "top_k"]


def test_differences_are_between_equal_cells_and_in_standard_deviations(both):
    _, effects = versus.side_by_side(both)
    assert [(effect.cell, effect.column) for effect in effects if effect.column == "val loss"] == [
        ("experts=4", "val loss"), ("experts=8", "val loss"),
    ]  # fmt: skip
    effect = effects[0]
    # sample sd of 0, .5, 1 is .5; the correction at 4 degrees of freedom is Gamma(2) / (sqrt(2) Gamma(1.5))
    assert effect.difference == pytest.approx(1.5)
    assert effect.g == pytest.approx(3.0 * 1.0 / (math.sqrt(2) * 0.886226925452758))
    assert effect.n == (3, 3)
    print_table(versus.effects_table(effects, "warm"))


def test_a_sweep_beside_itself_differs_in_nothing(both):
    merged, effects = versus.side_by_side([both[0], both[0]])
    assert merged.parameters == ["sweep", "model.experts"]
    assert all(effect.difference == 0 == effect.g for effect in effects)
    assert "no fixed setting differs between these sweeps" in merged.notes


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(3, 3), (2, 5), (10, 10)])
def test_hedges_g_is_unbiased(counts):
    """Over 20,000 pairs of samples whose means differ by .8 standard deviations."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(shift, 1.0, (20_000, count)) for shift, count in zip((0.0, 0.8), counts, strict=True))
    cells = [[Cell(x.mean(), x.std(ddof=1), len(x)) for x in draws] for draws in (a, b)]
    values = np.array([versus.hedges_g(one, other) for one, other in zip(*cells, strict=True)])
    assert abs(values.mean() - 0.8) < 4 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("cell", [Cell(1.0, None, 1), Cell(1.0, 0.0, 3)])
def test_without_spread_there_is_no_effect_size(cell):
    assert versus.hedges_g(Cell(0.0, 0.0, 3), cell) is None


@pytest.mark.usefixtures("launched")
def test_the_command_line(moe):
    code, printed, err = moe("compare", "warm", "cold", "--sort", "-val/loss", "--filter", "model.experts=8", "--json")
    assert (code, err) == (0, "")
    found = json.loads(printed)
    assert [group["values"]["sweep"] for group in found["groups"]] == ["cold", "warm"]
    assert found["sweep"] == "warm, cold"
    assert {effect["column"] for effect in found["differences"]} == {"val loss"}

    code, printed, _ = moe("compare", "warm", "cold", "--columns", "val loss")
    assert code == 0
    assert "loss.temperature" in printed
    assert "+1.500" in printed

    code, printed, _ = moe(
        "runs", "list", "--where", "model.experts=8 and loss.temperature=0.1 and val/loss<=10", "--json"
    )
    assert code == 0
    assert {row["seed"] for row in json.loads(printed)["runs"]} == {0, 1}

    for words in (["compare", "warm", "--sort", "loss"], ["runs", "list", "--where", "model.expert=8"]):
        code, printed, err = moe(*words)
        assert (code, printed) == (2, "")
        assert "did you mean" in err or "known are" in err
