"""The page of a sweep: what is in it, for whole sweeps and for those with gaps."""

import json
import re
import time

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from sweeps.views.compare import compare
from sweeps.views.report.experts import plane
from sweeps.views.report.page import figures, to_html
from sweeps.views.report.reading import rounded
from tests.sweeps.views.made import EPOCHS, HOSTILE, NAMES, made_sweep


def page(sweep):
    """The page, and the numbers inside it."""
    html = to_html(compare(sweep))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return html, json.loads(data)


def without_scripts(html):
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def test_a_whole_sweep_is_in_its_page(tmp_path):
    html, data = page(made_sweep(tmp_path))
    assert [cell["label"] for cell in data["cells"]] == ["experts=2", "experts=4"]
    assert [len(cell["runs"]) for cell in data["cells"]] == [2, 2]
    loss = data["rows"][0][data["columns"].index("val loss")]
    assert (loss["mean"], loss["sd"], loss["n"]) == (2.05, rounded(np.std([2.0, 2.1], ddof=1)), 2)
    history = data["history"][data["cells"][0]["runs"][1]]
    assert history["epochs"] == list(range(EPOCHS + 1))
    assert history["metrics"]["val/loss"] == [5.1, 4.1, 3.1, 2.1]
    assert "balance/load_0" not in history["metrics"]
    routing = data["routing"][data["cells"][1]["runs"][0]]
    assert routing["epochs"] == list(range(EPOCHS + 1))
    assert routing["classes"] == list(NAMES)
    assert np.array(routing["heatmap"]).shape == (EPOCHS + 1, 3, 4)
    assert np.array(routing["coactivation"]).shape == (EPOCHS + 1, 4, 4)
    assert len(data["experts"]) == 2 * 2 + 2 * 4
    assert [len(one["points"]) for one in data["maps"]] == [12]
    assert "What is missing" not in html


def test_a_card_holds_tuning_classes_and_pictures(tmp_path):
    _, data = page(made_sweep(tmp_path))
    card = data["experts"][0]
    assert card["tuning"]["gate"] == {"r2": 0.4, "p": 0.01, "dimensions": [[f"furry {HOSTILE}", 0.5]]}
    assert card["classes"] == [[name, 0.3] for name in NAMES]
    assert card["exciting"]["readout"] == ["tiny/tiny-001", "tiny/tiny-002", "tiny/tiny-003"]
    assert set(data["thumbnails"]) == {"tiny/tiny-001", "tiny/tiny-002", "tiny/tiny-003"}  # each once
    assert all(picture.startswith("data:image/webp;base64,") for picture in data["thumbnails"].values())


def test_what_was_found_is_said_with_numbers(tmp_path):
    html, _ = page(made_sweep(tmp_path))
    assert "two views of an image go to the same experts in 0.60 ± 0.00 of cases (0.10 ± 0.00 by chance)" in html
    assert "rated dimensions explain 0.40 ± 0.00 of the variance of gate logits" in html
    assert "more than by chance" in html


def test_nothing_of_a_run_becomes_markup(tmp_path):
    html, data = page(made_sweep(tmp_path))
    assert HOSTILE in data["routing"][data["runs"][0]["id"]]["classes"]
    assert "<img src=x" not in html
    assert html.count("</script>") == 3  # data, plotly, ours


def test_gaps_are_named_with_their_command(tmp_path):
    html, _ = page(made_sweep(tmp_path, finished=3, probed=False))
    shown = without_scripts(html)
    assert "1 runs are not finished: <code>moe sweep resume made</code>" in shown
    assert "nothing is known of what experts encode: <code>moe probe --sweep made</code>" in shown
    assert "1 of 2 (incomplete)" in shown


def test_a_probe_that_some_runs_lack_is_named(tmp_path):
    sweep = made_sweep(tmp_path)
    sweep.store.run(sweep.cells[0].run_id).probe_result("tiny", "tuning").unlink()
    html, _ = page(sweep)
    assert "tuning on tiny is missing for 1 of 4 runs" in without_scripts(html)


@pytest.mark.parametrize("kind", ["empty", "one run", "one expert", "no images"])
def test_odd_sweeps_have_a_page(tmp_path, monkeypatch, kind):
    made = {
        "empty": {"finished": 0},
        "one run": {"experts": (2,), "seeds": 1},
        "one expert": {"experts": (1,), "seeds": 2},
        "no images": {},
    }[kind]
    sweep = made_sweep(tmp_path, **made)
    if kind == "no images":
        monkeypatch.setenv("MOE_DATA", str(tmp_path / "nowhere"))
    html, data = page(sweep)
    assert html.endswith("</html>")
    assert len(data["runs"]) == {"empty": 0, "one run": 1, "one expert": 2, "no images": 4}[kind]
    assert bool(data["thumbnails"]) == (kind not in ("empty", "no images"))


@pytest.mark.slow
def test_two_hundred_runs_fit(tmp_path):
    sweep = made_sweep(tmp_path, experts=(4, 8), seeds=100)
    started = time.perf_counter()
    html, data = page(sweep)
    assert len(data["runs"]) == 200
    assert len(html) < 12_000_000
    assert time.perf_counter() - started < 60


def test_figures_take_their_room_and_no_more(tmp_path):
    comparison = compare(made_sweep(tmp_path))
    every = list(figures(comparison))
    assert [len(part.copies) for part in every] == [1, 1, 1, 1]
    small = list(figures(comparison, room=len(every[0].copies[0].source) + 1))
    assert [len(part.copies) for part in small] == [1, 0, 0, 0]
    assert small[1].folder.is_dir()


def test_the_plane_keeps_distances_of_points_in_a_plane():
    xy = np.random.default_rng(0).normal(size=(9, 2))
    distance = squareform(pdist(xy))
    assert squareform(pdist(plane(1 - distance))) == pytest.approx(distance)


@pytest.mark.parametrize("count", [1, 2])
def test_few_experts_have_a_place_too(count):
    assert plane(np.eye(count)).shape == (count, 2)
