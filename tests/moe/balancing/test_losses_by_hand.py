"""Balancing losses: the contract, and each by hand."""

import math

import pytest
import torch

from moe.balancing.entropy import EntropyLoss
from moe.balancing.options import EntropyConfig, ImportanceConfig, SwitchConfig, ZConfig
from moe.balancing.switch import SwitchLoss
from moe.balancing.z import ZLoss
from moe.routing import Routing
from moe.testing import BalancingContract

LOG3 = math.log(3)


class TestImportance(BalancingContract):
    def config(self):
        return ImportanceConfig()


class TestSwitch(BalancingContract):
    def config(self):
        return SwitchConfig()


class TestZ(BalancingContract):
    def config(self):
        return ZConfig()


class TestEntropy(BalancingContract):
    def config(self):
        return EntropyConfig()


def routing(logits, indices):
    logits, indices = torch.tensor(logits), torch.tensor(indices)
    return Routing(logits, indices, torch.full(indices.shape, 1 / indices.shape[1]))


def test_switch_by_hand():
    # probabilities 3/4 1/4, 3/4 1/4, 1/2 1/2: mean 2/3, 1/3; chosen 0, 0, 1: shares 2/3, 1/3
    loss = SwitchLoss(SwitchConfig())(routing([[LOG3, 0.0], [LOG3, 0.0], [0.0, 0.0]], [[0], [0], [1]]))
    assert loss.item() == pytest.approx(2 * (2 / 3 * 2 / 3 + 1 / 3 * 1 / 3))


@pytest.mark.parametrize("top_k", [1, 2])
def test_switch_is_the_published_sum_in_a_loop(top_k):
    """Equations 4 to 6, image by image; a choice counts 1 / k, so that shares sum to 1 for any k."""
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = logits.topk(top_k, dim=1).indices
    total = 0.0
    for expert in range(4):
        share = sum(row.count(expert) / top_k for row in chosen.tolist()) / 9
        mean = sum(math.exp(row[expert]) / sum(math.exp(value) for value in row) for row in logits.tolist()) / 9
        total += share * mean
    loss = SwitchLoss(SwitchConfig())(Routing(logits, chosen, torch.full((9, top_k), 1 / top_k)))
    assert loss.item() == pytest.approx(4 * total, rel=1e-12)


def test_switch_is_1_when_even_and_e_when_all_is_one_experts():
    even = routing([[0.0] * 4] * 4, [[0], [1], [2], [3]])
    assert SwitchLoss(SwitchConfig())(even).item() == pytest.approx(1)
    one = routing([[50.0, 0.0, 0.0, 0.0]] * 4, [[0]] * 4)
    assert SwitchLoss(SwitchConfig())(one).item() == pytest.approx(4)


def test_the_gradient_of_switch_by_hand():
    # d/dl of E f.P with P = mean softmax: E / B * p_e (f_e - sum_j p_j f_j)
    logits = torch.tensor([[LOG3, 0.0], [0.0, 0.0]], requires_grad=True)
    SwitchLoss(SwitchConfig())(Routing(logits, torch.tensor([[0], [0]]), torch.ones(2, 1))).backward()
    expected = [[3 / 4 * (1 - 3 / 4), 1 / 4 * (0 - 3 / 4)], [1 / 2 * (1 - 1 / 2), 1 / 2 * (0 - 1 / 2)]]
    torch.testing.assert_close(logits.grad, torch.tensor(expected))


def test_z_by_hand():
    loss = ZLoss(ZConfig())(routing([[0.0, 0.0], [LOG3, 0.0]], [[0], [0]]))
    assert loss.item() == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2)


def test_entropy_by_hand():
    # 3/4 1/4 and 1/4 3/4: entropy of an image H(1/4), of the mean log 2
    loss = EntropyLoss(EntropyConfig())(routing([[LOG3, 0.0], [0.0, LOG3]], [[0], [1]]))
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert loss.item() == pytest.approx((quarter - math.log(2)) / math.log(2))


@pytest.mark.parametrize(
    ("logits", "value"),
    [
        ([[60.0, 0.0], [0.0, 60.0]], -1),  # decisive and even
        ([[60.0, 0.0], [60.0, 0.0]], 0),  # decisive, collapsed
        ([[0.0, 0.0], [0.0, 0.0]], 0),  # even, undecided
        ([[1.0], [2.0]], 0),  # a single expert
    ],
)
def test_what_entropy_is_at_its_ends(logits, value):
    assert EntropyLoss(EntropyConfig())(routing(logits, [[0], [0]])).item() == pytest.approx(value, abs=1e-6)
