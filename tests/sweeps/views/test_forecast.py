"""What a launch would do: forecasts against numbers worked out by hand, and sweeps as large as they may be."""

import pytest

from sweeps.plan.spec import Cell, load_sweep
from sweeps.runs.files import write_json
from sweeps.runs.store import RunStore
from sweeps.views.forecast import Forecast, epochs_behind, forecast
from sweeps.views.preview import preview
from tests.conftest import tiny_config

SPEC = """
name: little
method: grid
parameters: {model.experts: {values: [2, 4, 8]}}
"""


def measured(seconds, epochs, **changes):
    """A finished run that took this long."""
    run = RunStore().create(tiny_config(train__epochs=epochs, **changes))
    run.set_state(state="finished", attempts=1, seconds=seconds)
    return run


def missing(left, **changes):
    return tiny_config(**changes).model_dump(mode="json"), left


@pytest.fixture
def three():
    """E = 4: 5 and 7 s an epoch; E = 8: 20 s an epoch."""
    measured(50.0, 10, model__experts=4)
    measured(70.0, 10, model__experts=4, seed=1)
    measured(100.0, 5, model__experts=8)


@pytest.mark.usefixtures("three")
def test_epochs_cost_what_they_cost_in_the_runs_most_alike():
    """16 epochs at (5 + 7) / 2 s and 5 at 20 s: 96 + 100 = 196 s, 98 s for each of two agents."""
    cells = [
        missing(10, model__experts=4, seed=2),
        missing(6, model__experts=4, seed=3),
        missing(5, model__experts=8, seed=1),
    ]
    outlook = forecast(RunStore(), cells, agents=2)
    assert (outlook.runs, outlook.epochs, outlook.agents) == (3, 21, 2)
    assert outlook.seconds_per_epoch == pytest.approx(196 / 21)
    assert outlook.hours == pytest.approx(98 / 3600)
    assert outlook.sentence() == (
        "21 epochs to train, 9.3 s each as measured in 3 finished runs: about 2 min with 2 agents"
    )


@pytest.mark.usefixtures("three")
def test_settings_never_measured_take_the_mean_of_those_equally_alike():
    """E = 16 shares as much with E = 4 as with E = 8: (5 + 7 + 20) / 3 s. k = 1 beside E = 4 is nearer to E = 4."""
    outlook = forecast(RunStore(), [missing(3, model__experts=16)], agents=1)
    assert outlook.seconds_per_epoch == pytest.approx(32 / 3)
    assert outlook.hours == pytest.approx(32 / 3600)
    outlook = forecast(RunStore(), [missing(3, model__experts=4, model__top_k=1)], agents=1)
    assert (outlook.seconds_per_epoch, outlook.runs) == (pytest.approx(6.0), 2)


@pytest.mark.usefixtures("three")
def test_more_agents_than_cells_do_not_help():
    outlook = forecast(RunStore(), [missing(10, model__experts=8)], agents=8)
    assert outlook.hours == pytest.approx(200 / 3600)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    "change", [{"data__image_size": 32}, {"model__width": 0.125}, {"data__name": "other"}], ids=str
)
def test_runs_of_other_images_or_widths_tell_nothing(change):
    outlook = forecast(RunStore(), [missing(2, model__experts=4), missing(3, **change)], agents=1)
    assert outlook == Forecast(None, 0, 5, None, 1)
    assert outlook.sentence() == "5 epochs to train; no finished run on this machine tells how long one takes"


def test_unfinished_runs_are_no_measure():
    run = RunStore().create(tiny_config())
    run.set_state(state="failed", attempts=3, seconds=10.0)
    assert forecast(RunStore(), [missing(1)], agents=1).hours is None


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("cells", [[], [missing(0)]], ids=["none", "one at its very end"])
def test_nothing_missing_is_said(cells):
    outlook = forecast(RunStore(), cells, agents=2)
    assert outlook == Forecast(None, 0, 0, None, 2)
    assert outlook.sentence() == "nothing is missing"


@pytest.mark.parametrize(
    ("hours", "words"), [(1 / 60, "1 min"), (0.51, "31 min"), (1.0, "1.0 h"), (47.9, "47.9 h"), (48.0, "2.0 days")]
)
def test_durations_are_given_in_fitting_units(hours, words):
    sentence = Forecast(2.0, 1, 1_000, hours, 1).sentence()
    assert sentence == f"1,000 epochs to train, 2.0 s each as measured in 1 finished run: about {words} with 1 agent"


def test_whole_epochs_with_a_checkpoint_need_not_be_repeated():
    run = RunStore().create(tiny_config())
    write_json(run.progress_file, {"epoch": 3.67, "epochs": 5})
    assert epochs_behind(run) == 0  # no checkpoint to go on from
    run.checkpoints.mkdir()
    (run.checkpoints / "last.ckpt").touch()
    assert epochs_behind(run) == 3


def test_a_preview_says_what_each_cell_needs(tmp_path):
    done = measured(10.0, 5, seed=0)
    begun = RunStore().create(tiny_config(train__epochs=5, seed=1))
    begun.checkpoints.mkdir()
    (begun.checkpoints / "last.ckpt").touch()
    write_json(begun.progress_file, {"epoch": 2.33, "epochs": 5})
    configs = [tiny_config(train__epochs=5, seed=seed) for seed in range(3)]
    file = tmp_path / "little.yaml"
    file.write_text(SPEC)
    cells = [Cell(config, {"seed": config.seed}, config.identity()) for config in configs]
    rows = preview(load_sweep(str(file)), cells)
    assert [(row["kind"], row["epochs_left"]) for row in rows] == [("finished", 0), ("resumable", 3), ("new", 5)]
    assert [row["run_id"] for row in rows[:2]] == [done.id, begun.id]
    assert not (RunStore().root / "sweeps").exists()
    outlook = forecast(RunStore(), [(row["config"], row["epochs_left"]) for row in rows[1:]], agents=1)
    assert outlook.hours == pytest.approx(8 * 2 / 3600)
