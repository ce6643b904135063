"""Mistakes in a sweep file: each gets one sentence with the line."""

import pytest

from moe.config import flat
from moe.errors import UserError
from sweeps.plan.spec import MAX_RUNS, expand, load_sweep
from tests.sweeps.plan.texts import LR, bayes, grid, random, seeds

MISTAKES = {
    # the file as YAML
    "bracket": (grid("seed: {values: [0, 1}"), 3, ("not valid YAML", "brackets")),
    "tab": ("method: grid\n\tparameters: {}", 2, ("not valid YAML", "spaces, not tabs")),
    "empty": ("# nothing\n", 1, ("empty", "method:")),
    "a list": ("# header\n- method: grid", 2, ("not a mapping", "method:")),
    "text": ("grid", 1, ("not a mapping",)),
    "two documents": (seeds() + "\n---\na: 1", 4, ("not valid YAML", "expected a single document")),
    "duplicate key": (
        grid("seed: {value: 1}", "train.lr: {value: 0.1}", "seed: {value: 2}"), 5,
        ('"seed"', "line 3")),
    "duplicate top": ("method: grid\n" + seeds(), 3, ('"method" is given twice', "line 1")),
    "odd key": ("? [a, b]\n: 1", 1, ("a key must be plain text",)),
    "alias loop": ("method: grid\nparameters: &p\n  seed: *p", 3, ("alias",)),
    "bad date": (seeds("name: 2020-13-45"), 1, ("2020-13-45", "quotes")),
    "python object": (seeds("name: !!python/name:os.system"), 1, ("not valid YAML", "remove the tag")),
    "control character": (seeds("project: a\x01"), 1, ("unprintable",)),
    # top level
    "unknown key": (seeds("methd: grid"), 1, ('unknown key "methd"', 'did you mean "method"?')),
    "parameter on top": (seeds("train.lr: {value: 0.1}"), 1, ("train.lr", "move it under parameters")),
    "custom only": (seeds("scheduler: {engine: optuna}"), 1, ('"scheduler"', "custom")),
    "no method": ("parameters: {seed: {value: 0}}", 1, ("method is missing", "method: grid")),
    "no parameters": ("# x\nmethod: grid", 2, ("parameters is missing",)),
    "parameters empty": ("method: grid\nparameters:", 2, ("no entries", "seed:")),
    "unknown method": (
        "name: a\nmethod: gird\nparameters: {seed: {value: 0}}", 2,
        ('"gird"', 'did you mean "grid"?')),
    "name not text": (seeds("name: 3"), 1, ("name must be text", "quotes")),
    "name is on": (seeds("name: on"), 1, ("name must be text", "quotes")),
    "name is a path": (seeds("name: a/../b"), 1, ("a/../b", "folder")),
    "run_cap": (seeds("run_cap: 0"), 1, ("run_cap=0", "whole number")),
    "command": (
        seeds("command: [python, train.py, '${args}']"), 1,
        ("moe train", '"${env}", "moe", "train", "${args}"')),
    "command without args": (seeds("command: [moe, train]"), 1, ("moe train", "${args}")),
    "command is text": (seeds("command: moe train ${args}"), 1, ("moe train",)),
    "bayes without metric": (
        "method: bayes\nparameters: {seed: {value: 0}}", 1,
        ("bayes needs a metric", "val/loss")),
    "stop without metric": (
        seeds("early_terminate: {type: hyperband, min_iter: 2}"), 1,
        ("early_terminate needs a metric", "val/loss")),
    "stop kind": (seeds("early_terminate: 3"), 1, ("early_terminate", "hyperband")),
    "stop key": (seeds("early_terminate:\n  type: hyperband\n  miniter: 2"), 3, ("miniter", "min_iter")),
    "stop kind unknown": (seeds("early_terminate: {type: median, min_iter: 1}"), 1, ("{type: hyperband",)),
    "stop fraction": (seeds("early_terminate:\n  type: hyperband\n  min_iter: 2.5"), 3, ("min_iter 2.5", "whole")),
    "stop zero": (seeds("early_terminate:\n  type: hyperband\n  min_iter: 0"), 3, ("min_iter 0", "from 1")),
    "stop truth": (seeds("early_terminate:\n  type: hyperband\n  min_iter: yes"), 3, ("min_iter true", "whole")),
    "stop s": (
        seeds("early_terminate:\n  type: hyperband\n  max_iter: 27\n  s: 1.5"), 4, ("s 1.5", "whole number")),
    "stop eta": (
        seeds("early_terminate:\n  type: hyperband\n  min_iter: 1\n  eta: 1"), 4, ("eta 1", "above 1", "write 3")),
    "stop strict": (
        seeds("early_terminate:\n  type: hyperband\n  min_iter: 1\n  strict: 1"), 4, ("strict 1", "true nor false")),
    "stop without a count": (
        seeds("early_terminate:\n  type: hyperband\n  min_iter: 1\n  max_iter: 9"), 4,
        ("max_iter stands without s", "add s"),
    ),
    "stop before the first epoch": (
        seeds("early_terminate:\n  type: hyperband\n  max_iter: 2\n  s: 1"), 3, ("before the first epoch", "raise")),
    "stop unfinished": (seeds("early_terminate: {type: hyperband}"), 1, ("min_iter",)),
    "metric without name": (seeds("metric: {goal: minimize}"), 1, ("metric needs a name",)),
    "metric key": (seeds("metric:\n  name: a\n  gaol: minimize"), 3, ('"gaol"', '"goal"')),
    "metric goal": (seeds("metric:\n  name: a\n  goal: min"), 3, ('"min"', "minimize or maximize")),
    "metric target": (seeds("metric:\n  name: val/loss\n  target: low"), 3, ('target "low"', "number")),
    "metric unknown": (seeds("metric: {name: val_loss}"), 1, ('"val_loss"', 'did you mean "val/loss"?')),
    "metric of nothing": (seeds("metric: {name: fvd}"), 1, ("no run logs", '"fvd"', "known are", "val/loss")),
    # parameters
    "unknown parameter": (
        grid("experts: {values: [4]}"), 3,
        ("unknown parameter", 'did you mean "model.experts"?')),
    "unknown nested": (
        grid("model:", "  parameters:", "    expert: {value: 4}"), 5,
        ("model.expert", "model.experts")),
    "group": (
        grid("model: {experts: {values: [4]}}"), 3,
        ('"model" is a group', "model.experts: {value: ..}")),
    "beside a group": (
        grid("model: {parameters: {experts: {value: 4}}, value: 3}"), 3,
        ('"value" stands beside',)),
    "group of nothing": (grid("model: {parameters: 3}"), 3, ("must be a mapping",)),
    "twice in two ways": (
        grid("model.experts: {value: 4}", "model: {parameters: {experts: {value: 8}}}"), 4,
        ("model.experts", "twice")),
    "bare value": (grid("train.lr: {value: 0.1}", "seed: 3"), 4, ("write seed: {value: 3}",)),
    "bare list": (grid("seed: [0, 1]"), 3, ("write seed: {values: [0, 1]}",)),
    "bare nothing": (grid("seed:"), 3, ("seed is empty", "write seed: {value: ..}")),
    "unknown entry": (grid("seed:", "  vals: [1]"), 4, ('unknown key "vals"', 'did you mean "values"?')),
    "no entry": (grid("seed: {}"), 3, ("seed has no values", "values: [..]")),
    "value and values": (grid("seed:", "  values: [1]", "  value: 1"), 5, ("value does not go with values",)),
    "wrong distribution": (
        random("seed: {distribution: categorical, min: 1, max: 2}"), 4, ("min", "distribution: categorical")),
    "unknown distribution": (random("train.lr: {distribution: lognormal}"), 4, ("lognormal", '"log_normal"')),
    "grid over a range": (grid("train.lr: {min: 0.1, max: 1.0}"), 3,
                          ("grid needs values: [...], or whole min and max; uniform works with method: random",)),
    "grid over steps": (grid("model.experts: {distribution: q_uniform, min: 4, max: 8, q: 2}"), 3,
                        ("grid needs values: [...]", "q_uniform works with method: random")),
    "grid over millions": (grid("seed: {min: 0, max: 9999999}"), 3, ("10,000,000 whole numbers", "10,000 at most")),
    "grid probabilities": (
        grid("seed: {values: [0, 1], probabilities: [0.5, 0.5]}"), 3,
        ("probabilities", "random")),
    "1e-4": (grid("train.lr: {value: 1e-4}"), 3, ("YAML reads 1e-4 as text", "write 1.0e-4")),
    "1e4": (
        grid("train.weight_decay:", "  values:", "    - 0.1", "    - 2.5e3"), 6,
        ("2.5e3", "write 2.5e+3")),
    "whole 1e2": (grid("train.epochs: {value: 1e2}"), 3, ("1e2", "write 100")),
    "1e-4 as bound": (
        random("train.lr: {min: 1e-4, max: 0.1}"), 4,
        ("YAML reads 1e-4 as text", "write 1.0e-4")),
    "quoted number": (grid('train.lr: {value: "0.1"}'), 3, ("in quotes is text", "write 0.1 without")),
    "word for number": (grid("train.lr: {value: fast}"), 3, ("takes a number", '"fast"')),
    "truth for number": (grid("model.experts: {value: yes}"), 3, ("takes a number", "true")),
    "infinite": (grid("train.lr: {value: .inf}"), 3, ("not a finite number",)),
    "on for text": (grid("data.name: {value: on}"), 3, ("data.name", "on", "quotes")),
    "quoted truth": (
        grid('gate.noisy: {values: [true, "no"]}'), 3,
        ("gate.noisy", "true or false", "quotes")),
    "number for truth": (grid("gate.noisy: {value: 1}"), 3, ("takes true or false, not 1",)),
    "values empty": (grid("seed:", "  values: []"), 4, ("values is empty",)),
    "values no list": (grid("seed: {values: 3}"), 3, ("needs a list", "values: [3]")),
    "value empty": (grid("seed: {value: }"), 3, ("seed has an empty value",)),
    "wrong type": (grid("model.experts: {values: [4, 1.5]}"), 3, ("model.experts=1.5", "valid integer")),
    "out of range": (
        grid("seed:", "  values:", "  - 0", "  - -1"), 6,
        ("seed=-1", "greater than or equal to 0")),
    "no such choice": (grid("train.precision: {value: 16}"), 3, ("train.precision=16", "16-mixed")),
    "no such gate": (grid("gate.kind: {value: noisy}"), 3, ("gate.kind", "noisy_top_k")),
    "pair": (grid("augment.crop_scale: {value: [0.5, 0.2]}"), 3, ("augment.crop_scale", "low <= high")),
    "sum": (random("seed: {values: [0, 1], probabilities: [0.5, 0.4]}"), 4, ("sum to 0.9", "1")),
    "count": (random("seed: {values: [0, 1], probabilities: [1.0]}"), 4, ("1 probabilities for 2 values",)),
    "negative share": (random("seed: {values: [0, 1], probabilities: [2, -1]}"), 4, ("numbers from 0 to 1",)),
    "no values": (random("seed: {probabilities: [1.0]}"), 4, ("values is missing",)),
    "one bound": (random("train.lr: {min: 0.1}"), 4, ("max is missing", "uniform")),
    "min above max": (
        random("train.lr:", "  max: 0.1", "  min: 0.2"), 6,
        ("min 0.2 is above max 0.1", "swap")),
    "bound out of range": (random("train.lr: {min: -0.1, max: 1.0}"), 4, ("train.lr=-0.1", "greater than 0")),
    "bound no number": (random("train.lr: {min: [1], max: 1.0}"), 4, ("min needs a number",)),
    "log of nothing": (
        random("train.weight_decay: {distribution: log_uniform_values, min: 0, max: 1}"), 4, ("above 0",)),
    "sigma": (random("train.lr: {distribution: normal, mu: 1, sigma: -1}"), 4, ("sigma -1 is negative",)),
    "q": (random("train.lr: {distribution: q_uniform, min: 0.1, max: 1, q: 0}"), 4, ("q 0",)),
    "q too large": (
        random("train.lr: {distribution: q_uniform, min: 0.1, max: 0.2, q: 1.0}"), 4,
        ("no multiple",)),
    "q of decimals": (
        random("train.lr: {distribution: q_log_uniform_values, min: 0.11, max: 0.19, q: 0.1}"), 4,
        ("no multiple of q 0.1 lies between 0.11 and 0.19",)),
    "step out of range": (
        random("model.experts:", "  distribution: q_uniform", "  min: -0.5", "  max: 8.5"), 6,
        ("model.experts=0", "greater than or equal to 1")),
    "beta": (random("train.lr: {distribution: beta, a: 0}"), 4, ("a 0 is not above 0",)),
    "exponents out of range": (
        random("augment.jitter:", "  distribution: log_uniform", "  max: 1", "  min: -3"), 6,
        ("augment.jitter=2.718", "less than or equal to 1", "log_uniform takes exponents of e, log_uniform_values")),
    "inverse exponents out of range": (
        random("augment.jitter:", "  distribution: inv_log_uniform", "  max: 3", "  min: -1"), 7,
        ("augment.jitter=2.718", "inv_log_uniform_values takes the values")),
    "exponents too large": (
        random("train.lr: {distribution: log_uniform, min: 1, max: 1000}"), 4, ("max 1000", "exponent")),
    "fractions of a logarithm": (
        random("model.experts: {distribution: log_uniform, min: 1, max: 2}"), 4, ("whole numbers", "log_uniform does")),
    "fractions by q": (
        random("model.experts: {distribution: q_normal, mu: 8, q: 0.5}"), 4, ("whole numbers", "q_normal does not")),
    "fractions for whole": (random("model.experts: {min: 4.0, max: 8}"), 4, ("whole numbers", "int_uniform")),
    "whole for fractions": (
        random("loss.temperature: {min: 1, max: 2}"), 4, ("whole numbers only", "min: 1.0", "max: 2.0")),
    "int_uniform of fractions": (
        random("train.lr: {distribution: int_uniform, min: 0.1, max: 2}"), 4, ("int_uniform", "uniform")),
    "range of text": (random("data.name: {min: 1, max: 2}"), 4, ("data.name takes no numbers", "values")),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_gets_one_sentence_with_its_line(sweep_of, text, line, words):
    with pytest.raises(UserError) as caught:
        sweep_of(text)
    check(str(caught.value), line, words)


MISTAKES_IN_RUNS = {
    "random without cap": ("method: random\nparameters: {seed: {values: [0, 1]}}", 1, ("method: random", "run_cap")),
    "bayes without cap": (
        f"metric: {{name: val/loss}}\nmethod: bayes\nparameters: {{{LR}}}",
        2,
        ("method: bayes", "add run_cap: 20"),
    ),
    "bayes with less than one suggestion": (
        bayes(LR, "seed: {values: [0, 1, 2]}", cap=2),
        2,
        ("run_cap=2", "3 seeds", "write 3 or more"),
    ),
    "bayes over seeds": (
        bayes(LR, "seed: {min: 0, max: 9}"),
        6,
        ("seed: int_uniform does not go with method: bayes", "values: [0, 1]"),
    ),
    "bayes over nothing": (
        bayes("seed: {values: [0, 1]}", "train.lr: {values: [0.1]}"),
        4,
        ("nothing to choose", "list several"),
    ),
    "bayes with probabilities": (
        bayes("model.top_k:", "  values: [1, 2]", "  probabilities: [0.5, 0.5]"),
        7,
        ("probabilities do not go with method: bayes", "use random"),
    ),
    "bayes with imputed values": (bayes(LR, metric="{name: val/loss, impute: best}"), 3, ("impute", "remove it")),
    "bayes with too many runs": (bayes(LR, cap=MAX_RUNS + 1), 2, ("10,001 runs", "run_cap")),
    "bayes into an impossible corner": (
        bayes(
            LR,
            "model.experts: {min: 2, max: 16}",
            "loss.temperature: {min: 0.1, max: 1.0}",
            "model.top_k: {values: [2, 4, 1]}",
        ),
        6,
        ("model.top_k=4 exceeds model.experts=2", "combination model.experts=2, model.top_k=4"),
    ),
    "bayes along one impossible axis": (bayes("model.top_k: {values: [1, 8]}"), 5, ("model.top_k=8 exceeds",)),
    "bayes into a tail": (
        bayes("train.lr: {distribution: normal, mu: 1.0e-3, sigma: 1.0e-3}"),
        5,
        ("train.lr=-0.002", "drawn from normal"),
    ),
    "metric of another objective": (
        bayes(LR, metric="{name: val/accuracy, goal: maximize}"),
        3,
        ('loss.objective "contrastive" does not log val/accuracy', "write val/loss"),
    ),
    "metric of pairs of experts": (
        bayes(LR, "model.top_k: {value: 1}", "model.experts: {value: 1}", metric="{name: experts/cka}"),
        3,
        ("has no pair of experts and does not log experts/cka",),
    ),
    "metric of no expert": (
        bayes(LR, metric="{name: balance/load_4}"),
        3,
        ("model.experts=4 does not log balance/load_4",),
    ),
    "metric of an expert's readout": (
        bayes(LR, metric="{name: experts/knn_7, goal: maximize}"),
        3,
        ("model.experts=4 does not log experts/knn_7",),
    ),
    "metric of no expert in a grid that stops": (
        "early_terminate: {type: hyperband, min_iter: 1}\nmetric: {name: balance/load_4}\n"
        + grid("train.lr: {value: 0.1}"),
        2,
        ("does not log balance/load_4",),
    ),
    "combination": (
        grid("model.experts: {values: [2, 4]}", "seed: {values: [0, 1]}", "model.top_k: {values: [2, 4]}"),
        3,
        ("model.top_k=4 exceeds model.experts=2", "combination model.experts=2, model.top_k=4;"),
    ),
    "combination with a default": (
        grid("seed: {value: 0}", "model.experts: {values: [4, 1]}"),
        4,
        ("model.top_k=2 exceeds model.experts=1", "combination model.experts=1;"),
    ),
    "draw out of range": (
        random("seed: {value: 0}", "train.lr: {distribution: normal}"),
        5,
        ("train.lr=-", "greater than 0", "drawn from normal"),
    ),
    "too many": (
        grid(
            f"seed: {{values: {list(range(101))}}}",
            "train.epochs: {value: 1}",
            f"model.embedding: {{values: {list(range(1, 101))}}}",
        ),
        2,
        ("10,100 runs", f"{MAX_RUNS:,}"),
    ),
    "cap too high": (random("seed: {values: [0, 1]}", cap=MAX_RUNS + 1), 2, ("10,001 runs", "run_cap")),
}


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES_IN_RUNS.values(), ids=MISTAKES_IN_RUNS)
def test_a_mistake_that_only_the_runs_show_is_named_before_any_starts(sweep_of, text, line, words):
    sweep = sweep_of(text)
    with pytest.raises(UserError) as caught:
        expand(sweep)
    check(str(caught.value), line, words)


def check(message, line, words):
    assert message.startswith(f"s.yaml:{line}: ")
    assert "\n" not in message
    assert not message.endswith(".")
    for word in words:
        assert word in message


def test_values_alone_are_checked_without_regard_to_other_parameters(sweep_of):
    cells = expand(sweep_of(grid("model.experts: {value: 1}", "model.top_k: {value: 1}", "seed: {values: [0, 1]}")))
    assert flat(cells[1].config)["model.experts"] == 1


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        load_sweep(str(file))
