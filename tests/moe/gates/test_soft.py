"""The soft gate against a softmax written out."""

import torch

from moe.config import ModelConfig, from_flat
from moe.gates.options import SoftConfig
from moe.gates.soft import SoftGate
from moe.model import build_model
from moe.testing import GateContract


class TestContract(GateContract):
    def config(self):
        return SoftConfig()


def test_every_expert_counts_with_its_share():
    gate = SoftGate(5, 3, 4, 2, SoftConfig()).eval()
    h = torch.randn(6, 5, 4, 4)
    weights = gate.logits(h).exp()
    torch.testing.assert_close(gate(h).gates(), weights / weights.sum(dim=1, keepdim=True))


def test_the_embedding_is_the_weighted_sum_of_all_readouts():
    model = build_model(ModelConfig(experts=4, top_k=1, width=0.0625), SoftConfig()).eval()
    x = torch.randn(3, 3, 16, 16)
    expected = torch.einsum("be,ebd->bd", model.route(x).gates(), model.all_readouts(x))
    torch.testing.assert_close(model(x), expected)


def test_k_makes_no_other_run():
    runs = {from_flat({"gate.kind": "soft", "model.top_k": k}).identity() for k in (1, 2, 4)}
    assert len(runs) == 1
    assert from_flat({"gate.kind": "soft"}).unread(["model.top_k"]) == {"model.top_k": "gate.kind=soft"}
