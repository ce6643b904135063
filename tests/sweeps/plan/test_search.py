import itertools
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from moe.errors import UserError
from sweeps.plan.distributions import DISTRIBUTIONS
from sweeps.plan.search import Search
from sweeps.plan.space import axes
from sweeps.plan.spec import cell, expand, load_sweep, replicates, with_overrides
from sweeps.queue.storage import study_storage

LR = "train.lr: {distribution: log_uniform_values, min: 1.0e-5, max: 0.1}"
TEMPERATURE = "loss.temperature: {min: 0.05, max: 2.0}"
EVERY_DISTRIBUTION = (
    "train.epochs: {value: 7}",
    "model.top_k: {values: [1, 2]}",
    "augment.crop_scale: {values: [[0.08, 1.0], [0.2, 0.9]]}",
    "machine.threads: {values: [null, 1]}",
    "gate.noisy: {values: [true, false]}",
    "model.experts: {min: 2, max: 16}",
    TEMPERATURE,
    "train.batch_size: {distribution: q_uniform, min: 30, max: 130, q: 32}",
    "model.width: {distribution: q_uniform, min: 0.25, max: 1.0, q: 0.25}",
    LR,
    "train.min_lr: {distribution: inv_log_uniform_values, min: 1.0e-7, max: 1.0e-5}",
    "model.embedding: {distribution: q_log_uniform_values, min: 16, max: 500, q: 8}",
    "train.weight_decay: {distribution: log_uniform, min: -12, max: -3}",
    "loss.importance_weight: {distribution: inv_log_uniform, min: 1, max: 4}",
    "loss.projection: {distribution: q_log_uniform, min: 2, max: 5, q: 2}",
    "augment.hue: {distribution: normal, mu: 0.2, sigma: 0.05}",
    "model.gate_channels: {distribution: q_normal, mu: 64, sigma: 8, q: 4}",
    "train.clip_norm: {distribution: log_normal, sigma: 0.5}",
    "machine.checkpoint_minutes: {distribution: q_log_normal, mu: 1, q: 0.5}",
    "augment.jitter: {distribution: beta, a: 2, b: 3}",
    "augment.flip: {distribution: q_beta, a: 2, b: 2, q: 0.25}",
)


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Loads a sweep with these parameters, as `s.yaml` in the current folder."""
    monkeypatch.chdir(tmp_path)

    def load(*parameters, method="bayes", cap=40, metric="{name: val/loss}", stop=None):
        top = ["name: s", f"method: {method}", f"run_cap: {cap}", f"metric: {metric}"]
        top += [f"early_terminate: {stop}"] if stop else []
        Path("s.yaml").write_text("\n".join([*top, "parameters:", *(f"  {line}" for line in parameters)]))
        return load_sweep("s.yaml")

    return load


@pytest.fixture
def storage(tmp_path):
    """Optuna's storage in a file."""
    found = study_storage(f"sqlite:///{tmp_path / 'x.db'}")
    yield found
    found.engine.dispose()


def open_search(sweep, storage=None):
    return Search(sweep, storage or InMemoryStorage(), "study")


def trial(search, number):
    return search.study.get_trials()[number]


# --- suggestions -------------------------------------------------------------------------------------------


def test_every_distribution_is_searched_and_every_suggestion_can_run(sweep_of):
    sweep = sweep_of("seed: {values: [0, 1]}", *EVERY_DISTRIBUTION)
    assert expand(sweep) == []
    kinds = {parameter.distribution for parameter in sweep.parameters.values()}
    assert kinds == DISTRIBUTIONS.keys() - {"categorical_w_probabilities"}
    search = open_search(sweep)
    seen = []
    for _ in range(40):
        suggestion = search.ask()
        assert list(suggestion.values) == [path for path in sweep.parameters if path != "seed"]
        config = cell(sweep, suggestion.values | {"seed": 1}).config
        search.finish(suggestion.number, config.train.lr)
        seen.append(suggestion.values)
    drawn = {path: [values[path] for values in seen] for path in seen[0]}
    assert {tuple(pair) for pair in drawn["augment.crop_scale"]} == {(0.08, 1.0), (0.2, 0.9)}
    assert set(drawn["machine.threads"]) == {None, 1}
    assert set(drawn["gate.noisy"]) == {True, False}
    assert set(drawn["train.batch_size"]) == {32, 64, 96, 128}
    assert set(drawn["model.width"]) <= {0.25, 0.5, 0.75, 1.0}
    assert all(size % 8 == 0 and 16 <= size <= 496 for size in drawn["model.embedding"])
    assert all(math.exp(-4) <= weight <= math.exp(-1) for weight in drawn["loss.importance_weight"])
    assert all(0.045 < hue < 0.355 for hue in drawn["augment.hue"])
    assert set(drawn["augment.flip"]) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert set(drawn["train.epochs"]) == {7}


