import json
import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from moe.config import (
    RunConfig,
    TrainConfig,
    flat,
    from_flat,
    is_number,
    nested,
    parameter_types,
    parse_assignments,
)
from moe.errors import UserError
from moe.section import Later


def test_defaults_are_the_papers_recipe():
    c = RunConfig()
    assert (c.model.experts, c.model.top_k, c.loss.temperature, c.loss.importance_weight) == (4, 2, 0.5, 0.1)
    assert (c.train.lr, c.train.min_lr, c.train.weight_decay, c.train.epochs) == (3e-4, 1e-6, 1e-5, 100)
    assert (c.train.batch_size, c.train.clip_norm, c.data.image_size, c.train.precision) == (256, 1.0, 96, "16-mixed")


def test_identity_changes_with_every_scientific_setting():
    changes = {
        "seed": 1, "model.experts": 8, "model.top_k": 1, "model.width": 0.5, "model.gate_after": 2,
        "model.constant_params": False, "gate.noisy": False, "loss.temperature": 0.1, "loss.importance_weight": 0.0,
        "augment.blur": 0.0, "train.epochs": 99, "train.batch_size": 128, "train.lr": 1e-3,
        "train.precision": "32-true", "data.name": "synthetic", "data.image_size": 64, "data.validation": "other",
    }  # fmt: skip
    ids = {from_flat({path: value}).identity() for path, value in changes.items()}
    assert len(ids) == len(changes)
    assert RunConfig().identity() not in ids


def test_identity_ignores_the_machine():
    assert from_flat({"machine.device": "cpu", "machine.threads": 3}).identity() == RunConfig().identity()


def test_identity_does_not_depend_on_how_a_value_is_written():
    assert from_flat({"loss.temperature": "0.5", "train.epochs": 100.0}).identity() == RunConfig().identity()


@pytest.mark.slow
def test_identity_is_the_same_in_another_process():
    code = "from moe.config import RunConfig; print(RunConfig().identity())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == RunConfig().identity()


def test_seed_0_is_a_seed_like_any_other():
    assert RunConfig(seed=0).scientific()["seed"] == 0
    assert RunConfig(seed=0).identity() != RunConfig(seed=1).identity()


def test_config_survives_json():
    config = from_flat({"model.experts": 8, "augment.crop_scale": [0.2, 1.0]})
    assert RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        RunConfig().seed = 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model.expert": 8}, ["unknown parameter", "model.expert", 'did you mean "model.experts"?']),
        ({"experts": 8}, ['did you mean "model.experts"?']),
        ({"model.experts": "four"}, ["model.experts='four'", "integer"]),
        ({"model.top_k": 9}, ["model.top_k=9 exceeds model.experts=4"]),
        ({"model.gate_after": 5}, ["model.gate_after=5"]),
        ({"gate.kind": "noisy"}, ["gate.kind", 'did you mean "noisy_top_k"?']),
        ({"loss.objective": "x"}, ["loss.objective", "known are: contrastive"]),
        ({"train.precision": "16"}, ["train.precision", "16-mixed"]),
        ({"augment.crop_scale": [1, 0.1]}, ["augment.crop_scale", "low <= high"]),
        ({"seed": -1}, ["seed=-1"]),
    ],
)
def test_a_mistake_gets_one_sentence(values, words):
    with pytest.raises(UserError) as caught:
        from_flat(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_paths_are_those_that_others_rely_on():
    fixed = """seed model.experts model.top_k model.width model.gate_after gate.noisy loss.temperature
        loss.importance_weight train.epochs train.batch_size train.precision data.name data.image_size"""
    assert set(fixed.split()) <= set(parameter_types())


def test_flat_and_nested_are_inverse():
    config = from_flat({"model.experts": 8, "seed": 3})
    assert RunConfig.model_validate(nested(flat(config))) == config


@pytest.mark.parametrize(
    ("path", "number"), [("train.lr", True), ("model.experts", True), ("machine.threads", True),
                         ("data.name", False), ("gate.noisy", False), ("data.validation", False)],
)  # fmt: skip
def test_which_parameters_take_numbers(path, number):
    assert is_number(parameter_types()[path]) is number


def test_assignments_are_read_as_yaml():
    pairs = ["model.experts=8", "gate.noisy=false", "data.name=synthetic", "data.validation=None"]
    values = parse_assignments(pairs)
    assert values == {"model.experts": 8, "gate.noisy": False, "data.name": "synthetic", "data.validation": None}


@pytest.mark.parametrize("name", ["2024", "007", "1e3", "2026-11-30", "on", "a+1", "None.png"])
def test_images_may_be_called_what_yaml_reads_as_something_else(name):
    assert parse_assignments([f"data.name={name}", f"data.validation={name}"]) == dict.fromkeys(
        ("data.name", "data.validation"), name
    )
    assert parse_assignments(["data.validation=null", 'data.name="a b"']) == {
        "data.validation": None,
        "data.name": "a b",
    }


def test_assignments_take_small_numbers_as_shells_write_them():
    assert from_flat(parse_assignments(["train.lr=1e-4"])).train.lr == 1e-4


@pytest.mark.parametrize("pair", ["model.experts", "model.nothing=3"])
def test_bad_assignments_are_refused(pair):
    with pytest.raises(UserError, match=r"KEY=VALUE|unknown parameter"):
        parse_assignments([pair])


def test_two_values_for_one_setting_are_refused():
    with pytest.raises(UserError, match=r"^--set: train\.lr is given twice, as 1e-3 and as 2e-3; leave one"):
        parse_assignments(["train.lr=1e-3", "seed=1", "train.lr=2e-3"], "--set: ")
    assert parse_assignments(["seed=1", "seed=1"]) == {"seed": 1}


class TestIdentityThatSurvivesGrowth:
    """An option that a later version adds renames no run that does not use it."""

    class Grown(TrainConfig):
        warmup: Annotated[int, Later(0)] = Field(5, ge=0, description="a later version's, on by default")

    def identity(self, train):
        return RunConfig().model_copy(update={"train": train}).identity()

    def test_with_the_value_that_means_as_before_the_id_is_that_of_before(self):
        assert self.identity(self.Grown(warmup=0)) == RunConfig().identity()
        assert self.identity(self.Grown(warmup=0, lr=1e-3)) == self.identity(TrainConfig(lr=1e-3))

    def test_any_other_value_is_another_run_the_default_too(self):
        ids = {self.identity(self.Grown(warmup=warmup)) for warmup in (0, 1, 5)}
        assert len(ids) == 3
        assert self.identity(self.Grown()) == self.identity(self.Grown(warmup=5))

    def test_what_an_objective_does_not_read_makes_no_other_run(self):
        supervised = from_flat({"loss.objective": "supervised"})
        for path, value in {"loss.temperature": 0.07, "loss.projection": 7}.items():
            other = from_flat({"loss.objective": "supervised", path: value})
            assert other == supervised
            assert other.unread([path]) == {path: "loss.objective=supervised"}
        assert supervised.hashed()["loss"] == {
            "objective": "supervised", "importance_weight": 0.1, "temperature": 0.5, "projection": 128
        }  # fmt: skip

    def test_an_option_that_no_gate_has_is_refused(self):
        with pytest.raises(UserError, match=r'unknown parameter "gate\.nosy": did you mean "gate\.noisy"'):
            from_flat({}, {"gate": {"nosy": True}})
