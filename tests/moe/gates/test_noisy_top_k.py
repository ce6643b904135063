"""The gate against Equations 2 and 3."""

import torch
from torch.nn import functional as F

from moe.gates.base import keep_top_k
from moe.gates.noisy_top_k import NoisyTopKGate
from moe.gates.options import NoisyTopKConfig
from moe.routing import Routing
from moe.testing import GateContract


def latents(count=6, channels=5, seed=0):
    return torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_keep_top_k_equals_softmax_with_minus_infinity():
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    for top_k in range(1, 6):
        indices, weights = keep_top_k(scores, top_k)
        masked = torch.full_like(scores, float("-inf"))
        for row in range(7):
            for expert in sorted(range(5), key=lambda e: -scores[row, e])[:top_k]:
                masked[row, expert] = scores[row, expert]
        dense = torch.zeros_like(scores).scatter(1, indices, weights)
        torch.testing.assert_close(dense, masked.softmax(dim=1))


def test_keep_top_k_by_hand():
    indices, weights = keep_top_k(torch.tensor([[0.0, 2.0, 1.0]]), 2)
    assert indices.tolist() == [[1, 2]]
    torch.testing.assert_close(weights, torch.tensor([[0.7310586, 0.2689414]]))  # 1 / (1 + exp(-1))


def test_evaluation_has_no_noise():
    gate = NoisyTopKGate(5, 3, 4, 2, NoisyTopKConfig()).eval()
    first, second = gate(latents()), gate(latents())
    for a, b in zip(first[:3], second[:3], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(first.gates().sum(dim=1), torch.ones(6))
    assert ((first.gates() > 0).sum(dim=1) == 2).all()
    torch.testing.assert_close(first.indices, first.logits.topk(2).indices)


def test_noise_has_the_scale_of_equation_3():
    gate = NoisyTopKGate(5, 3, 4, 4, NoisyTopKConfig()).train()
    h = latents(4000)
    torch.manual_seed(0)
    routing = gate(h)
    # with k = E the weights are a softmax of all noisy scores, which gives the scores back up to a constant
    noisy = routing.gates().log()
    noisy = noisy - noisy.mean(dim=1, keepdim=True)
    clean = routing.logits - routing.logits.mean(dim=1, keepdim=True)
    with torch.no_grad():
        scale = F.softplus(gate.noise(h))
    # centring over E experts leaves the variance of each noise e_i - mean(e)
    expected = scale.square() * (1 - 2 / 4) + scale.square().sum(dim=1, keepdim=True) / 16
    ratio = (noisy - clean).square().mean(dim=0) / expected.mean(dim=0)
    torch.testing.assert_close(ratio, torch.ones(4), atol=0.1, rtol=0)


def test_without_noise_training_is_deterministic_and_has_no_noise_branch():
    gate = NoisyTopKGate(5, 3, 4, 2, NoisyTopKConfig(noisy=False)).train()
    assert gate.noise is None
    assert torch.equal(gate(latents()).indices, gate(latents()).indices)


def test_logits_equal_equation_2_written_out():
    gate = NoisyTopKGate(5, 3, 4, 2, NoisyTopKConfig()).eval()
    convolution, norm, _, _, _, linear = gate.logits
    h = latents()
    y = F.conv2d(h, convolution.weight, padding=1)
    y = (y - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()
    y = y * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    expected = y.clamp_min(0).mean(dim=(2, 3)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(gate(h).logits, expected)


class TestContract(GateContract):
    def config(self):
        return NoisyTopKConfig()


class TestContractWithoutNoise(GateContract):
    def config(self):
        return NoisyTopKConfig(noisy=False)


def test_given_noise_is_scaled_and_added_as_equation_3_says():
    torch.manual_seed(0)
    gate = NoisyTopKGate(5, 3, 4, 4, NoisyTopKConfig()).train()
    h, noise = latents(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    routing = gate(h, noise)
    scale = torch.log1p(torch.exp(gate.noise(h)))
    expected = (gate.logits(h) + noise * scale).softmax(dim=1)  # k = E keeps all
    torch.testing.assert_close(routing.gates(), expected)


def test_load_and_importance_equal_loops_over_images():
    generator = torch.Generator().manual_seed(2)
    weights, indices = torch.rand(9, 5, generator=generator).topk(2)
    routing = Routing(torch.zeros(9, 5), indices, weights)
    load, importance = [0] * 5, [0.0] * 5
    for row in range(9):
        for slot in range(2):
            load[indices[row, slot]] += 1
            importance[indices[row, slot]] += float(weights[row, slot])
    assert routing.load().tolist() == load
    torch.testing.assert_close(routing.importance(), torch.tensor(importance))
