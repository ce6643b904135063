"""The paper's figures of sweeps with gaps: what is missing is named with its command, and nothing fails."""

import numpy as np
import pytest

from probes.paper.beside import beside_the_paper, difference
from probes.paper.experts import _line
from probes.paper.making import paper_pieces, plates
from probes.paper.sources import Sources
from probes.suite.published import Published, published_agreement, published_r2, published_tuning
from probes.suite.similarity_probe import spread_over_runs
from tests.sweeps.views.made import made_sweep


@pytest.mark.slow
@pytest.mark.parametrize("made", [
    {"experts": (1,), "seeds": 1}, {"experts": (2,), "seeds": 1}, {"probed": False}, {}, {"finished": 3},
], ids=str)  # fmt: skip
def test_sweeps_with_gaps_have_what_there_is(tmp_path, made):
    pieces = paper_pieces(made_sweep(tmp_path, **made))
    assert pieces
    assert all(piece.figure is not None or piece.latex or piece.gaps for piece in pieces if piece.name != "figure_s4")
    assert all(gap.command.startswith("moe ") for piece in pieces for gap in piece.gaps)
    assert len(plates(pieces)) == len(pieces)


def test_before_a_run_is_finished_there_is_nothing_to_draw(tmp_path, moe):
    assert paper_pieces(made_sweep(tmp_path, finished=0)) == []
    code, _, said = moe("report", "made", "--figures", tmp_path / "figures")
    assert (code, "moe sweep resume made" in said) == (2, True)


def test_an_unprobed_sweep_says_what_to_run(tmp_path):
    pieces = {piece.name: piece for piece in paper_pieces(made_sweep(tmp_path, probed=False))}
    assert [gap.command for gap in pieces["figure_5"].gaps] == ["moe probe --sweep made --probe separability"]
    assert all(piece.figure is None for piece in pieces.values())


def test_images_that_are_elsewhere_are_named(tmp_path, monkeypatch):
    sweep = made_sweep(tmp_path)
    monkeypatch.setenv("MOE_DATA", str(tmp_path / "nowhere"))
    pieces = {piece.name: piece for piece in paper_pieces(sweep)}
    text = "the images tiny are not on this machine"
    assert (text, "moe data import tiny PATH") in [tuple(gap) for gap in pieces["figure_3"].gaps]
    assert pieces["figure_2"].figure is not None  # the heatmaps need no pictures


@pytest.mark.parametrize(
    ("x", "y"), [([0.0, 0.5, 1.0], [0.2, 0.3, 0.7]), ([0.0, 1.0, 0.25, 0.8], [1.0, 0.0, 0.9, 0.5])]
)
def test_the_line_is_that_of_least_squares(x, y):
    slope, start = np.polyfit(x, y, 1)
    assert _line(np.array(x), np.array(y)) == pytest.approx((start, slope))
    assert _line(np.full(3, np.nan), np.array([0.0, 0.5, 1.0])) is None


def test_the_difference_is_in_standard_deviations_of_a_run():
    assert difference(0.5, 0.1, Published("", 4, 0.7, None)) == pytest.approx(-2)
    assert difference(0.5, 0.3, Published("", 4, 0.7, 0.1)) == pytest.approx(-0.2 / (0.05**0.5))
    assert difference(0.5, None, Published("", 4, 0.7, None)) is None


def test_published_numbers_are_those_of_the_tables():
    gate = {one.experts: one.value for one in published_r2("gate")}
    assert gate[4] == pytest.approx((0.475 + 0.531 + 0.538 + 0.416) / 4)
    assert len([row for row in published_tuning() if row.experts == 16]) == 32
    assert [(one.experts, one.value) for one in published_agreement()] == [(4, 0.7927), (8, 0.5832), (16, 0.453)]


def test_models_of_another_k_are_not_set_beside_the_paper(tmp_path):
    assert beside_the_paper(Sources(made_sweep(tmp_path))) is None  # k = 1


def test_many_runs_are_shown_by_few_experts():
    assert spread_over_runs(["a", "a", "b", "b", "c"], [0, 1, 2, 3, 4]) == [0, 2, 4, 1, 3]
