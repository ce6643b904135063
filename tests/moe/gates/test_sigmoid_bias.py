"""Loss-free balance: one step by hand, and a skewed gate that becomes even."""

import pytest
import torch

from moe.gates.options import SigmoidBiasConfig
from moe.gates.sigmoid_bias import SigmoidBiasGate
from moe.testing import GateContract

LOG3 = 1.0986123  # sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4


class TestContract(GateContract):
    def config(self):
        return SigmoidBiasConfig()


def gate_of(experts, top_k, rate):
    """A gate whose latents are its logits."""
    gate = SigmoidBiasGate(experts, 1, experts, top_k, SigmoidBiasConfig(bias_rate=rate))
    gate.logits = torch.nn.Flatten()
    return gate


def test_a_step_by_hand():
    gate = gate_of(3, 2, 0.1).train()
    h = torch.tensor([[LOG3, 0.0, -LOG3], [LOG3, 0.0, -LOG3]]).view(2, 3, 1, 1)
    routing = gate(h)
    assert routing.indices.tolist() == [[0, 1], [0, 1]]
    torch.testing.assert_close(routing.weights, torch.tensor([[0.6, 0.4]] * 2))  # 3/4 and 1/2 over 5/4
    torch.testing.assert_close(gate.bias_E, torch.tensor([-0.1, -0.1, 0.1]))  # loads 2, 2, 0; mean 4/3
    gate(h)
    torch.testing.assert_close(gate.bias_E, torch.tensor([-0.2, -0.2, 0.2]))


def test_many_steps_are_those_of_a_loop_and_centring_the_bias_would_choose_alike():
    """Wang et al. add u times the sign; a public implementation takes the mean off as well, which no choice sees."""
    gate, plain, centred = gate_of(5, 2, 0.05).train(), [0.0] * 5, [0.0] * 5
    for number in range(20):
        generator = torch.Generator().manual_seed(number)
        logits = torch.randn(16, 5, generator=generator) + torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0])
        routing = gate(logits.view(16, 5, 1, 1))
        counts = []
        for bias in (plain, centred):
            count = [0] * 5
            for row, ours in zip(logits.sigmoid().tolist(), routing.indices.tolist(), strict=True):
                best = sorted(range(5), key=lambda e, row=row, bias=bias: -(row[e] + bias[e]))[:2]
                assert set(best) == set(ours)
                for expert in best:
                    count[expert] += 1
            counts.append(count)
        for bias, count in zip((plain, centred), counts, strict=True):
            bias[:] = [b + 0.05 * ((c < 32 / 5) - (c > 32 / 5)) for b, c in zip(bias, count, strict=True)]
        mean = sum(centred) / 5
        centred[:] = [b - mean for b in centred]
        torch.testing.assert_close(gate.bias_E, torch.tensor(plain))
    assert gate.bias_E[0] < 0 < gate.bias_E[-1]


def test_the_bias_chooses_and_does_not_weigh():
    gate = gate_of(3, 2, 0.1).eval()
    gate.bias_E.copy_(torch.tensor([0.0, -0.2, 0.2]))
    routing = gate(torch.tensor([[LOG3, 0.0, -LOG3]]).view(1, 3, 1, 1))
    assert routing.indices.tolist() == [[0, 2]]  # 1/4 + 0.2 is more than 1/2 - 0.2
    torch.testing.assert_close(routing.weights, torch.tensor([[0.75, 0.25]]))  # 3/4 and 1/4 over their sum
    assert torch.equal(routing.logits, torch.tensor([[LOG3, 0.0, -LOG3]]))


def test_evaluation_leaves_the_bias_and_an_even_load_too():
    gate = gate_of(2, 1, 0.1)
    h = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 2, 1, 1)
    gate.train()(h)
    assert gate.bias_E.tolist() == [0, 0]
    gate.eval()(h[:1])
    assert gate.bias_E.tolist() == [0, 0]


def test_a_skewed_gate_becomes_even_without_a_loss():
    torch.manual_seed(0)
    gate = gate_of(4, 1, 0.01).train()
    skew = torch.tensor([1.0, 0.5, 0.0, -0.5])
    loads = torch.stack([gate((torch.randn(256, 4) + skew).view(256, 4, 1, 1)).load() for _ in range(300)]).double()
    assert loads[0].max() > 2 * loads[0].min()
    later = loads[-100:].mean(dim=0)
    assert later.max() / later.min() == pytest.approx(1, abs=0.15)


def test_the_bias_is_part_of_the_model():
    assert "bias_E" in gate_of(3, 1, 0.1).state_dict()
    assert all(name != "bias_E" for name, _ in gate_of(3, 1, 0.1).named_parameters())