def test_what_a_suggestion_says_is_what_adopting_it_writes_down(sweep_of):
    sweep = sweep_of(*EVERY_DISTRIBUTION)
    search = open_search(sweep)
    for _ in range(20):
        suggestion = search.ask()
        again = trial(search, search.adopt(suggestion.values | {"seed": 3}))
        assert again.state is TrialState.RUNNING
        assert again.distributions == trial(search, suggestion.number).distributions
        for path, axis in axes(sweep).items():
            value = axis.value(again.params[path])
            assert value == (pytest.approx(suggestion.values[path]) if isinstance(value, float) else value)
            assert type(value) is type(suggestion.values[path])


def test_the_seed_is_never_searched_but_given_where_it_has_one_value(sweep_of):
    search = open_search(sweep_of(LR, "seed: {values: [0, 1, 2]}"))
    assert set(search.ask().values) == {"train.lr"}
    assert set(trial(search, 0).params) == {"train.lr"}
    assert set(trial(search, search.adopt({"train.lr": 0.01, "seed": 2})).params) == {"train.lr"}
    assert open_search(sweep_of(LR, "seed: {value: 5}")).ask().values["seed"] == 5
    assert "seed" not in open_search(sweep_of(LR)).ask().values


def test_overrides_are_given_and_not_searched(sweep_of):
    search = open_search(with_overrides(sweep_of(LR, TEMPERATURE), {"train.lr": 0.5, "train.epochs": 3}))
    assert search.ask().values.items() >= {"train.lr": 0.5, "train.epochs": 3}.items()
    assert set(trial(search, 0).params) == {"loss.temperature"}


@pytest.mark.slow
def test_draws_are_reproducible_and_a_resumed_study_goes_on_with_new_ones(sweep_of, storage):
    def suggestions(storage, *, reopen):
        search, values = open_search(sweep, storage), []
        for number in range(8):
            if reopen:
                search = open_search(sweep, storage)
            values.append(search.ask().values)
            search.finish(number, values[-1]["train.lr"])
        return values

    sweep = sweep_of(LR, TEMPERATURE, cap=8)
    undisturbed = suggestions(InMemoryStorage(), reopen=False)
    assert suggestions(storage, reopen=True) == undisturbed
    assert len({tuple(values.values()) for values in undisturbed}) == 8


def _badness(values):
    return (math.log10(values["train.lr"]) + 3) ** 2 + 4 * (values["loss.temperature"] - 0.5) ** 2 + values["x"]


@pytest.mark.slow
def test_a_search_finds_better_values_than_chance_with_the_same_budget(sweep_of):
    better = 0
    for repeat in range(8):
        lines = (LR, TEMPERATURE, "model.top_k: {values: [1, 2, 3]}", f"train.epochs: {{value: {repeat + 1}}}")
        found = {}
        for method in ("bayes", "random"):
            sweep = sweep_of(*lines, method=method, cap=40)
            search = open_search(sweep)
            chance = [one.values for one in expand(sweep)]
            costs = []
            for number in range(40):
                values = search.ask().values if method == "bayes" else chance[number]
                costs.append(_badness(values | {"x": 0.3 * (values["model.top_k"] != 2)}))
                if method == "bayes":
                    search.finish(number, costs[-1])
            found[method] = min(costs)
        better += found["bayes"] < found["random"]
    assert better >= 7


