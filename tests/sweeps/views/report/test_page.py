"""The page of a sweep: what is in it, for whole sweeps and for those with gaps."""

import json
import re
import time
from contextlib import closing

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from sweeps.queue.opening import open_queue
from sweeps.runs.endings import Ending
from sweeps.runs.files import write_json
from sweeps.views.compare import Gap, compare
from sweeps.views.report.experts import plane
from sweeps.views.report.headlines import beside_baselines
from sweeps.views.report.importance import chance_shares, variance_shares
from sweeps.views.report.page import MOST, figures, to_html
from sweeps.views.report.plates import Plate, Rows
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
    assert data["maps"][0]["said"] == (
        "2 clusters, mean silhouette 0.71, more clearly parted than experts without clusters would be (0.32, "
        "p = 0.001). Clusters follow the runs at E = 4. Within single runs: mean silhouette 0.30, no more clearly "
        "parted than experts without clusters would be (0.25, p = 0.4)."
    )
    assert "What is missing" not in html


def test_a_card_holds_tuning_classes_and_pictures(tmp_path):
    _, data = page(made_sweep(tmp_path))
    card = data["experts"][0]
    assert card["tuning"]["gate"] == {"r2": 0.4, "sd": None, "p": 0.01, "dimensions": [[f"furry {HOSTILE}", 0.5]]}
    assert card["animacy"] == {"gate": [0.5, 0.02], "readout": [-0.3, None]}
    assert card["coupling"] == [0.2, 0.1, 0.3]
    assert card["classes"] == [[name, 0.3] for name in NAMES]
    assert card["exciting"]["readout"] == ["tiny/tiny-001", "tiny/tiny-002", "tiny/tiny-003"]
    assert set(data["thumbnails"]) == {"tiny/tiny-001", "tiny/tiny-002", "tiny/tiny-003"}  # each once
    assert all(picture.startswith("data:image/webp;base64,") for picture in data["thumbnails"].values())


def test_what_was_found_is_said_with_numbers(tmp_path):
    html, _ = page(made_sweep(tmp_path))
    assert "two views of an image go to the same experts in 0.60 ± 0.00 of cases (0.10 ± 0.00 by chance)" in html
    assert "rated dimensions explain 0.40 ± 0.00 of the variance of gate logits" in html
    assert "more than by chance" in html


@pytest.mark.slow
def test_claims_come_first_with_their_verdicts_and_lead_to_their_figures(tmp_path):
    sweep = made_sweep(tmp_path)
    plate = Plate("figure_4", "Figure 4", "x", "", [], [])
    html = without_scripts(to_html(compare(sweep), [plate]))
    assert '<span class="verdict holds">holds</span> a line is loose &lt;img' in html
    assert "r2 of a line: 0.2 [0.1, 0.3] over seeds; claimed: below 0.5; <a" in html
    assert '<a href="#figure_4">Figure 4</a>' in html
    assert (
        '<span class="verdict open">not asked</span> x <span class="caption">(tiny; no ratings; <code>moe probe &lt;img'
        in html
    )
    assert "&lt;b&gt;</code> asks)" in html
    assert HOSTILE not in html
    assert html.index("The paper's claims") < html.index("experts=2")
    sweep.folder.probe_result("tiny", "claims").unlink()
    asked = "<code>moe probe --sweep made --probe claims</code>"
    assert asked in without_scripts(to_html(compare(sweep)))
    assert asked not in without_scripts(html)


def test_nothing_of_a_run_becomes_markup(tmp_path):
    html, data = page(made_sweep(tmp_path))
    assert HOSTILE in data["routing"][data["runs"][0]["id"]]["classes"]
    assert "<img src=x" not in html
    assert html.count("</script>") == 3  # data, plotly, ours


def test_gaps_are_named_with_their_command(tmp_path):
    html, _ = page(made_sweep(tmp_path, finished=3, probed=False))
    shown = without_scripts(html)
    assert "1 run is not finished: <code>moe sweep resume made</code>" in shown
    assert "nothing is known of what experts encode: <code>moe probe --sweep made</code>" in shown
    assert "1 of 2 (incomplete)" in shown


def test_a_failed_cell_is_named_with_its_reason(tmp_path):
    sweep = made_sweep(tmp_path, finished=3, probed=False)
    with closing(open_queue(sweep)) as queue:
        queue.update(sweep.store.finished_ids(), failed=False)
        claim = queue.claim()
        assert claim is not None
        queue.fail(claim, Ending.FAILED, f"boom {HOSTILE}", retry=False)
    html, _ = page(sweep)
    shown = without_scripts(html)
    failed = f"1 run failed, {sweep.cells[3].run_id} by: boom &lt;img"
    assert failed in shown
    assert "<code>moe sweep retry made --failed</code>" in shown
    assert "not finished" not in shown
    assert compare(sweep).said[0].endswith(f"by: boom {HOSTILE}: `moe sweep retry made --failed`")


