"""The load loss: the contract, by hand, against loops, against the form with one threshold an image."""

import math

import pytest
import torch

from moe.balancing.load import LoadLoss, smooth_load
from moe.balancing.options import LoadConfig
from moe.config import from_flat
from moe.errors import UserError
from moe.gates.base import keep_top_k
from moe.gates.noisy_top_k import NoisyTopKGate
from moe.gates.options import NoisyTopKConfig
from moe.routing import Routing
from moe.testing import BalancingContract


def routing_of(logits, noise, scale, top_k):
    noisy = logits + noise * scale
    return Routing(logits, *keep_top_k(noisy, top_k), noisy, scale)


class TestLoad(BalancingContract):
    def config(self):
        return LoadConfig()

    def routing(self, logits_BE):
        """Noise that is a smooth function of the logits, so that it is numbered with them and small steps are."""
        return routing_of(logits_BE, (5 * logits_BE).sin(), 0.5 + logits_BE.cos().square(), 2)


def phi(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def slow_load(logits, noisy, scale, top_k):
    """Appendix A, an image and an expert at a time."""
    loads = [0.0] * len(logits[0])
    for logits_of, noisy_of, scale_of in zip(logits, noisy, scale, strict=True):
        for expert, (logit, sd) in enumerate(zip(logits_of, scale_of, strict=True)):
            others = sorted((score for other, score in enumerate(noisy_of) if other != expert), reverse=True)
            loads[expert] += phi((logit - others[top_k - 1]) / sd)
    return loads


def slow_loss(logits, noisy, scale, top_k):
    loads = slow_load(logits, noisy, scale, top_k)
    mean = sum(loads) / len(loads)
    return sum((load - mean) ** 2 for load in loads) / len(loads) / mean**2


def drawn(experts=5, images=7):
    generator = torch.Generator().manual_seed(0)
    logits, noise, raw = torch.randn(3, images, experts, generator=generator, dtype=torch.float64)
    return logits, noise, torch.nn.functional.softplus(raw)


def test_by_hand():
    # H = 2, 1.5, 0, k = 1: thresholds 1.5, 2, 2; l - threshold = 0.5, -1, -2 in units of sd 0.5, 1, 2: 1, -1, -1
    routing = Routing(
        torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0]]), torch.ones(1, 1),
        torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([[0.5, 1.0, 2.0]]),
    )  # fmt: skip
    high, low = 0.8413447, 0.1586553
    torch.testing.assert_close(smooth_load(routing), torch.tensor([high, low, low]))
    mean = (high + 2 * low) / 3
    variance = ((high - mean) ** 2 + 2 * (low - mean) ** 2) / 3
    assert LoadLoss(LoadConfig())(routing).item() == pytest.approx(variance / mean**2, rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_values_and_gradients_are_those_of_loops(top_k):
    logits, noise, scale = drawn()
    parts = [logits, logits + noise * scale, scale]
    leaves = [part.clone().requires_grad_() for part in parts]
    loss = LoadLoss(LoadConfig())(Routing(leaves[0], *keep_top_k(leaves[1].detach(), top_k), leaves[1], leaves[2]))
    assert loss.item() == pytest.approx(slow_loss(*(part.tolist() for part in parts), top_k), rel=1e-12)
    loss.backward()
    step = 1e-6
    for number, leaf in enumerate(leaves):
        for image, expert in [(0, 0), (3, 2), (6, 4)]:
            moved = []
            for sign in (1, -1):
                changed = [part.clone() for part in parts]
                changed[number][image, expert] += sign * step
                moved.append(slow_loss(*(part.tolist() for part in changed), top_k))
            slope = (moved[0] - moved[1]) / (2 * step)
            assert leaf.grad[image, expert].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_one_threshold_an_image_is_the_same_for_experts_that_were_not_chosen():
    """A common form compares all with the k-th score of all. It lacks "excluding": chosen experts come out lower."""
    logits, noise, scale = drawn(images=1)
    routing = routing_of(logits, noise, scale, 2)
    common = torch.special.ndtr((logits - routing.noisy.topk(2, dim=1).values[:, 1:]) / scale)[0]
    chosen = torch.zeros(5, dtype=torch.bool).index_fill(0, routing.indices[0], value=True)
    ours = smooth_load(routing)
    torch.testing.assert_close(ours[~chosen], common[~chosen])
    assert (ours[chosen] > common[chosen]).all()


def test_the_load_is_what_experts_get_when_their_own_noise_is_drawn_again():
    logits, noise, scale = drawn(images=1)
    routing = routing_of(logits, noise, scale, 2)
    generator = torch.Generator().manual_seed(1)
    for expert in range(5):
        noisy = routing.noisy.repeat(20_000, 1)
        noisy[:, expert] = logits[0, expert] + scale[0, expert] * torch.randn(20_000, generator=generator).double()
        share = (noisy.topk(2, dim=1).indices == expert).any(dim=1).double().mean()
        assert smooth_load(routing)[expert].item() == pytest.approx(share.item(), abs=0.015)  # 4 standard errors


def test_little_noise_gives_the_loads_themselves_and_so_does_none():
    logits, noise, _ = drawn()
    routing = routing_of(logits, noise, torch.full_like(logits, 1e-9), 2)
    torch.testing.assert_close(smooth_load(routing), routing.load().double())
    assert torch.equal(smooth_load(Routing(*routing[:3])), routing.load().double())


def test_all_experts_chosen_is_even_whatever_the_noise():
    logits, noise, scale = drawn()
    logits.requires_grad_()
    loss = LoadLoss(LoadConfig())(routing_of(logits, noise, scale, 5))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_the_gradient_reaches_both_branches_of_the_noisy_gate():
    gate = NoisyTopKGate(3, 2, 4, 2, NoisyTopKConfig()).train()
    LoadLoss(LoadConfig())(gate(torch.randn(6, 3, 4, 4))).backward()
    assert gate.logits[-1].weight.grad.abs().sum() > 0
    assert gate.noise[-1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("gate", [{"gate.kind": "cosine"}, {"gate.kind": "top_k"}, {"gate.noisy": False}])
def test_gates_without_noise_are_refused_in_one_sentence(gate):
    from_flat({"loss.load_weight": 0.1})
    from_flat(gate | {"loss.load_weight": 0.0})
    with pytest.raises(UserError, match=r"^loss.load_weight=0.1 needs the noise of gate.kind=noisy_top_k") as caught:
        from_flat(gate | {"loss.load_weight": 0.1})
    assert "\n" not in str(caught.value)
