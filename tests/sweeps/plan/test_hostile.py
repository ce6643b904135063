"""Sweep files and configs, odd or hostile: one sentence, soon, in little memory. And odd ones that are right."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe.errors import UserError
from sweeps.plan.collapse import collapsed
from sweeps.plan.config_files import run_config
from sweeps.plan.goal import Hyperband
from sweeps.plan.spec import expand, load_sweep

LAUGHS = "\n".join(
    ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    + ["method: grid", "parameters:", "  data.name: {value: synthetic}"]
)
MERGES = "\n".join(
    ["a0: &a0 {x: 1, y: 2}"]
    + [f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    + ["method: grid", "parameters:", "  data.name: {value: synthetic}"]
)
STOP = "metric: {name: val/loss}\nmethod: grid\nparameters: {seed: {value: 0}}\nearly_terminate: {type: hyperband, "
SEED = "method: grid\nparameters: {seed: {value: 0}}"
HOSTILE = {
    "aliases of aliases": (LAUGHS, "more than 100,000 values, aliases written out"),
    "merges of merges": (MERGES, 'unknown key "a0"'),
    "an alias in its own merge": ("method: grid\nparameters: &a {<<: *a}", "an alias refers to the mapping"),
    "a merge of a number": ("method: grid\nparameters: {<<: 3}", "<< needs a mapping"),
    "more values than a sweep has runs": (
        f"method: grid\nparameters: {{seed: {{values: [{','.join(map(str, range(10_001)))}]}}}}", "10,001 values",
    ),
    "a list of millions": (f"method: grid\nparameters: {{seed: {{values: [{'1,' * 6_500_000}]}}}}", "250,000 char"),
    "brackets in brackets": ("method: " + "[" * 5_000, "stand too deep in each other"),
    "s without end": (STOP + "max_iter: 100, s: 2147483648, eta: 1.0e+30}", "before the first epoch"),
    "a time that is none": ("method: grid\nparameters: {seed: {value: !!timestamp abc}}", "abc is no valid value"),
    "a truth value that is none": ("method: grid\nparameters: {seed: {value: !!bool x3}}", "x3 is no valid value"),
    "a date that does not exist": ("method: grid\nparameters: {seed: {value: 2026-11-31}}", "2026-11-31 is no valid"),
    "a date": ("method: grid\nparameters: {data.name: {value: 2026-11-30}}", "2026-11-30 is a date in YAML; put it"),
    "binary data": ("method: grid\nparameters: {data.name: {value: !!binary aGk=}}", "aGk= is binary data in YAML"),
    "a tag of a class": (SEED.replace("{value", "!!python/object:os.system {value"), "the tag !!python/object:os."),
    "a set": (SEED.replace("value: 0", "values: !!set {0, 1}"), "the tag !!set makes no plain list or"),
    "digits that YAML takes for text": (SEED.replace("0", "08"), "YAML reads 08 as text, not as a number; write 8"),
    "images called by a number": ("method: grid\nparameters: {data.name: {value: 2024}}", "reads 2024 as a number"),
    "a number of thousands of digits": (SEED.replace("0", "9" * 5000), "no valid value"),
    "a number of hundreds of digits": (f"method: grid\nparameters: {{train.lr: {{value: {'9' * 400}}}}}", "too large"),
    "a number of base eight": (SEED.replace("0", "010"), "010 is 8 in YAML"),
    "a number of base sixty": (SEED.replace("0", "1:30"), "1:30 is 90 in YAML"),
    "a project that W&B refuses": ("project: a/b\n" + SEED, 'W&B takes no project "a/b"'),
    "an infinite factor": (STOP + "min_iter: 1, eta: .inf}", "no factor above 1"),
    "a step too small for a float": (
        "method: random\nrun_cap: 3\nparameters: {train.lr: {distribution: q_uniform, min: 0.1, max: 1, q: 1.0e-320}}",
        "too small a step",
    ),
    "another rule to stop by": (STOP.replace("hyperband", "envelope") + "min_iter: 1}", 'type "envelope" is not known'),
    "a rule without its kind": (STOP.replace("type: hyperband, ", "") + "min_iter: 1}", "its type is missing"),
    "a name longer than a folder's": (f"name: {'x' * 5000}\n" + SEED, "write a shorter one"),
    "a character that does not exist": ('method: "\\UFFFFFFFF"', "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_sweep_file_gets_one_sentence_soon(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(text, encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(UserError) as caught:
        expand(load_sweep("s.yaml"))
    assert time.process_time() - begun < 10
    assert words in str(caught.value)
    assert str(caught.value).startswith("s.yaml:")
    assert len(str(caught.value)) < 400


def in_a_gigabyte():
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))


@pytest.mark.parametrize("text", [LAUGHS, MERGES, HOSTILE["a list of millions"][0]], ids=["aliases", "merges", "list"])
@pytest.mark.slow
def test_a_hostile_sweep_file_ends_with_code_2_within_a_gigabyte(tmp_path, text):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    command = [sys.executable, "-c", "import cli; cli.main()", "sweep", "launch", str(file), "--dry-run"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, preexec_fn=in_a_gigabyte,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_grid_over_settings_of_the_machine_is_one_run(tmp_path):
    """Nine million combinations, all of the same identity."""
    file = tmp_path / "s.yaml"
    values = {"machine.threads": 300, "machine.checkpoint_minutes": 300, "machine.devices": 100}
    parameters = {path: {"values": list(range(1, count + 1))} for path, count in values.items()}
    file.write_text(json.dumps({"method": "grid", "run_cap": 2, "parameters": parameters}))
    begun = time.process_time()
    (cell,) = expand(load_sweep(str(file)))
    assert time.process_time() - begun < 10
    assert cell.values == dict.fromkeys(values, 1)


def test_merges_keep_their_meaning(tmp_path):
    """The mapping's own keys first, then those of the first one named."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "method: grid\nparameters:\n  seed: &a {values: [0, 1]}\n  model.experts: &b {values: [4]}\n"
        "  model.top_k: {<<: [*b, *a], values: [2]}\n  loss.projection: {<<: [*b, *a]}\n"
    )
    sweep = load_sweep(str(file))
    assert {path: one.values for path, one in sweep.parameters.items()} == {
        "seed": (0, 1), "model.experts": (4,), "model.top_k": (2,), "loss.projection": (4,),
    }  # fmt: skip


