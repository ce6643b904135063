"""The cosine gate by hand, and what its equation promises."""

import math

import pytest
import torch

from moe.gates.cosine import CosineGate
from moe.gates.options import CosineConfig
from moe.testing import GateContract


class TestContract(GateContract):
    def config(self):
        return CosineConfig(directions=3)


@pytest.fixture
def gate():
    """Two experts along the axes of a plane; latents stand for directions themselves."""
    gate = CosineGate(2, 3, 2, 2, CosineConfig(directions=2, start_temperature=0.5)).eval()
    gate.direction = torch.nn.Flatten()
    with torch.no_grad():
        gate.expert_ED.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.1]]))
    return gate


def test_logits_by_hand(gate):
    routing = gate(torch.tensor([[3.0, 4.0]]).view(1, 2, 1, 1))
    torch.testing.assert_close(routing.logits, torch.tensor([[1.2, 1.6]]))  # 3/5 and 4/5 over 0.5
    assert routing.indices.tolist() == [[1, 0]]
    share = 1 / (1 + math.exp(-0.4))
    torch.testing.assert_close(routing.weights, torch.tensor([[share, 1 - share]]))


def test_lengths_play_no_part(gate):
    h = torch.randn(5, 2, 1, 1)
    before = gate(h).logits
    with torch.no_grad():
        gate.expert_ED.mul_(torch.tensor([[7.0], [0.01]]))
    torch.testing.assert_close(gate(100 * h).logits, before)
    assert before.abs().max() <= 1 / 0.5 + 1e-6


def test_the_temperature_is_learnt_and_stays_positive(gate):
    gate(torch.randn(5, 2, 1, 1)).weights[:, 0].sum().backward()
    assert gate.log_temperature.grad != 0
    assert CosineGate(2, 3, 2, 2, CosineConfig()).log_temperature.exp().item() == pytest.approx(0.3)
