"""Models kept after chosen epochs: what they hold, that they change nothing, and that probes find them."""

import shutil

import pytest
import safetensors.torch
import torch

from moe.config import MachineConfig
from moe.errors import UserError
from probes.baselines import initial_snapshot
from probes.epochs import checkpoint_snapshots, training_snapshots
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_place


def silent(_line):
    """Take reports, print nothing."""


def test_which_epochs_are_kept():
    assert MachineConfig().kept_of(100) == frozenset()
    assert MachineConfig(keep_epochs=(7, 0, 200)).kept_of(100) == {0, 7}
    assert MachineConfig(keep_epochs="log").kept_of(100) == {0, 1, 2, 5, 10, 20, 50, 100}
    assert MachineConfig(keep_epochs="log").kept_of(3) == {0, 1, 2}


@pytest.mark.parametrize("value", [(-1,), "all", 3])
def test_what_is_no_list_of_epochs_is_refused(value):
    with pytest.raises(ValueError, match="keep_epochs"):
        MachineConfig(keep_epochs=value)


def test_what_is_kept_is_no_part_of_the_id():
    assert tiny_config(machine__keep_epochs="log").identity() == tiny_config().identity()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run of two epochs that kept the untrained model and the first epoch's."""
    with tiny_place(tmp_path_factory.mktemp("kept")) as runs:
        yield train(tiny_config(machine__keep_epochs=(0, 1, 9)), runs, report=silent)


def weights(snapshot):
    return snapshot.model.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_kept_models_are_those_of_their_epochs(kept):
    assert list(kept.kept_models()) == [0, 1]
    assert {file.name for file in kept.kept_model(1).iterdir()} == {"model.safetensors", "model.json"}
    untrained, first = (safetensors.torch.load_file(kept.kept_model(e) / "model.safetensors") for e in (0, 1))
    assert same(untrained, weights(initial_snapshot(kept)))
    assert same(first, weights(checkpoint_snapshots(kept, silent)[0]))
    assert [file.name for file in kept.path.rglob(".*")] == []


@pytest.mark.slow
def test_probes_over_training_have_them(kept, tmp_path):
    run = type(kept)(shutil.copytree(kept.path, tmp_path / kept.id))
    snapshots = training_snapshots(run, silent)
    assert [snapshot.epoch for snapshot in snapshots] == [0, 1, 2]
    assert snapshots[1].card.epoch == 1  # the kept model, not the checkpoint
    run.epoch_checkpoint(1).unlink()
    assert [snapshot.epoch for snapshot in training_snapshots(run, silent)] == [0, 1, 2]
    lines = []
    (run.kept_model(1) / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"models of 1 trained epochs .*machine\.keep_epochs"):
        training_snapshots(run, lines.append)
    assert len(lines) == 1
    assert "missing or differs from the checksum" in lines[0]
    assert lines[0].endswith("it is left out")
