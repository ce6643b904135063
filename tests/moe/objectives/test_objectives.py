"""Objectives: the contract, and each against arithmetic done another way."""

import math

import pytest
import torch

from moe.objectives.contrastive import Contrastive
from moe.objectives.options import ContrastiveConfig, SupervisedConfig
from moe.objectives.supervised import Supervised
from moe.testing import ObjectiveContract


def data(count=6, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, count, size, generator=generator)
    return a.requires_grad_(), b.requires_grad_(), torch.arange(count) % 3


class TestContrastive(ObjectiveContract):
    def config(self):
        return ContrastiveConfig()


class TestSupervised(ObjectiveContract):
    def config(self):
        return SupervisedConfig()


def test_contrastive_training_needs_no_labels():
    a, b, labels = data()
    torch.manual_seed(0)
    objective = Contrastive(8, 0, ContrastiveConfig()).eval()
    assert objective(a, b, labels).loss == objective(a, b, torch.full_like(labels, -1)).loss


def test_cross_entropy_and_accuracy_by_hand():
    objective = Supervised(2, 2, SupervisedConfig())
    with torch.no_grad():
        objective.classifier.weight.copy_(torch.eye(2))
        objective.classifier.bias.zero_()
    a = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])  # probabilities 3/4, 1/4 and 1/2, 1/2
    b = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])  # 1/4, 3/4 twice
    loss, metrics = objective(a, b, torch.tensor([0, 1]))
    expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4) + math.log(3 / 4)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert metrics["accuracy"].item() == pytest.approx(2 / 4)  # right, a tie that goes to class 0, wrong, right
