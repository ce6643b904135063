"""Every gate that comes along is trained, exported, watched and probed."""

import pytest
import torch

from moe.export import load_model
from moe.gates.options import GATES
from moe.gates.told import Known, of_images
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
    x, known = torch.randn(4, 3, 16, 16), Known(torch.arange(4), torch.arange(4) % 3)
    told = of_images(model.gate.told, known, seed=0, experts=4, device=x.device)
    routing = model.route(x, told)
    assert routing.indices.shape == (4, model.gate.top_k)
    assert torch.isfinite(model.embed(x, told).z).all()
    assert torch.isfinite(model.all_readouts(x)).all()
    results = probe_run(run.id, ["routing"], None, lambda _line: None)
    assert "routing" in results["images"]["tiny"]
