"""A run beside other processes gives up threads, says so, records it, and can be told not to."""

import pytest
import torch

from moe.config import MachineConfig
from moe.threads import SpareCores
from sweeps.runs.store import RunStore
from sweeps.training.cores import may_change_threads
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store


@pytest.mark.parametrize(
    ("machine", "may"),
    [
        ({"device": "cpu"}, True),
        ({"device": "cpu", "threads": 2}, False),
        ({"device": "cpu", "deterministic": True}, False),
        ({"device": "cpu", "devices": 2}, False),
    ],
)
def test_who_asks_for_the_last_bits_gets_them(machine, may):
    assert may_change_threads(MachineConfig(**machine)) is may


@pytest.fixture
def crowded(monkeypatch):
    """Two threads, and others who come before the third step and go before the sixth."""
    before, looks = torch.get_num_threads(), []
    torch.set_num_threads(2)

    def look(self):
        looks.append(self.present)
        wanted = 1 if 3 <= self.training_steps() < 6 else 2
        if wanted != self.present:
            self.present = wanted
            torch.set_num_threads(wanted)
            self._changed(wanted)

    monkeypatch.setattr(SpareCores, "look", look)
    monkeypatch.setattr(SpareCores, "training_steps", lambda _self: len(looks) - 1, raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_steps_are_recorded_by_threads_and_the_change_is_said(crowded, tmp_path):
    """A look before each of 2 x 3 training steps and of 3 x 3 validation steps, three of these before training."""
    tiny_store()
    lines = []
    run = train(tiny_config(), RunStore(tmp_path / "runs"), report=lines.append)
    assert run.provenance["threads"] == 2
    assert run.provenance["steps_by_threads"] == {"1": 3, "2": 3}
    assert any(line.startswith("other processes keep this machine's cores busy: 1 of 2 threads") for line in lines)
    assert "2 threads again" in lines
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_a_fixed_number_of_threads_is_kept(crowded, tmp_path):
    tiny_store()
    lines = []
    run = train(tiny_config(machine__threads=2), RunStore(tmp_path / "runs"), report=lines.append)
    assert "steps_by_threads" not in run.provenance
    assert not [line for line in lines if "threads until" in line or "threads again" in line]
