"""Every gate that comes along is trained, exported, watched and probed."""

import pytest
import torch

from moe.export import load_model
from moe.gates.options import GATES
from probes.probing import probe_run
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store


@pytest.mark.slow
@pytest.mark.parametrize("kind", GATES)
def test_it_is_trained_exported_and_probed(kind):
    tiny_store()
    run = train(tiny_config(gate__kind=kind, train__epochs=1), report=lambda _line: None)
    model, card = load_model(run.model)
    assert card.gate.kind == kind
    x = torch.randn(4, 3, 16, 16)
    routing = model.route(x)
    assert routing.indices.shape == (4, model.gate.top_k)
    assert torch.isfinite(model(x)).all()
    results = probe_run(run.id, ["routing"], None, lambda _line: None)
    assert "routing" in results["images"]["tiny"]