@pytest.mark.slow
def test_a_probe_that_some_runs_lack_is_named(tmp_path):
    sweep = made_sweep(tmp_path)
    sweep.store.run(sweep.cells[0].run_id).probe_result("tiny", "tuning").unlink()
    html, _ = page(sweep)
    assert "tuning on tiny is missing for 1 of 4 runs" in without_scripts(html)
    write_json(sweep.store.run(sweep.cells[0].run_id).probe_result("tiny--other", "exciting"), {})
    html, _ = page(sweep)
    assert "<code>moe probe --sweep made --images tiny --images other --probe exciting</code>" in without_scripts(html)


def test_numbers_stand_beside_chance_and_baselines(tmp_path):
    found = beside_baselines(compare(made_sweep(tmp_path)))
    assert found["header"] == ["cell", "images", "number", "run", "by chance", "untrained", "pixels"]
    assert found["rows"][:2] == [
        ["experts=2", "tiny", "tuning: gate_r2", "0.400 ± 0.000", "-0.020 ± 0.000", "0.100 ± 0.000", ""],
        ["experts=2", "tiny", "tuning: readout_r2", "0.250 ± 0.000", "", "", "0.200 ± 0.000"],
    ]
    assert len(found["rows"]) == 4


def test_numbers_of_probed_checkpoints_are_among_the_metrics(tmp_path):
    _, data = page(made_sweep(tmp_path))
    metrics = data["history"][data["runs"][0]["id"]]["metrics"]
    assert metrics["probe/tiny/tuning/gate_r2"] == [0.0, None, None, 0.3]
    assert data["chance"]["probe/tiny/tuning/gate_r2"] == "probe/tiny/tuning/gate_r2_null"


@pytest.mark.slow
def test_the_variance_goes_to_the_parameter_that_it_comes_from():
    rng = np.random.default_rng(0)
    points = [{"a": a, "b": b, "seed": s} for a in (1, 2, 4) for b in ("x", "y") for s in range(5)]
    strong = [3.0 * p["a"] + rng.normal(0, 0.1) for p in points]
    shares = variance_shares(points, strong, ["a", "b", "seed"])
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["a"] > 0.95
    mean = np.mean([
        [variance_shares(points, rng.normal(size=len(points)).tolist(), ["a", "b", "seed"])[name] for name in "ab"]
        for _ in range(4)
    ], axis=0)  # fmt: skip
    assert mean == pytest.approx(chance_shares(points, ["a", "b", "seed"])[:2], abs=0.15)  # 2/7, 1/7


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
def test_importance_needs_runs_and_says_how_many(tmp_path, seeds):
    sweep = made_sweep(tmp_path, seeds=seeds, further="  loss.temperature: {values: [0.2, 0.5]}\n")
    html, data = page(sweep)
    found = data["importance"]
    assert (found["runs"], bool(found["shares"])) == (4 * seeds, seeds == 3)
    assert ("can be told from 12 finished runs on; there are 4" in without_scripts(html)) == (seeds == 1)
    assert all(sum(row) == pytest.approx(1, abs=0.01) for row in found["shares"])


def test_twenty_seven_categories_and_a_plate_stand_in_the_page(tmp_path):
    rows = [[f"category {number} <b>", ".5"] for number in range(27)]
    plate = Plate(
        "figure_x", "Figure X", HOSTILE, "", [Rows("part", ["a", "b"], [("Part <i>", rows)])], [Gap("x", "moe y")]
    )
    html = to_html(compare(made_sweep(tmp_path)), [plate])
    assert "category 26 &lt;b&gt;" in html
    assert "<img src=x" not in html
    assert "X: <code>moe y</code>" in html


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
    started = time.process_time()
    html, data = page(sweep)
    assert len(data["runs"]) == 200
    assert len(html) < 12_000_000
    assert time.process_time() - started < 60


def test_figures_take_their_room_and_no_more(tmp_path):
    comparison = compare(made_sweep(tmp_path))
    every = list(figures(comparison))
    assert [len(part.copies) for part in every] == [1, 1, 1, 1]
    small = list(figures(comparison, room=len(every[0].copies[0].source) + 1))
    assert [len(part.copies) for part in small] == [1, 0, 0, 0]
    assert small[1].folder.is_dir()


def test_large_plates_leave_less_room_for_other_figures(tmp_path):
    comparison = compare(made_sweep(tmp_path, experts=(2,), seeds=1))
    large = Plate("figure_x", "Figure X", "", "data:," + "x" * (MOST - 4_000_000))
    assert [len(part.copies) for part in figures(comparison)] == [1]
    assert "1 figures in <code>" in without_scripts(to_html(comparison, [large]))


def test_the_plane_keeps_distances_of_points_in_a_plane():
    xy = np.random.default_rng(0).normal(size=(9, 2))
    distance = squareform(pdist(xy))
    assert squareform(pdist(plane(1 - distance))) == pytest.approx(distance)


@pytest.mark.parametrize("count", [1, 2])
def test_few_experts_have_a_place_too(count):
    assert plane(np.eye(count)).shape == (count, 2)
