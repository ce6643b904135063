"""The double's early termination: worked out by hand, and against moe's own reading of W&B's rule."""

import random

import pytest

from sweeps.plan.goal import Hyperband
from tests.wandb_server.hyperband import brackets, to_stop
from tests.wandb_server.state import Run


def test_brackets_are_those_of_the_manual():
    assert brackets({"min_iter": 3})[:4] == [3, 9, 27, 81]
    assert brackets({"max_iter": 27, "s": 2}) == [3, 9]
    assert brackets({"max_iter": 5, "s": 3, "eta": 2}) == [1, 2]
    for rule in (
        {"min_iter": 3},
        {"min_iter": 1, "eta": 1.5},
        {"max_iter": 27, "s": 2},
        {"max_iter": 5, "s": 3, "eta": 2},
    ):
        assert Hyperband.of(rule).brackets(100) == sorted({bound for bound in brackets(rule) if bound <= 100})


def runs(*histories, state="running", key="val/loss"):
    made = []
    for number, values in enumerate(histories):
        run = Run("me", "moe", f"run{number}", "", number, reported=state)
        run.streams["wandb-history.jsonl"] = [
            f'{{"_step": {step}, "{key}": {value}}}' for step, value in enumerate(values)
        ]
        made.append(run)
    return made


def config(goal="minimize", **rule):
    return {"metric": {"name": "val/loss", "goal": goal}, "early_terminate": {"type": "hyperband", **rule}}


def names(found):
    return [run.name for run in found]


def test_all_but_the_best_at_a_bracket_are_stopped():
    five = runs([10, 9], [10, 10], [10, 8, 8], [10, 7, 7], [10, 6, 6])
    five[0].reported = five[4].reported = "finished"
    # at the second value 6, 7, 8, 9 and 10: with eta 2 the bar is 8
    assert names(to_stop(config(max_iter=5, eta=2, s=2), five)) == ["run1"]
    # with eta 3 it is 7; what is finished counts, and is not stopped
    assert names(to_stop(config(max_iter=6, s=1), five)) == ["run1", "run2"]
    assert names(to_stop(config("maximize", max_iter=6, s=1), five)) == ["run2", "run3"]
    assert names(to_stop(config(max_iter=6, s=1), runs([10, 7], [6, 10], [1]))) == ["run1"]
    assert names(to_stop(config(max_iter=6, s=1, strict=False), runs([10, 7], [6, 10], [1]))) == []


@pytest.mark.parametrize("strict", [True, False])
def test_what_it_stops_moe_calls_stopped_early(strict):
    """The other way round holds at a run's first bracket: later on moe also asks about brackets that were passed."""
    draw = random.Random(0)
    rule = {"min_iter": 2, "eta": 2, "strict": strict}
    stopped = 0
    for _ in range(200):
        histories = [[draw.random() for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, 6))]
        ended = names(to_stop(config(**rule), runs(*histories)))
        stopped += len(ended)
        for number, own in enumerate(histories):
            others = histories[:number] + histories[number + 1 :]
            early = Hyperband.of(rule).ends(own, others)
            assert early or f"run{number}" not in ended
            if len(own) < 4 and (strict or len(own) == 2):
                assert early == (f"run{number}" in ended)
    assert stopped > 20