# --- right, though odd ----------------------------------------------------------------------------------------------


def test_a_folder_is_no_sweep_file(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a sweep file"):
        load_sweep(str(tmp_path))


@pytest.mark.parametrize(
    ("entry", "path", "values"),
    [
        ("{distribution: q_log_uniform_values, min: 9.5, max: 12.5, q: 1}", "model.embedding", {10, 11, 12}),
        ("{distribution: q_uniform, min: 1.5, max: 6.5, q: 2.0}", "model.experts", {2, 4, 6}),
        ("{distribution: q_uniform, min: 0, max: 4, q: 2}", "model.experts", None),  # a run has an expert at least
        ("{distribution: q_normal, mu: 8, sigma: 1.0e-9, q: 1.0}", "model.experts", {8}),
    ],
)
def test_the_ends_of_a_rounded_range_need_not_be_values_themselves(sweep_of, entry, path, values):
    text = f"method: random\nrun_cap: 40\nparameters: {{{path}: {entry}, seed: {{min: 0, max: 99}}}}"
    if values is None:
        with pytest.raises(UserError, match=f"{path}=0: input should be greater than or equal to 1"):
            sweep_of(text)
        return
    drawn = [cell.values[path] for cell in expand(sweep_of(text))]
    assert set(drawn) == values
    assert all(type(value) is int for value in drawn)


def test_far_out_there_is_nothing_to_round(sweep_of):
    far = "{distribution: q_log_normal, mu: 690, sigma: 1, q: 1.0e-20}"
    sweep = sweep_of(f"method: random\nrun_cap: 3\nparameters: {{train.lr: {far}}}")
    assert all(cell.values["train.lr"] > 1e290 for cell in expand(sweep))


def test_min_iter_beside_max_iter_counts_for_nothing(sweep_of):
    sweep = sweep_of(STOP + "min_iter: 2, max_iter: 27, s: 2}")
    assert Hyperband.of(sweep.early_terminate).brackets(40) == [3, 9]


def test_min_iter_with_s_is_right_and_s_counts_for_nothing(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(STOP + "min_iter: 2, s: 3, eta: 2}")
    assert Hyperband.of(load_sweep(str(file)).early_terminate).brackets(20) == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_iter": 27, "s": 2, "eta": 3}, [3, 9]),
        ({"max_iter": 27, "s": 2**31, "eta": 3}, [1, 3, 9]),
        ({"max_iter": 100, "s": 2**31, "eta": 1.0 + 1e-12}, [99]),
        ({"max_iter": 2**31, "s": 700, "eta": 574.3928}, sorted({int(2**31 / 574.3928**k) for k in range(1, 4)})),
    ],
)
def test_brackets_of_max_iter_end(given, expected):
    assert Hyperband(**given).brackets(2**31)[-len(expected) :] == expected


