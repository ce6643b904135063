"""Experts are chosen in float32, whatever the precision of the convolutions: logits where half precision errs."""

import pytest
import torch
from torch.nn import functional as F

from moe.gates.noisy_top_k import NoisyTopKGate
from moe.gates.options import NoisyTopKConfig

IMAGES, CHANNELS, HIDDEN, EXPERTS, TOP_K = 2000, 8, 16, 8, 2
HALVES = [torch.bfloat16, torch.float16]


def close_race():
    """A gate whose logits lie around 4, a few thousandths apart: half precision there has steps of 1/64 and 1/512."""
    torch.manual_seed(0)
    gate = NoisyTopKGate(CHANNELS, HIDDEN, EXPERTS, TOP_K, NoisyTopKConfig())
    with torch.no_grad():
        for branch in (gate.logits, gate.noise):
            branch[-1].weight.mul_(0.02)
            branch[-1].bias.copy_(4 + 0.002 * torch.arange(EXPERTS))
    return gate


def latents():
    return torch.randn(IMAGES, CHANNELS, 6, 6, generator=torch.Generator().manual_seed(1))


def in_double(branch, h, half):
    """What the branch's convolution makes of the latents in half precision, and everything after it in float64."""
    with torch.autocast("cpu", half):
        x = branch[2](branch[1](branch[0](h)))
    assert x.dtype == half
    return x.double().mean(dim=(2, 3)) @ branch[-1].weight.double().T + branch[-1].bias.double()


def sets(indices):
    return [frozenset(row) for row in indices.tolist()]


def differing(scores, indices):
    chosen = scores.topk(TOP_K, dim=1).indices
    return sum(a != b for a, b in zip(sets(chosen), sets(indices), strict=True)) / len(indices)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_experts_are_those_of_exact_arithmetic_after_the_convolution(half, training):
    gate, h = close_race().train(training), latents()
    noise = 0.01 * torch.randn(IMAGES, EXPERTS, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", half):
        routing = gate(h, noise)
    assert {part.dtype for part in (routing.logits, routing.weights)} == {torch.float32}
    logits = in_double(gate.logits, h, half)
    scores = logits + noise * F.softplus(in_double(gate.noise, h, half)) if training else logits
    torch.testing.assert_close(routing.logits.double(), logits, rtol=1e-6, atol=1e-6)
    assert differing(scores, routing.indices) < 0.002  # two logits within float32's own rounding
    # the test has teeth: with logits in half precision many images would go elsewhere
    rounded = logits.to(half).double() + (noise * F.softplus(in_double(gate.noise, h, half)) if training else 0)
    assert differing(scores, rounded.topk(TOP_K, dim=1).indices) > 0.01


@pytest.mark.parametrize("half", HALVES)
@torch.no_grad()
def test_no_ties_where_logits_differ(half):
    """In half precision a good part of the images ties at the boundary between the second expert and the third."""
    gate, h = close_race().eval(), latents()
    with torch.autocast("cpu", half):
        logits = gate(h).logits

    def tied(values):
        best = values.sort(dim=1, descending=True).values
        return (best[:, TOP_K - 1] == best[:, TOP_K]).double().mean().item()

    assert tied(logits) < 0.001
    assert tied(logits.to(half)) > 0.01


@torch.no_grad()
def test_float32_is_as_it_was():
    """Without autocast the branch is its layers one after another, to the bit; float64 stays float64."""
    gate, h = close_race().eval(), latents()
    assert torch.equal(gate(h).logits, torch.nn.Sequential(*gate.logits)(h))
    assert gate.double()(h.double()).logits.dtype == torch.float64


@pytest.mark.parametrize("half", HALVES)
def test_gradients_reach_the_convolution(half):
    gate = close_race().train()
    with torch.autocast("cpu", half):
        routing = gate(latents()[:16])
    routing.weights[:, 0].sum().backward()
    for branch in (gate.logits, gate.noise):
        assert branch[0].weight.grad.abs().sum() > 0
        assert branch[-1].weight.grad.dtype == torch.float32
