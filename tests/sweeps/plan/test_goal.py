import math
from random import Random

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from sweeps.plan.goal import Hyperband
from sweeps.plan.search import Search
from sweeps.plan.spec import load_sweep


@pytest.fixture
def search_of(tmp_path):
    """A grid with this schedule of early termination."""

    def make(schedule, goal="minimize"):
        lines = [
            "method: grid",
            f"metric: {{name: val/loss, goal: {goal}}}",
            f"early_terminate: {{type: hyperband, {schedule}}}",
            "parameters: {model.experts: {values: [2, 4]}}",
        ]
        (tmp_path / "s.yaml").write_text("\n".join(lines))
        return Search(load_sweep(str(tmp_path / "s.yaml")), InMemoryStorage(), "study")

    return make


def trial(search, number):
    return search.study.get_trials()[number]


SCHEDULES = {
    "min_iter": ({"min_iter": 3}, [3, 9, 27]),
    "eta": ({"min_iter": 2, "eta": 1.5}, [2, 3, 4, 6, 10, 15, 22, 34]),
    "slow": ({"min_iter": 30, "eta": 1.01}, [30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40]),
    "max_iter": ({"max_iter": 27, "s": 2}, [3, 9]),
    "more than there is": ({"max_iter": 20, "s": 9, "eta": 2}, [1, 2, 5, 10]),
    "whole numbers with a point": ({"max_iter": 27.0, "s": 2.0}, [3, 9]),
    "late": ({"min_iter": 41}, []),
}


@pytest.mark.parametrize(("entry", "expected"), SCHEDULES.values(), ids=SCHEDULES)
def test_brackets_are_those_of_the_documentation(entry, expected):
    hyperband = Hyperband.of({"type": "hyperband"} | entry)
    assert hyperband.brackets(40) == expected
    assert all((epoch in hyperband.brackets(epoch)) == (epoch in expected) for epoch in range(1, 41))


def slow_stops(band, histories, own, eta, strict):
    """W&B's threshold at a bracket, with infinitely bad values for those that are no numbers."""
    there = sorted(history[band - 1] for history in histories if len(history) >= band)
    threshold = there[int(len(there) / eta)]
    mine = histories[own][band - 1] if strict else min(histories[own][:band])
    return mine > threshold


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("schedule", "bands"), [("min_iter: 2, eta: 2", (2, 4)), ("max_iter: 6, s: 1", (2,)), ("min_iter: 3", (3,))]
)
def test_runs_are_stopped_as_wandb_would(search_of, goal, strict, schedule, bands):
    search = search_of(f"{schedule}, strict: {str(strict).lower()}", goal)
    eta = search.stopping.eta
    random, sign = Random(1), 1 if goal == "minimize" else -1
    numbers = [search.adopt({"model.experts": 2}) for _ in range(14)]
    histories = [[] for _ in numbers]
    stopped = set()
    while running := [run for run in numbers if run not in stopped and len(histories[run]) < 6]:
        run = random.choice(running)
        value = random.choice([math.nan, None, *range(12), 0.5])
        histories[run].append(math.inf if value is None or math.isnan(value) else sign * value)
        epoch = len(histories[run])
        expected = epoch in bands and slow_stops(epoch, histories, run, eta, strict)
        assert search.report(run, epoch, value) == expected
        if expected:
            stopped.add(run)
            search.finish(run, value, stopped=True)
    assert 3 <= len(stopped) <= 12
    states = [one.state for one in search.study.get_trials()]
    assert [state is TrialState.PRUNED for state in states] == [run in stopped for run in numbers]


@pytest.fixture
def halving(search_of):
    """A search that looks after epochs 2 and 4 and lets the better half on."""
    return search_of("min_iter: 2, eta: 2")


def test_a_resumed_run_hears_what_it_was_told_before(halving):
    good, bad = (halving.adopt({"model.experts": experts}) for experts in (2, 4))
    assert not any(halving.report(bad, epoch, 5.0) for epoch in (1, 2))
    halving.report(good, 1, 1.0)
    assert not halving.report(good, 2, 1.0)
    assert not halving.report(bad, 2, 5.0)  # worse than the half now, but it was let on
    third = halving.adopt({"model.experts": 2})
    for _ in range(2):
        assert not halving.report(third, 1, 9.0)
        assert halving.report(third, 2, 9.0)
    assert halving.report(third, 3, 0.0)  # it was to stop before
    assert halving.report(third, 2, 0.0)
    halving.finish(third, 9.0, stopped=True)
    assert halving.report(third, 2, 0.0)
    assert trial(halving, third).intermediate_values == {1: 9.0, 2: 9.0}


def test_a_decision_that_was_not_written_down_is_made_when_the_run_reports_again(halving):
    good, better, bad = (halving.adopt({"model.experts": 2}) for _ in range(3))
    halving.report(good, 2, 1.0)
    halving.report(better, 2, 0.5)
    trial_id = halving.study.get_trials()[bad]._trial_id
    halving.storage.set_trial_intermediate_value(trial_id, 2, 3.0)  # and there its process was killed
    assert halving.report(bad, 2, 3.0)


def test_failed_attempts_do_not_count_and_nor_does_the_untrained_model(halving):
    failed, lost, run, second, third = (halving.adopt({"model.experts": 2}) for _ in range(5))
    for number in (failed, lost):
        halving.report(number, 2, 0.0)
        halving.fail(number)
    assert not halving.report(run, 0, math.nan)
    assert not halving.report(run, 2, 3.0)
    assert trial(halving, run).intermediate_values == {2: 3.0}
    assert not halving.report(second, 2, 4.0)
    assert halving.report(third, 2, math.nan)
    assert not halving.report(failed, 4, 1.0)  # late news of a closed trial
    assert trial(halving, failed).state is TrialState.FAIL