@pytest.mark.parametrize("distribution", ["q_uniform", "q_log_uniform_values"])
def test_bounds_between_whole_numbers_are_right_for_steps_of_one(tmp_path, distribution):
    file = tmp_path / "s.yaml"
    entry = f"{{distribution: {distribution}, min: 0.5, max: 20.5, q: 1}}"
    file.write_text(f"method: random\nrun_cap: 40\nparameters: {{model.embedding: {entry}}}")
    drawn = {cell.values["model.embedding"] for cell in expand(load_sweep(str(file)))}
    assert drawn <= set(range(1, 21))
    assert len(drawn) > 10


def test_a_value_listed_twice_is_a_weight(tmp_path):
    """Drawn more often by random, tried once by grid and bayes."""
    file = tmp_path / "s.yaml"
    listed = "model.experts: {values: [4, 8, 4, 4]}, seed: {values: [0, 0]}"
    file.write_text(f"method: random\nrun_cap: 400\nparameters: {{{listed}, train.lr: {{min: 0.1, max: 0.2}}}}")
    drawn = [cell.values["model.experts"] for cell in expand(load_sweep(str(file)))]
    assert 0.65 < drawn.count(4) / len(drawn) < 0.85
    file.write_text(f"method: grid\nparameters: {{{listed}}}")
    assert [cell.values["model.experts"] for cell in expand(load_sweep(str(file)))] == [4, 8]
    assert load_sweep(str(file)).fixed == {"seed": 0}


SUPERVISED = "data.name: {value: synthetic}, loss.objective: {value: supervised}"


@pytest.mark.parametrize(
    ("parameters", "cap", "runs"),
    [
        ("model.experts: {min: 2, max: 5}", 4, 4),
        ("model.experts: {values: [2, 4, 8, 4, 3]}", 4, 4),
        ("model.experts: {values: [2, 4], probabilities: [0.99, 0.01]}, seed: {values: [0, 1, 2]}", 6, 6),
        ("model.experts: {distribution: q_uniform, min: 2, max: 8, q: 3}, seed: {min: 0, max: 99}", 200, 200),
        ("seed: {distribution: q_normal, mu: 50, sigma: 4}", 20, 20),
        (f"{SUPERVISED}, loss.temperature: {{min: 0.1, max: 0.9}}, seed: {{values: [0, 1, 2]}}", 3, 3),
    ],
)
def test_draws_that_repeat_are_drawn_on(sweep_of, parameters, cap, runs):
    sweep = sweep_of(f"method: random\nrun_cap: {cap}\nparameters: {{{parameters}}}")
    cells = expand(sweep)
    assert len({cell.run_id for cell in cells}) == runs
    assert "different runs" not in (collapsed(sweep, cells) or "")
    fewer = expand(sweep_of(f"method: random\nrun_cap: {cap - 1}\nparameters: {{{parameters}}}"))
    assert fewer == cells[:-1]  # a raised run_cap adds runs to those there are


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ("model.experts: {min: 2, max: 5}", "4 different runs"),
        ("model.experts: {values: [2, 4, 8], probabilities: [0.5, 0.5, 0]}, seed: {values: [3]}", "2 different runs"),
        ("train.lr: {distribution: q_uniform, min: 0.1, max: 0.3, q: 0.1}", "3 different runs"),
        ("seed: {values: [0, 1]}, machine.threads: {values: [1, 2]}",
         "2 different runs: machine.threads makes no other run"),
        (f"{SUPERVISED}, loss.temperature: {{min: 0.1, max: 0.9}}",
         "1 different run, as 10,000 more draws show: loss.temperature does not count with loss.objective=supervised"),
        ("seed: {distribution: q_normal, mu: 5, sigma: 0.3}", "3 different runs, as 10,000 more draws show"),
    ],
)  # fmt: skip
def test_a_space_with_fewer_runs_than_are_asked_for_is_said(sweep_of, parameters, found):
    sweep = sweep_of(f"method: random\nrun_cap: 40\nparameters: {{{parameters}}}")
    assert collapsed(sweep, expand(sweep)) == f"run_cap asks for 40 runs, but the space has only {found}"


