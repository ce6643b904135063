import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from moe.config import DataConfig, ModelConfig
from moe.data.store import sha256
from moe.errors import UserError
from moe.export import export_model, load_model
from moe.model import build_model


@pytest.fixture
def exported(tmp_path):
    torch.manual_seed(0)
    model = build_model(ModelConfig(width=0.0625)).train()
    model(torch.randn(8, 3, 32, 32))  # running statistics that differ from their initial values
    export_model(
        model, tmp_path, run_id="abc", seed=0, epoch=2, data=DataConfig(name="tiny"),
        mean=(0.5, 0.4, 0.3), sd=(0.2, 0.2, 0.2), data_digest="d",
    )  # fmt: skip
    return model.eval(), tmp_path


def test_round_trip(exported):
    model, folder = exported
    loaded, card = load_model(folder)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(x), loaded(x))
    assert not loaded.training
    assert (card.run_id, card.mean, card.data.name) == ("abc", (0.5, 0.4, 0.3), "tiny")


def test_a_changed_weight_file_is_refused(exported):
    _, folder = exported
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"differs from the checksum"):
        load_model(folder)


def test_weights_of_another_network_are_refused(exported):
    _, folder = exported
    weights = load_file(folder / "model.safetensors")
    weights.pop("gate.logits.0.weight")
    save_file(weights, folder / "model.safetensors")
    card = json.loads((folder / "model.json").read_text())
    card["sha256"] = sha256(folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"does not fit the network"):
        load_model(folder)


@pytest.mark.parametrize(("text", "words"), [(None, "no exported model"), ("{", "damaged"), ('{"x": 1}', "damaged")])
def test_a_bad_card_is_refused(exported, text, words):
    _, folder = exported
    card = folder / "model.json"
    card.unlink()
    if text is not None:
        card.write_text(text)
    with pytest.raises(UserError, match=words):
        load_model(folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("embedding", 10**9, "less than or equal"),
        ("embedding", 2**20, "experts.0.readout"),
        ("experts", 4096, "more than"),
        ("experts", 5, "not"),
    ],
)
def test_a_card_that_describes_another_network_costs_no_memory(exported, field, value, words):
    _, folder = exported
    card = json.loads((folder / "model.json").read_text())
    card["model"][field] = value
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=words):
        load_model(folder)
