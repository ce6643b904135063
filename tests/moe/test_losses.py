"""Losses against hand-worked numbers and slow loops."""

import math

import pytest
import torch

from moe.losses import importance_cv2, nt_xent


def slow_nt_xent(a, b, temperature):
    """Equation 1 of Chen et al. 2020, one anchor and one candidate at a time."""
    rows = [row.double() / row.double().norm() for row in [*a, *b]]
    count, total = len(a), 0.0
    for i, anchor in enumerate(rows):
        partner = (i + count) % (2 * count)
        terms = [math.exp(float(anchor @ other) / temperature) for j, other in enumerate(rows) if j != i]
        total += -math.log(math.exp(float(anchor @ rows[partner]) / temperature) / sum(terms))
    return total / (2 * count)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("count", [2, 3, 17])
def test_nt_xent_equals_the_loop(count, temperature):
    generator = torch.Generator().manual_seed(count)
    a, b = (torch.randn(count, 5, generator=generator) * 3 for _ in range(2))
    assert nt_xent(a, b, temperature).item() == pytest.approx(slow_nt_xent(a, b, temperature), rel=1e-5, abs=1e-6)


def test_nt_xent_by_hand():
    # two images, their views equal, orthogonal to each other: each anchor sees its partner (similarity 1) and two
    # others (0), so the loss is log(1 + 2 exp(-1 / tau))
    views = torch.eye(2)
    assert nt_xent(views, views, 0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), rel=1e-6)


def test_nt_xent_of_identical_projections_is_the_untrained_level():
    same = torch.ones(8, 4)
    assert nt_xent(same, same, 0.5).item() == pytest.approx(math.log(2 * 8 - 1), rel=1e-6)


def test_nt_xent_ignores_scale_and_order_of_views():
    a, b = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.eye(6)[:, :4] + 0.1
    assert nt_xent(a * 7, b / 3, 0.5).item() == pytest.approx(nt_xent(b, a, 0.5).item(), rel=1e-5)


def test_losses_are_float32_under_autocast():
    a = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(a.bfloat16(), a.bfloat16() * 2, 0.5)
        balance = importance_cv2(torch.rand(8, 4, generator=torch.Generator().manual_seed(2)))
    assert inside.dtype == balance.dtype == torch.float32
    assert inside.item() == pytest.approx(nt_xent(a.bfloat16().float(), a.bfloat16().float(), 0.5).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[1.0, 0.0, 0.0, 0.0]] * 5, 3.0),  # collapsed: E - 1
        ([[0.75, 0.25], [0.75, 0.25]], 0.25),  # importances 1.5 and 0.5: variance 0.25, mean 1
    ],
)
def test_importance_by_hand(gates, expected):
    assert importance_cv2(torch.tensor(gates)).item() == pytest.approx(expected, abs=1e-6)


def test_importance_pushes_gates_towards_balance():
    gates = torch.tensor([[0.9, 0.1], [0.8, 0.2]], requires_grad=True)
    importance_cv2(gates).backward()
    assert (gates.grad[:, 0] > 0).all()
    assert (gates.grad[:, 1] < 0).all()