def test_a_search_over_few_values_says_so_too(sweep_of):
    metric = "metric: {name: val/loss, goal: minimize}"
    parameters = "{model.experts: {values: [2, 4]}, seed: {values: [0, 1]}}"
    sweep = sweep_of(f"method: bayes\nrun_cap: 40\n{metric}\nparameters: {parameters}")
    said = "run_cap asks for 40 runs, but the space has only 4 different runs"
    assert collapsed(sweep, expand(sweep)) == said
    sweep = sweep_of(f"method: bayes\nrun_cap: 4\n{metric}\nparameters: {parameters}")
    assert collapsed(sweep, expand(sweep)) is None


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("\ufeffmethod: grid\nparameters: {seed: {value: 3}}", encoding="utf-8")
    assert len(expand(load_sweep(str(file)))) == 1


# --- configs --------------------------------------------------------------------------------------------------------

CONFIGS = {
    "infinite": ("seed: 3\ntrain: {lr: .inf}", "2", "not a finite number"),
    "truth value": ("train: {epochs: true}", "1", "takes a number"),
    "a key twice": ("train: {lr: 0.1}\ntrain: {lr: 0.2}", "2", '"train" is given twice'),
    "aliases of aliases": (LAUGHS, "", "more than 100,000 values"),
    "a list": ("[1, 2]", None, "must hold settings by section"),
    "a time that is none": ("seed: !!timestamp abc", "1", "no valid value"),
    "keys that are no text": ("1: 2", None, 'unknown parameter "1"'),
    "sections that are none": ("model: 3", None, "model=3"),
    "deep": ("[" * 5000, "1", "stand too deep"),
    "dots": ("seed: 3\nmodel.experts: 2", "2", "write model: {experts: ..} for model.experts"),
    "a kind for its section": ("gate: soft", None, "gate='soft': its settings stand below it by name"),
    "more than torch computes with": ("train: {lr: 1.0e+300}", "1", "more than a float of 32 bits holds"),
    "infinite in a list": ("augment: {crop_scale: [0.1, .inf]}", "1", "not a finite number"),
}


@pytest.mark.parametrize(("text", "line", "words"), CONFIGS.values(), ids=CONFIGS)
def test_a_mistaken_config_gets_one_sentence(tmp_path, monkeypatch, text, line, words):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        run_config(Path("c.yaml"), [])
    assert str(caught.value).startswith(f"c.yaml:{line}" if line else "c.yaml")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed: \xe9"])
def test_a_config_that_is_no_text_says_so(tmp_path, content):
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        run_config(file, [])
    with pytest.raises(UserError, match="cannot be read"):
        run_config(tmp_path, [])


WORDS = (
    "train.lr=.inf", "train.lr=.nan", "train.epochs=true", "gate.noisy=1.5", "seed=!!timestamp abc", "seed=!!bool x",
    "seed=2026-11-31", "seed=2026-11-30", "seed=" + "9" * 5000, "seed=" + "9" * 20,
    "machine.threads=99999", "train.lr=" + "9" * 400, "seed=" + "[" * 5000, "seed=[&a [1], *a]",
)  # fmt: skip


@pytest.mark.parametrize("pair", WORDS, ids=[word[:20] for word in WORDS])
def test_a_mistaken_word_gets_one_sentence(pair):
    with pytest.raises(UserError) as caught:
        run_config(None, [pair])
    assert str(caught.value).startswith(pair.partition("=")[0]) or str(caught.value).startswith(f'"{pair[:15]}')
    assert len(str(caught.value)) < 600


def test_what_w_and_b_hands_over_is_understood(tmp_path):
    """Its agent writes numbers as Python does, and JSON has no dot in 1e-06."""
    config = run_config(
        None, ["train.lr=1e-05", "gate.noisy=False", "data.validation=None", "augment.crop_scale=[0.1, 1]"]
    )
    assert (config.train.lr, config.gate.noisy, config.data.validation) == (1e-5, False, None)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    assert "1e-05" in file.read_text()
    assert run_config(file, []) == config
    for empty in ("", "model:\ntrain:\n"):
        file.write_text(empty)
        assert run_config(file, []) == run_config(None, [])


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a/" * 3000, "a\0b"])
def test_a_name_that_no_file_can_have_names_none(name):
    with pytest.raises(UserError, match=r"^no sweep file ") as error:
        load_sweep(name)
    assert len(str(error.value)) < 800
