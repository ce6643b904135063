"""The gate without noise equals the noisy one with its noise left out, in all but name."""

import torch

from moe.config import from_flat
from moe.gates.noisy_top_k import NoisyTopKGate
from moe.gates.options import NoisyTopKConfig, TopKConfig
from moe.gates.top_k import TopKGate
from moe.testing import GateContract


class TestContract(GateContract):
    def config(self):
        return TopKConfig()


def test_it_is_the_noisy_gate_without_noise():
    gates = []
    for kind, config in ((TopKGate, TopKConfig()), (NoisyTopKGate, NoisyTopKConfig(noisy=False))):
        torch.manual_seed(0)
        gates.append(kind(5, 3, 4, 2, config).train())
    h = torch.randn(6, 5, 4, 4)
    assert gates[0].state_dict().keys() == gates[1].state_dict().keys()
    for one, other in zip(gates[0](h, torch.randn(6, 4))[:3], gates[1](h)[:3], strict=True):
        assert torch.equal(one, other)


def test_it_is_the_same_run():
    assert from_flat({"gate.kind": "top_k"}).identity() == from_flat({"gate.noisy": False}).identity()