def test_a_search_goes_towards_large_values_where_the_metric_is_maximised(sweep_of):
    search = open_search(sweep_of(TEMPERATURE, metric="{name: agreement/top_k, goal: maximize}"))
    for number in range(40):
        search.finish(number, search.ask().values["loss.temperature"])
    late = [trial.params["loss.temperature"] for trial in search.study.get_trials()[20:]]
    assert sum(late) / 20 > 1.5


def test_runs_decided_elsewhere_teach_the_search(sweep_of):
    search = open_search(sweep_of(TEMPERATURE, "seed: {values: [0, 1]}"))
    for step in range(40):
        temperature = 0.05 + 1.95 * step / 39
        search.finish(search.adopt({"loss.temperature": temperature, "seed": 1}), (temperature - 1.2) ** 2)
    late = []
    for _ in range(10):
        suggestion = search.ask()
        late.append(abs(suggestion.values["loss.temperature"] - 1.2))
        search.finish(suggestion.number, late[-1] ** 2)
    assert sorted(late)[7] < 0.4


def test_without_early_termination_epochs_are_only_written_down(sweep_of):
    search = open_search(sweep_of(LR))
    numbers = [search.ask().number for _ in range(3)]
    assert not any(search.report(number, epoch, 9.0 * number) for number in numbers for epoch in range(1, 30))
    assert len(trial(search, 2).intermediate_values) == 29


# --- ends --------------------------------------------------------------------------------------------------


def test_a_finished_trial_stays_as_it_is(sweep_of):
    search = open_search(sweep_of(LR))
    complete, pruned, failed = (search.ask().number for _ in range(3))
    search.finish(complete, 1.5)
    search.finish(pruned, 2.5, stopped=True)
    search.fail(failed)
    for number in (complete, pruned, failed):
        search.fail(number)
        search.finish(number, 7.0)
        search.finish(number, 7.0, stopped=True)
    states = [(one.state, one.value) for one in search.study.get_trials()]
    assert states == [(TrialState.COMPLETE, 1.5), (TrialState.PRUNED, 2.5), (TrialState.FAIL, None)]


@pytest.mark.parametrize(("goal", "worst"), [("minimize", math.inf), ("maximize", -math.inf)])
def test_no_number_is_the_worst_number_and_does_not_stop_the_search(sweep_of, storage, goal, worst):
    sweep = sweep_of(LR, metric=f"{{name: val/loss, goal: {goal}}}", cap=12)
    search = open_search(sweep, storage)
    for value in (None, math.nan, worst, 1.0, 3.0):
        number = search.ask().number
        search.report(number, 1, value)
        search.finish(number, value)
    assert [trial(search, number).value for number in range(3)] == [worst] * 3
    assert trial(search, 0).intermediate_values == {1: worst}
    assert search.study.best_value == (1.0 if goal == "minimize" else 3.0)
    search.finish(search.ask().number, None, stopped=True)
    assert trial(search, 5).state is TrialState.PRUNED
    assert search.ask().number == 6


@pytest.mark.parametrize(("goal", "target"), [("minimize", 1.0), ("maximize", -1.0)])
def test_a_sweep_ends_when_a_run_has_come_to_the_target(sweep_of, goal, target):
    sign = 1 if goal == "minimize" else -1
    search = open_search(sweep_of(LR, metric=f"{{name: val/loss, goal: {goal}, target: {target}}}"))
    first, second = search.ask().number, search.ask().number
    search.report(first, 1, sign * 1.1)
    search.report(second, 1, sign * 0.5)
    assert search.reached_target()
    search.fail(second)
    assert not search.reached_target()
    search.finish(first, sign * 1.0)
    assert search.reached_target()
    assert not open_search(sweep_of(LR)).reached_target()


# --- studies -----------------------------------------------------------------------------------------------


