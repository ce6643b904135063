import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from callbacks import embedding_monitor, monitors, saturation
from moe.config import RunConfig
from moe.errors import UserError
from moe.lightning_module import MoEModule
from sweeps.plan import spec
from sweeps.plan.goal import METRICS
from sweeps.plan.source import shipped
from sweeps.plan.spec import budget, expand, load_sweep, replicates, restore, with_overrides
from tests.sweeps.plan.texts import LR, bayes, grid, random, seeds

# --- shipped files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "runs", "swept"),
    [
        ("paper", 30, ("model.experts", "seed")),
        (
            "gating.yaml",
            72,
            ("model.top_k", "gate.noisy", "loss.importance_weight", "model.gate_after", "seed"),
        ),
        ("quickstart", 4, ("model.experts", "seed")),
    ],
)
def test_shipped_sweeps_expand_to_distinct_runs(name, runs, swept):
    sweep = load_sweep(name)
    cells = expand(sweep)
    assert len({cell.run_id for cell in cells}) == len(cells) == runs
    assert sweep.swept == swept
    assert sweep.name == name.removesuffix(".yaml")
    assert set(sweep.swept) | set(sweep.fixed) == set(sweep.parameters)
    assert all(cell.run_id == cell.config.identity() for cell in cells)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_file_is_handed_to_wandb_as_it_stands(name):
    sweep = load_sweep(name)
    text = (Path(__file__).parents[3] / "sweeps" / "shipped" / name).read_text(encoding="utf-8")
    assert sweep.raw.items() >= yaml.safe_load(text).items()
    assert list(sweep.raw["command"]) == ["${env}", "moe", "train", "${args}"]
    assert sweep.metric is not None
    assert (sweep.metric.name, sweep.metric.goal) == ("val/loss", "minimize")
    assert expand(sweep)


def test_paper_is_the_default_recipe_but_for_experts_and_seed():
    for cell in expand(load_sweep("paper")):
        default = RunConfig.model_validate(
            {"seed": cell.values["seed"], "model": {"experts": cell.values["model.experts"]}}
        )
        assert cell.config == default


def test_a_file_that_exists_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paper.yaml").write_text(grid("seed: {value: 5}"))
    assert [cell.config.seed for cell in expand(load_sweep("paper.yaml"))] == [5]
    assert len(expand(load_sweep("paper"))) == 30


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("papr", 'did you mean "paper"?'),
        ("papers.yaml", 'did you mean "paper"?'),
        ("x/none.yaml", "check the path"),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_exist(name, words):
    with pytest.raises(UserError) as caught:
        load_sweep(name)
    for expected in (name, words, *shipped()):
        assert expected in str(caught.value)


# --- expansion ---------------------------------------------------------------------------------------------


def test_grid_keeps_the_file_order_with_the_last_parameter_fastest(sweep_of):
    cells = expand(
        sweep_of(grid("seed: {values: [1, 0]}", "data.name: {value: synthetic}", "model.experts: {values: [8, 4]}"))
    )
    assert [(c.values["seed"], c.values["model.experts"]) for c in cells] == [(1, 8), (1, 4), (0, 8), (0, 4)]
    assert [(c.config.seed, c.config.model.experts) for c in cells] == [(1, 8), (1, 4), (0, 8), (0, 4)]
    assert cells[0].values == {"seed": 1, "data.name": "synthetic", "model.experts": 8}


@pytest.mark.parametrize("entry", ["{min: 0, max: 2}", "{distribution: int_uniform, min: 0, max: 2}"])
def test_a_grid_over_whole_bounds_tries_all_between_them(sweep_of, entry):
    listed = sweep_of(grid("seed: {values: [0, 1, 2]}", "model.experts: {values: [8, 4]}"))
    bounded = sweep_of(grid(f"seed: {entry}", "model.experts: {values: [8, 4]}"))
    assert [cell.run_id for cell in expand(bounded)] == [cell.run_id for cell in expand(listed)]
    assert bounded.replicate == "seed"
    assert sweep_of(grid("seed: {min: 3, max: 3}", "model.experts: {min: 2, max: 4}")).fixed == {"seed": 3}


def test_one_element_lists_and_single_values_are_fixed(sweep_of):
    sweep = sweep_of(grid("seed: {values: [3]}", "model.top_k: {value: 1}", "model.experts: {values: [2, 4]}"))
    assert sweep.fixed == {"seed": 3, "model.top_k": 1}
    assert sweep.swept == ("model.experts",)
    assert sweep.replicate == "seed"


