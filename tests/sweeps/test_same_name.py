"""A sweep launched again under its name: the same file goes on, one that asks for more adds, any other is refused."""

import json
import threading

import pytest
from typer.testing import CliRunner

from cli import app
from moe.errors import UserError
from sweeps import launching
from sweeps.launching import growth, plan, register_planned
from sweeps.queue.opening import names, open_sweep
from sweeps.runs.folders import HomeFolder, home
from sweeps.runs.lock import locked
from tests.conftest import TINY, tiny_store

BAYES = {"method": "bayes", "metric": {"name": "val/loss"}, "run_cap": 3}
CHOICES = {"model.experts": {"values": [2, 4]}, "train.lr": {"min": 0.001, "max": 0.01}}


def written(tmp_path, parameters, **top):
    fixed = {path: {"value": value} for path, value in TINY.items() if path not in parameters}
    file = tmp_path / "little.yaml"
    file.write_text(json.dumps({"method": "grid", "parameters": fixed | parameters, "name": "little"} | top))
    return str(file)


def launched(tmp_path, parameters, **top):
    return register_planned(*plan(written(tmp_path, parameters, **top)))


def grows(tmp_path, parameters, **top):
    return growth(*plan(written(tmp_path, parameters, **top)))


def seeds(*values):
    return {"seed": {"values": list(values)}}


def test_the_same_file_goes_on(tmp_path):
    first = launched(tmp_path, seeds(0, 1))
    assert grows(tmp_path, seeds(0, 1)) is None
    assert launched(tmp_path, seeds(0, 1)) == first


def test_a_file_that_asks_for_more_adds_cells_and_says_so(tmp_path):
    launched(tmp_path, seeds(0, 1))
    said = 'sweep little grows by 1 to 3 cells: seed: {"values": [0, 1]} -> {"values": [0, 1, 2]}'
    assert grows(tmp_path, seeds(0, 1, 2)) == said
    assert len(launched(tmp_path, seeds(0, 1, 2)).cells) == 3


def test_settings_of_the_machine_make_no_other_sweep(tmp_path):
    launched(tmp_path, seeds(0, 1))
    assert grows(tmp_path, seeds(0, 1) | {"machine.threads": {"value": 2}}) is None


CHANGES = {
    "another fixed value": (
        seeds(0), seeds(0) | {"train.epochs": {"value": 3}}, 'train.epochs: {"value": 2} -> {"value": 3}',
    ),
    "a cell that is gone": (seeds(0, 1), seeds(0), 'seed: {"values": [0, 1]} -> {"values": [0]}'),
    "a parameter that is gone": (
        seeds(0) | {"train.min_lr": {"value": 0.0001}}, seeds(0), 'train.min_lr: {"value": 0.0001} -> nothing',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "words"), CHANGES.values(), ids=CHANGES)
def test_another_file_under_the_name_is_refused_in_words(tmp_path, before, after, words):
    first = launched(tmp_path, before)
    with pytest.raises(UserError) as caught:
        launched(tmp_path, after)
    assert words in str(caught.value)
    assert "--name little-2" in str(caught.value)
    assert open_sweep("little") == first  # nothing was replaced


SEARCHES = {
    "another fixed value": ({"train.epochs": {"value": 3}}, {}, 'train.epochs: {"value": 2} -> {"value": 3}'),
    "other images": ({"data.name": {"value": "other"}}, {}, 'data.name: {"value": "tiny"} -> {"value": "other"}'),
    "another range": ({"train.lr": {"min": 0.001, "max": 0.1}}, {}, '"max": 0.01} -> '),
    "fewer runs": ({}, {"run_cap": 2}, "run_cap: 3 -> 2"),
    "another goal": ({}, {"metric": {"name": "val/objective"}}, 'metric: {"name": "val/loss"} -> '),
    "an early end": ({}, {"early_terminate": {"type": "hyperband", "min_iter": 1}}, "early_terminate: nothing -> "),
}


