"""Things that another package brings: found by entry point, chosen by name, trained, launched and probed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moe.balancing.options import BALANCING
from moe.config import RunConfig, from_flat, parameter_types
from moe.data.store import Images, write_store
from moe.data.suitable import UnsuitableError, check_images
from moe.errors import UserError
from moe.gates.options import GATES
from moe.objectives.options import OBJECTIVES
from sweeps.plan.collapse import collapsed
from sweeps.plan.parameters import value_problem
from sweeps.plan.spec import expand, load_sweep
from tests.plugins import write_plugin

OPTIONS = '''
from typing import ClassVar, Literal
from pydantic import Field
from moe.balancing.options import BalancingConfig
from moe.gates.options import GateConfig
from moe.objectives.options import LossConfig

class First(GateConfig):
    """Always the first experts."""

    kind: Literal["first"] = "first"
    implementation: ClassVar[str] = "their_things:FirstGate"
    ignored: ClassVar[frozenset[str]] = frozenset({"model.gate_channels"})
    sharpness: float = Field(1.0, gt=0, description="by which the weights fall off")

class Sorted(First):
    """A gate that is told classes."""

    kind: Literal["sorted"] = "sorted"
    needs_labels: ClassVar[bool] = True

class Pull(LossConfig):
    """Views side by side."""

    objective: Literal["pull"] = "pull"
    implementation: ClassVar[str] = "their_things:PullTogether"
    margin: int = Field(2, ge=0, description="distance that is near enough")

class Spread(BalancingConfig):
    """Logits apart."""

    implementation: ClassVar[str] = "their_things:SpreadLoss"
    metric: ClassVar[str] = "spread"
    power: int = Field(2, ge=1, description="of the distance")

class Nameless(GateConfig):
    kind: Literal["other"] = "other"
    implementation: ClassVar[str] = "their_things:FirstGate"

class Homeless(GateConfig):
    kind: Literal["homeless"] = "homeless"

class Needy(GateConfig):
    kind: Literal["needy"] = "needy"
    implementation: ClassVar[str] = "their_things:FirstGate"
    must: int
'''
THINGS = """
import numpy as np
import torch
from moe.balancing.base import BalancingLoss
from moe.data.store import Images, write_store
from moe.gates.base import Gate
from moe.objectives.base import Achieved, Objective
from moe.routing import Routing
from probes.probe import Probe, Result

class FirstGate(Gate):
    def __init__(self, channels, hidden, experts, top_k, config):
        super().__init__(channels, hidden, experts, top_k, config)
        self.scores = torch.nn.Parameter(-config.sharpness * torch.arange(experts).float())

    def forward(self, h_BCHW, noise_BE=None):
        logits = self.scores.float().expand(len(h_BCHW), -1)
        kept, indices = logits.topk(self.top_k, dim=1)
        return Routing(logits, indices, kept.softmax(dim=1))

class PullTogether(Objective):
    def __init__(self, embedding, classes, config):
        super().__init__(embedding, classes, config)
        self.margin = config.margin

    def forward(self, z_a_BD, z_b_BD, labels_B):
        distance = (z_a_BD.float() - z_b_BD.float()).norm(dim=1)
        return Achieved((distance - self.margin).abs().mean(), {"distance": distance.mean().detach()})

class SpreadLoss(BalancingLoss):
    def __init__(self, config):
        super().__init__(config)
        self.power = config.power

    def forward(self, routing):
        return (routing.logits.float().var(dim=1) ** self.power).mean()

class Spots:
    about = "spots: for a test"
    train, validation, probes, builtin = "spots", "spots", ("spots",), True

    def prepare(self, root, source, progress):
        images = np.random.default_rng(0).integers(0, 255, (32, 16, 16, 3), dtype=np.uint8)
        content = Images(images, [f"spot-{n}" for n in range(32)], "drawn", np.arange(32) % 2, ("odd", "even"))
        progress(1, 1)
        return [write_store("spots", content, root, replace=True)]