def test_the_seed_makes_another_run_and_a_machine_setting_does_not(sweep_of):
    assert len({c.run_id for c in expand(sweep_of(grid("seed: {values: [0, 1, 2]}")))}) == 3
    merged = expand(sweep_of(grid("machine.threads: {values: [1, 2]}", "seed: {values: [0, 1]}")))
    assert [(c.config.machine.threads, c.config.seed) for c in merged] == [(1, 0), (1, 1)]


def test_run_cap_cuts_a_grid(sweep_of):
    assert len(expand(sweep_of("run_cap: 3\n" + grid("seed: {values: [0, 1, 2, 3]}")))) == 3


def test_nested_parameters_become_dotted_paths(sweep_of):
    nested = sweep_of(grid("model: {parameters: {experts: {values: [4, 8]}, top_k: {value: 1}}}", "seed: {value: 2}"))
    dotted = sweep_of(grid("model.experts: {values: [4, 8]}", "model.top_k: {value: 1}", "seed: {value: 2}"))
    assert list(nested.parameters) == ["model.experts", "model.top_k", "seed"]
    assert expand(nested) == expand(dotted)
    assert nested.raw["parameters"] == dotted.raw["parameters"]  # W&B's agent would pass a group as one argument


def test_yaml_anchors_and_merge_keys_work(sweep_of):
    text = grid(
        "seed: &many {values: [0, 1]}",
        "train.lr: {value: 1.0e-3}",
        "model.top_k: {<<: *many, values: [1, 2]}",
    )
    assert sweep_of(text).parameters["model.top_k"].values == (1, 2)


def test_name_command_and_the_rest_are_kept(sweep_of):
    stop = "early_terminate: {type: hyperband, min_iter: 3}\nmetric: {name: val/loss, goal: maximize}"
    sweep = sweep_of(seeds(f"name: mine\nproject: p\ncommand: [uv, run, /opt/bin/moe, train, '${{args}}']\n{stop}"))
    assert sweep.name == "mine"
    assert sweep.early_terminate == {"type": "hyperband", "min_iter": 3}
    assert sweep.metric is not None
    assert sweep.metric.goal == "maximize"
    assert sweep.raw["command"][0] == "uv"
    assert sweep.raw["project"] == "p"


def test_without_name_or_command_the_file_name_and_moe_train_serve(sweep_of):
    sweep = sweep_of(seeds())
    assert (sweep.name, sweep.file) == ("s", "s.yaml")
    assert sweep.raw["command"] == ["${env}", "moe", "train", "${args}"]


def test_overrides_fix_replace_and_add():
    sweep = load_sweep("quickstart")
    overrides = {"seed": 7, "train.lr": "1e-4", "model.top_k": 1}
    cells = expand(sweep, overrides)
    assert [c.values["model.experts"] for c in cells] == [4, 8]
    assert {(c.config.seed, c.config.train.lr, c.config.model.top_k) for c in cells} == {(7, 1e-4, 1)}
    fixed = with_overrides(sweep, overrides)
    assert fixed.swept == ("model.experts",)
    assert fixed.raw["parameters"]["seed"] == {"value": 7}
    assert sweep.swept == ("model.experts", "seed")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"experts": 4}, '--set: unknown parameter "experts": did you mean "model.experts"?'),
        ({"model.experts": 0}, "--set: model.experts=0: input should be greater than or equal to 1"),
        ({"model.experts": "many"}, "--set: model.experts takes a number"),
        ({"model.experts": 1}, "model.top_k=2 exceeds model.experts=1"),
    ],
)
def test_mistaken_overrides_are_refused(overrides, words):
    with pytest.raises(UserError) as caught:
        expand(load_sweep("quickstart"), overrides)
    assert words in str(caught.value)


# --- random ------------------------------------------------------------------------------------------------

RANDOM = (
    "train.lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-2}",
    "loss.temperature: {min: 0.1, max: 1.0}",
    "model.experts: {min: 4, max: 16}",
    "model.top_k: {values: [1, 2, 3], probabilities: [0.7, 0.2, 0.1]}",
    "model.width: {distribution: q_uniform, min: 0.25, max: 1.0, q: 0.1}",
    "train.weight_decay: {distribution: normal, mu: 0.1, sigma: 0.01}",
    "gate.noisy: {distribution: categorical, values: [true, false]}",
    "seed: {distribution: constant, value: 3}",
)