@pytest.mark.parametrize(("parameters", "top", "words"), SEARCHES.values(), ids=SEARCHES)
def test_a_search_holds_runs_of_one_recipe(tmp_path, parameters, top, words):
    launched(tmp_path, CHOICES, **BAYES)
    for attempt in (grows, launched):
        with pytest.raises(UserError) as caught:
            attempt(tmp_path, CHOICES | parameters, **(BAYES | top))
        assert words in str(caught.value)


def test_a_search_may_have_more_runs(tmp_path):
    launched(tmp_path, CHOICES, **BAYES)
    assert grows(tmp_path, CHOICES, **(BAYES | {"run_cap": 5})) == "sweep little grows by 2 to 5 cells: run_cap: 3 -> 5"
    assert len(launched(tmp_path, CHOICES, **(BAYES | {"run_cap": 5})).cells) == 5


@pytest.mark.parametrize("words", [["--dry-run"], ["--dry-run", "--json"], ["--backend", "local"]])
def test_the_command_refuses_it_and_a_plan_does_too(tmp_path, words):
    tiny_store()
    launched(tmp_path, seeds(0, 1))
    said = CliRunner().invoke(app, ["sweep", "launch", written(tmp_path, seeds(0)), *words])
    assert isinstance(said.exception, UserError)
    assert "was launched with another file" in str(said.exception)


def test_under_a_name_of_its_own_it_is_another_sweep(tmp_path):
    launched(tmp_path, seeds(0, 1))
    file = written(tmp_path, seeds(0))
    said = CliRunner().invoke(app, ["sweep", "launch", file, "--dry-run", "--json", "--name", "little-2"])
    assert json.loads(said.stdout)["sweep"] == "little-2"
    other = register_planned(*plan(file, name="little-2"))
    assert (other.name, other.raw["name"]) == ("little-2", "little-2")
    assert names() == ["little", "little-2"]
    with pytest.raises(UserError, match="--name:1: name "):
        plan(file, name="../x")


def test_another_machine_on_the_same_storage_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_STORAGE", f"sqlite:///{tmp_path / 'shared.db'}")
    launched(tmp_path, seeds(0, 1))
    monkeypatch.setenv("MOE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="was launched with another file"):
        launched(tmp_path, seeds(0))
    assert names() == []
    assert len(launched(tmp_path, seeds(0, 1)).cells) == 2


def test_of_two_launches_at_once_one_takes_the_name(tmp_path, monkeypatch):
    """The other one comes between the first one's look whether the name is free and its taking it."""
    first, second = (plan(written(tmp_path, seeds(*values))) for values in ((0, 1), (5, 6)))
    refused, real = [], launching.write_down

    def other():
        try:
            register_planned(*second)
        except UserError as error:
            refused.append(str(error))

    thread = threading.Thread(target=other)

    def in_between(sweep):
        monkeypatch.setattr(launching, "write_down", real)
        thread.start()
        thread.join(0.5)  # it must wait; without that it is done by now
        return real(sweep)

    monkeypatch.setattr(launching, "write_down", in_between)
    register_planned(*first)
    thread.join()
    assert len(refused) == 1
    assert 'seed: {"values": [0, 1]} -> {"values": [5, 6]}' in refused[0]
    assert [cell.values["seed"] for cell in open_sweep("little").cells] == [0, 1]


def test_a_launch_that_does_not_come_to_its_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "_PATIENCE", 0.0)
    with locked(HomeFolder().launching), pytest.raises(UserError, match=r"another launch into .* does not come to an"):
        launched(tmp_path, seeds(0))
    assert names() == []


def test_a_launch_whose_storage_is_away_leaves_nothing(tmp_path):
    sweep, cells = plan(written(tmp_path, seeds(0)))
    (tmp_path / "a file").touch()
    with pytest.raises((UserError, OSError)):
        register_planned(sweep, cells, storage=f"sqlite:///{tmp_path / 'a file' / 'shared.db'}")
    assert names() == []
    assert not (home() / "sweeps" / "little").exists()
    assert len(launched(tmp_path, seeds(0, 1)).cells) == 2


def test_what_is_said_can_be_typed_though_the_name_has_a_space(tmp_path):
    launched(tmp_path, seeds(0, 1), name="two words")
    with pytest.raises(UserError, match="--name 'two words-2'"):
        launched(tmp_path, seeds(0), name="two words")