class Count(Probe):
    about = "count: images"
    step: int = 1

    def run(self, subject, folder, progress):
        (folder / "count.csv").write_text("images")
        return Result({"images": len(subject.store) // self.step})
"""
MODULES = {"their_options": OPTIONS, "their_things": THINGS}
GROUPS = {
    "moe.gates": {
        "first": "their_options:First",
        "sorted": "their_options:Sorted",
        "misnamed": "their_options:Nameless",
        "homeless": "their_options:Homeless",
        "needy": "their_options:Needy",
        "thing": "their_things:FirstGate",
    },
    "moe.balancing_losses": {"spread": "their_options:Spread"},
    "moe.objectives": {"pull": "their_options:Pull"},
    "moe.datasets": {"spots": "their_things:Spots"},
    "moe.probes": {"count": "their_things:Count"},
}
SPEC = """
name: theirs
method: grid
parameters:
  gate.kind: {values: [noisy_top_k, first]}
  gate.sharpness: {values: [0.5, 2.0]}
  gate.noisy: {values: [true, false]}
  loss.objective: {value: pull}
  loss.margin: {value: 1}
  loss.spread_weight: {value: 0.5}
  data.name: {value: spots}
  data.image_size: {value: 16}
  model.width: {value: 0.0625}
  train.epochs: {value: 1}
  train.batch_size: {value: 16}
  train.precision: {value: 32-true}
  machine.device: {value: cpu}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package in this process."""
    monkeypatch.syspath_prepend(str(write_plugin(tmp_path / "site", MODULES, GROUPS)))
    registries = (GATES, BALANCING, OBJECTIVES)
    for registry in registries:
        registry.forget()
    yield
    monkeypatch.undo()
    for registry in registries:
        registry.forget()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text(SPEC)
    return path


@pytest.mark.usefixtures("installed")
class TestOptions:
    def test_they_are_parameters_like_any_other(self):
        assert parameter_types()["gate.sharpness"] is float
        assert parameter_types()["loss.margin"] is int
        config = from_flat({"gate.kind": "first", "gate.sharpness": 3})
        assert config.gate.sharpness == 3.0
        assert RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"gate.kind": "first", "gate.sharpness": 0}, "gate.sharpness=0: input should be greater than 0"),
            ({"gate.kind": "first", "gate.sharpnes": 1}, 'did you mean "gate.sharpness"'),
            ({"gate.kind": "frist"}, 'gate.kind: unknown gate "frist": did you mean "first"'),
            ({"gate.kind": "misnamed"}, 'its kind is "other", not the name of its entry point'),
            ({"gate.kind": "homeless"}, "does not say where its class is"),
            ({"gate.kind": "needy"}, "its field must has no default"),
            ({"gate.kind": "thing"}, "no subclass of moe.gates.options.GateConfig"),
            ({"loss.objective": "pull", "loss.margin": 0.5}, "loss.margin=0.5: input should be a valid integer"),
        ],
    )
    def test_mistakes_are_named(self, values, words):
        with pytest.raises(UserError) as error:
            from_flat(values)
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_sweep_file_is_checked_with_the_kind_that_has_the_option(self):
        assert value_problem("gate.sharpness", 2.0) is None
        assert "greater than 0" in value_problem("gate.sharpness", -1.0)
        assert "takes a number" in value_problem("loss.margin", "wide")

    def test_only_what_the_chosen_one_reads_counts(self):
        first = from_flat({"gate.kind": "first"}).identity()
        assert from_flat({"gate.kind": "first", "gate.noisy": False}).identity() == first
        assert from_flat({"gate.kind": "first", "model.gate_channels": 7}).identity() == first
        assert from_flat({"gate.kind": "first", "gate.sharpness": 2}).identity() != first
        assert from_flat({"gate.sharpness": 2}).identity() == RunConfig().identity()
        config = from_flat({"gate.kind": "first"})
        assert config.unread(["gate.noisy", "model.gate_channels", "gate.sharpness", "seed"]) == {
            "gate.noisy": "gate.kind=first", "model.gate_channels": "gate.kind=first"
        }  # fmt: skip

    def test_one_that_needs_labels_is_refused_images_without_them(self):
        write_store("bare", Images(np.zeros((2, 16, 16, 3), np.uint8), ["one", "two"], "black"))
        images = {"data.name": "bare", "train.batch_size": 2}
        check_images(from_flat({"gate.kind": "first", **images}))
        problem = r"gate\.kind=sorted needs a class for every image, which 2 of 2 images of bare lack \(one, two\)"
        with pytest.raises(UnsuitableError, match=problem):
            check_images(from_flat({"gate.kind": "sorted", **images}))

    def test_a_balancing_loss_brings_its_weight_and_options_to_every_objective(self):
        assert parameter_types()["loss.spread_weight"] is float
        assert parameter_types()["loss.spread_power"] is int
        without = from_flat({"loss.objective": "supervised", "loss.spread_power": 3})
        assert without.unread(["loss.spread_power"]) == {"loss.spread_power": "loss.spread_weight=0"}
        assert without.identity() == from_flat({"loss.objective": "supervised"}).identity() == "ee8ede50765d"
        ids = {from_flat({"loss.spread_weight": 0.1, "loss.spread_power": power}).identity() for power in (2, 3)}
        assert len(ids) == 2
        assert RunConfig.model_validate({"loss": {"spread_weight": 0.1}}).loss.weights()["spread"] == 0.1

    def test_a_grid_over_what_is_not_read_collapses_with_one_sentence(self, spec):
        sweep = load_sweep(str(spec))
        cells = expand(sweep)
        assert len(cells) == 4
        assert collapsed(sweep, cells) == (
            "4 of 8 cells are the same run as another: gate.sharpness does not count with gate.kind=noisy_top_k; "
            "gate.noisy does not count with gate.kind=first"
        )


@pytest.mark.slow
def test_a_sweep_over_things_of_another_package_is_launched_and_probed(tmp_path, spec):
    site = write_plugin(tmp_path / "site", MODULES, GROUPS)
    root = str(Path(__file__).parents[1])

    def moe(*words):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(site)])}
        command = [sys.executable, "-c", "import cli; cli.main()", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done

    launched = moe("sweep", "launch", str(spec), "--agents", "1", "--set", "gate.noisy=true")
    assert "1 of 4 cells is the same run as another" in launched.stderr
    shown = json.loads(moe("sweep", "status", "theirs", "--json").stdout)
    assert [trial["state"] for trial in shown["trials"]] == ["finished"] * 3
    (run,) = (trial["run_id"] for trial in shown["trials"] if trial["config"]["gate"].get("sharpness") == 2.0)
    card = json.loads((tmp_path / "runs" / run / "model" / "model.json").read_text())
    assert card["gate"] == {"kind": "first", "sharpness": 2.0}
    summary = json.loads((tmp_path / "runs" / run / "summary.json").read_text())
    assert summary["last"]["train/distance"] > 0
    assert summary["last"]["train/spread"] > 0
    probed = json.loads(moe("probe", "--run", run, "--probe", "count", "--set", "count.step=2", "--json").stdout)
    assert probed["images"]["spots"]["count"] == {"images": 16}
    settings = {
        "gate.kind": "first", "gate.noisy": "false", "gate.sharpness": 2.0, "loss.objective": "pull", "loss.margin": 1,
        "loss.spread_weight": 0.5, "data.name": "spots", "data.image_size": 16, "model.width": 0.0625,
        "train.epochs": 1, "train.batch_size": 16, "train.precision": "32-true",
    }  # fmt: skip
    trained = moe("train", *(f"--{path}={value}" for path, value in settings.items()))
    assert "gate.noisy does not count with gate.kind=first" in trained.stderr
    assert f"run {run} is finished already" in trained.stdout