def test_random_draws_are_reproducible_and_within_bounds(sweep_of):
    cells = expand(sweep_of(random(*RANDOM, cap=400)))
    assert len(cells) == 400
    assert cells == expand(sweep_of("name: other\n" + random(*RANDOM, cap=400)))
    drawn = {path: [cell.values[path] for cell in cells] for path in cells[0].values}
    assert all(1e-5 <= lr <= 1e-2 for lr in drawn["train.lr"])
    assert sum(lr < math.sqrt(1e-7) for lr in drawn["train.lr"]) == pytest.approx(200, abs=50)
    assert all(0.1 <= temperature <= 1 for temperature in drawn["loss.temperature"])
    assert set(drawn["model.experts"]) == set(range(4, 17))
    assert set(drawn["model.width"]) == {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    assert sum(drawn["train.weight_decay"]) / 400 == pytest.approx(0.1, abs=0.002)
    assert set(drawn["gate.noisy"]) == {True, False}
    assert set(drawn["seed"]) == {3}
    counts = Counter(drawn["model.top_k"])
    assert [counts[k] / 400 for k in (1, 2, 3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.08)


def test_other_parameters_and_a_higher_cap_leave_draws_as_they_were(sweep_of):
    few = expand(sweep_of(random(*RANDOM, cap=5)))
    assert expand(sweep_of(random(*RANDOM, cap=9)))[:5] == few
    fixed = expand(sweep_of(random(*RANDOM, cap=5)), {"gate.noisy": True, "train.epochs": 2})
    assert [c.values["train.lr"] for c in fixed] == [c.values["train.lr"] for c in few]
    narrower = expand(sweep_of(random(*RANDOM, "train.epochs: {value: 3}", cap=5)))
    assert [c.values["train.lr"] for c in narrower] != [c.values["train.lr"] for c in few]


# --- bayes -------------------------------------------------------------------------------------------------


def test_a_bayes_sweep_has_no_cells_of_its_own_but_a_budget_of_suggestions(sweep_of):
    sweep = sweep_of(bayes("seed: {values: [3, 5, 0]}", LR, "train.epochs: {value: 2}", cap=20))
    assert expand(sweep) == []
    assert replicates(sweep) == [3, 5, 0]
    assert budget(sweep) == 6  # 20 runs, 3 for each
    one = spec.cell(sweep, {"train.lr": 0.001, "train.epochs": 2, "seed": 5})
    assert (one.config.seed, one.config.train.lr, one.run_id) == (5, 0.001, one.config.identity())


def test_without_a_swept_seed_every_suggestion_is_one_run(sweep_of):
    assert replicates(sweep_of(bayes(LR))) == [0]
    assert replicates(sweep_of(bayes(LR, "seed: {value: 4}"))) == [4]
    assert budget(sweep_of(bayes(LR, "seed: {value: 4}", cap=7))) == 7
    assert replicates(with_overrides(sweep_of(bayes(LR, "seed: {values: [0, 1]}")), {"seed": 9})) == [9]


def test_a_sweep_survives_being_stored(sweep_of):
    text = random(*RANDOM, "model.embedding: {distribution: q_log_uniform, min: 3, max: 5, q: 8}")
    sweep = with_overrides(
        sweep_of(f"early_terminate: {{type: hyperband, min_iter: 2}}\nmetric: {{name: val/loss}}\n{text}"),
        {"train.lr": 0.5},
    )
    again = restore(sweep.name, json.loads(json.dumps(sweep.raw)), sweep.digest)
    assert expand(again) == expand(sweep)
    assert (again.name, again.metric, again.early_terminate) == (sweep.name, sweep.metric, sweep.early_terminate)


def test_the_metrics_that_a_sweep_may_go_by_are_those_that_runs_say_they_log():
    modules = (monitors, embedding_monitor, saturation)
    documented = [MoEModule.__doc__, *(getattr(of, name).__doc__ or "" for of in modules for name in dir(of))]
    named = set(re.findall(r"``(\w+/[\w<>]+)``", "\n".join(documented)))
    shown = {
        "routing/coactivation",
        "routing/heatmap",
        "routing/expert_similarity",
        "routing/classes",
    }  # pictures, a table
    assert named - shown == set(METRICS)
