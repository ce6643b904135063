"""From `FILE.py:FACTORY` to a model; every mistake is one sentence with its place."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moe.errors import UserError
from moe.foreign.base import MODELS
from probes.foreign import load_foreign
from tests.plugins import write_plugin

GUIDE = Path(__file__).parents[2] / "docs/probes.md"
NET = """
import torch
from torch import nn
from sizes_of_mine import EXPERTS

class Net(nn.Module):
    image_size, mean, sd = 4, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(3, EXPERTS)
        self.experts = nn.Linear(3, 5 * EXPERTS)
        self.norm = nn.BatchNorm1d(3)
    def route(self, x):
        logits = self.gate(self.norm(x.mean((2, 3))))
        return logits, logits.argmax(1, keepdim=True), torch.ones(len(x), 1)
    def all_readouts(self, x):
        return self.experts(x.mean((2, 3))).unflatten(1, (EXPERTS, 5)).transpose(0, 1)

def build():
    return Net()

def broken():
    return Net().missing

def words():
    return "a model"

def ending():
    raise SystemExit(0)
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "sizes_of_mine.py").write_text("EXPERTS = 3\n")
    file = tmp_path / "net.py"
    file.write_text(NET)
    yield str(file)
    sys.modules.pop("sizes_of_mine", None)


def test_a_function_or_a_class_makes_the_model_in_eval_mode(net):
    for factory in ("build", "Net"):
        foreign, name = load_foreign(f"{net}:{factory}")
        assert name.startswith(f"{factory}-")
        assert not any(module.training for module in foreign.modules())
        assert not any(parameter.requires_grad for parameter in foreign.parameters())
        assert foreign.sizes == (3, 1, 5)


def test_its_name_says_what_it_is(net, tmp_path):
    """The same file, weights and factory have the same name, whatever was drawn before; others have another."""
    _, first = load_foreign(f"{net}:build")
    torch.rand(1)
    assert load_foreign(f"{net}:build")[1] == first
    (tmp_path / "net.py").write_text(NET.replace("0.2, 0.2, 0.2", "0.2, 0.2, 0.3"))
    assert load_foreign(f"{net}:build")[1] != first


def test_weights_are_read_from_safetensors(net, tmp_path):
    foreign, plain = load_foreign(f"{net}:build")
    weights = {name: tensor + 1 for name, tensor in foreign.model.state_dict().items()}
    save_file(weights, tmp_path / "net.safetensors")
    filled, name = load_foreign(f"{net}:build", tmp_path / "net.safetensors")
    assert name != plain
    assert all(torch.equal(tensor, weights[name]) for name, tensor in filled.model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("gate.bias"), "gate.bias"),
        (lambda weights: weights.update(other=torch.zeros(1)), "other"),
        (lambda weights: weights.update({"gate.bias": torch.zeros(7)}), "gate.bias"),
    ],
)
def test_weights_of_another_model_are_refused(net, tmp_path, change, said):
    weights = dict(load_foreign(f"{net}:build")[0].model.state_dict())
    change(weights)
    save_file(weights, tmp_path / "net.safetensors")
    with pytest.raises(UserError, match="does not fit the model of") as caught:
        load_foreign(f"{net}:build", tmp_path / "net.safetensors")
    assert said in str(caught.value)


def test_a_pickle_is_no_weights_and_is_not_run(net, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"gate.bias": Payload()}, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"is no safetensors file .*save_file\(model.state_dict\(\), FILE\)"):
        load_foreign(f"{net}:build", tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("FILE", "say what in FILE makes the model, FILE:FACTORY; known are: Net, broken, build, ending, words"),
        ("FILE:biuld", 'has no function "biuld": did you mean "build"?'),
        ("FILE:torch", 'has no function "torch": known are: Net, broken, build, ending, words'),
        ("FILE:broken", "AttributeError: 'Net' object has no attribute 'missing' (net.py, line 23)"),
        ("FILE:words", "gives a str; needed is a torch.nn.Module"),
        ("FILE:ending", 'ends the program; keep that under `if __name__ == "__main__"`'),
        ("missing.py:build", "missing.py does not exist"),
        ("missing.py", '"missing.py" is no model: say'),
        ("", '"" is no model'),
        (":build", "is no model"),
    ],
)
def test_a_mistake_is_one_sentence(net, reference, said):
    with pytest.raises(UserError) as caught:
        load_foreign(reference.replace("FILE", net))
    assert said.replace("FILE", net) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def build(:\n", "SyntaxError"),
        ("raise SystemExit\n", "ends the program"),
        ("1 / 0\n", "ZeroDivisionError: division by zero (odd.py, line 1)"),
        ("\0", "odd.py"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_the_line(tmp_path, monkeypatch, text, said):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "odd.py").write_text(text)
    with pytest.raises(UserError) as caught:
        load_foreign(f"{tmp_path / 'odd.py'}:build")
    assert said in str(caught.value)
    assert "odd.py" in str(caught.value)


def test_a_package_brings_models_by_name(net, tmp_path, monkeypatch):
    site = write_plugin(
        tmp_path / "site", {"their_nets": NET, "sizes_of_mine": "EXPERTS = 3\n"},
        {"moe.models": {"theirs": "their_nets:build", "number": "sizes_of_mine:EXPERTS"}},
    )  # fmt: skip
    monkeypatch.syspath_prepend(site)
    MODELS.forget()
    try:
        foreign, name = load_foreign("theirs")
        assert foreign.sizes == (3, 1, 5)
        assert name.startswith("theirs-")
        with pytest.raises(UserError, match='did you mean "theirs"'):
            load_foreign("their")
        with pytest.raises(UserError, match="is no function or class that makes a model"):
            load_foreign("number")
    finally:
        monkeypatch.undo()
        MODELS.forget()


def test_the_example_of_the_guide_works(tmp_path, monkeypatch):
    """As it is printed, with weights from a file, and any network in the place of the reader's."""
    (example,) = re.findall(r"```python\n(.*?class Asked.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "asked.py").write_text(example)
    (tmp_path / "my_project.py").write_text(
        "from torch import nn\n\n\nclass VisionMoE(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "        self.gate = nn.Linear(6, 4)\n"
        "        self.experts = nn.ModuleList(nn.Linear(6, 5) for _ in range(4))\n"
    )
    monkeypatch.chdir(tmp_path)
    save_file(dict(load_foreign("asked.py:Asked")[0].model.state_dict()), "asked.safetensors")
    foreign, _ = load_foreign("asked.py:Asked", Path("asked.safetensors"))
    assert foreign.sizes == (4, 2, 5)
    assert foreign.preparation.image_size == 224
    assert foreign.pooled_shared(torch.zeros(3, 3, 224, 224)).shape == (3, 6)
    sys.modules.pop("my_project")