def test_a_grid_whose_lists_have_changed_goes_on_without_those_in_its_trials(sweep_of):
    storage = InMemoryStorage()
    lines = ("model.experts: {values: [2, 4]}", "model.top_k: {values: [1, 2]}")
    open_search(sweep_of(*lines, method="grid"), storage).adopt({"model.experts": 4, "model.top_k": 1, "seed": 0})
    search = open_search(sweep_of("model.experts: {values: [2, 4, 8]}", lines[1], method="grid"), storage)
    assert trial(search, search.adopt({"model.experts": 8, "model.top_k": 2})).params == {"model.top_k": 2}
    assert trial(search, search.adopt({"model.experts": 8, "model.top_k": 4})).params == {}
    with pytest.raises(ValueError, match="expand"):
        search.ask()


def test_a_search_may_change_its_ranges(sweep_of):
    storage = InMemoryStorage()
    for high, repeat in itertools.product((2.0, 0.5), range(12)):
        search = open_search(sweep_of(LR, f"loss.temperature: {{min: 0.1, max: {high}}}"), storage)
        suggestion = search.ask()
        assert suggestion.values["loss.temperature"] <= high
        search.finish(suggestion.number, float(repeat))


CHANGES = {
    "values": ({"line": "model.experts: {values: [2, 4, 8]}"}, 6, "model.experts had other values"),
    "scale": ({"line": "model.experts: {min: 2, max: 8}"}, 6, "another distribution"),
    "metric": ({"metric": "{name: train/loss}"}, 4, "began with metric: {name: val/loss, goal: minimize}"),
    "goal": ({"metric": "{name: val/loss, goal: maximize}"}, 4, "began with metric: {name: val/loss, goal: minimize}"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "line", "words"), CHANGES.values(), ids=CHANGES)
def test_a_search_that_cannot_take_over_what_was_found_is_refused(sweep_of, change, line, words):
    storage = InMemoryStorage()
    search = open_search(sweep_of("model.experts: {values: [2, 4]}"), storage)
    search.finish(search.ask().number, 1.0)
    changed = sweep_of(
        change.get("line", "model.experts: {values: [2, 4]}"), metric=change.get("metric", "{name: val/loss}")
    )
    with pytest.raises(UserError) as caught:
        open_search(changed, storage)
    assert str(caught.value).startswith(f"s.yaml:{line}: ")
    assert words in str(caught.value)
    assert str(caught.value).endswith("; give the changed sweep another name")


def test_optuna_keeps_silent(sweep_of, storage, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    for _ in range(2):
        search = open_search(sweep_of(LR), storage)
        search.finish(search.ask().number, 1.0)
    assert capfd.readouterr() == ("", "")


AGENT = """
import json, pickle, sys
from pathlib import Path
from sweeps.plan.search import Search
from sweeps.queue.storage import study_storage

sweep = pickle.loads(Path("sweep").read_bytes())
search = Search(sweep, study_storage(sys.argv[1]), "study")
for _ in range(6):
    suggestion = search.ask()
    twin = search.adopt(suggestion.values | {"seed": 1})
    for number in (suggestion.number, twin):
        stop = search.report(number, 1, suggestion.values["train.lr"])
        search.finish(number, suggestion.values["train.lr"], stopped=stop)
    print(json.dumps([suggestion.number, twin, suggestion.values["train.lr"]]))
"""


@pytest.mark.slow
def test_two_processes_work_on_one_study(sweep_of, storage):
    sweep = sweep_of(LR, "seed: {values: [0, 1]}", cap=24, stop="{type: hyperband, min_iter: 1, eta: 2}")
    Path("sweep").write_bytes(pickle.dumps(sweep))  # reading the file again would take as long as all the rest
    command = [sys.executable, "-c", AGENT, str(storage.engine.url)]
    root = Path(__file__).parents[3]
    agents = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        )
        for _ in range(2)
    ]
    rows = [json.loads(line) for agent in agents for line in agent.communicate(timeout=60)[0].splitlines()]
    assert [agent.returncode for agent in agents] == [0, 0]
    assert sorted(number for row in rows for number in row[:2]) == list(range(24))
    assert len({rate for *_, rate in rows}) == 12  # none repeated, though both began on an empty study
    trials = open_search(sweep, storage).study.get_trials()
    assert {one.state for one in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert replicates(sweep) == [0, 1]
