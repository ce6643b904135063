"""Objectives: the contract, and each against arithmetic done another way."""

import math

import pytest
import torch

from moe.config import LossConfig
from moe.objectives import OBJECTIVES


def data(count=6, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, count, size, generator=generator)
    return a.requires_grad_(), b.requires_grad_(), torch.arange(count) % 3


@pytest.mark.parametrize("name", OBJECTIVES)
class TestContract:
    def make(self, name):
        torch.manual_seed(0)
        return OBJECTIVES[name](8, 3, LossConfig())

    def test_a_finite_float32_scalar_with_gradients(self, name):
        a, b, labels = data()
        loss, metrics = self.make(name)(a, b, labels)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        loss.backward()
        assert a.grad.abs().sum() > 0
        assert b.grad.abs().sum() > 0
        assert all(value.shape == () for value in metrics.values())

    def test_float32_whatever_the_autocast(self, name):
        a, b, labels = data()
        with torch.autocast("cpu", torch.bfloat16):
            assert self.make(name)(a, b, labels).loss.dtype == torch.float32

    def test_views_are_exchangeable(self, name):
        a, b, labels = data()
        objective = self.make(name).eval()
        torch.testing.assert_close(objective(a, b, labels).loss, objective(b, a, labels).loss)

    def test_it_says_whether_it_needs_labels(self, name):
        assert OBJECTIVES[name].needs_labels in (True, False)


def test_contrastive_training_needs_no_labels():
    a, b, labels = data()
    torch.manual_seed(0)
    objective = OBJECTIVES["contrastive"](8, 0, LossConfig()).eval()
    assert objective(a, b, labels).loss == objective(a, b, torch.full_like(labels, -1)).loss


def test_cross_entropy_and_accuracy_by_hand():
    objective = OBJECTIVES["supervised"](2, 2, LossConfig())
    with torch.no_grad():
        objective.classifier.weight.copy_(torch.eye(2))
        objective.classifier.bias.zero_()
    a = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # probabilities 3/4, 1/4 and 1/2, 1/2
    b = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])  # 1/4, 3/4 twice
    loss, metrics = objective(a, b, torch.tensor([0, 1]))
    expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4) + math.log(3 / 4)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert metrics["accuracy"].item() == pytest.approx(2 / 4)  # right, a tie that goes to class 0, wrong, right
