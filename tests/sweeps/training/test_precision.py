"""What a GPU does, on the CPU: training itself with Lightning's mixed-precision plugin and a real gradient scaler.

Replaced are the two choices of `moe.hardware` that depend on the device: a GPU's Adam, and a GPU's plugin with the
CPU's name in it.
"""

import itertools
import os
import signal
from functools import partial

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch.amp import GradScaler

from moe import lightning_module
from moe.config import RunConfig, from_flat
from moe.data.loading import load_run_data
from moe.errors import UserError
from moe.hardware import adam_options, precision_plugin
from moe.lightning_module import MoEModule
from sweeps.plan.source import shipped
from sweeps.plan.spec import expand, load_sweep
from sweeps.runs.store import RunStore
from sweeps.training import trial
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_place, tiny_store

pytestmark = pytest.mark.slow


def silent(_line):
    return None


def turned(patch, **scaler):
    """From now on the CPU trains as a GPU would; the arguments are the gradient scaler's."""

    def plugin(_device, config):
        if config.precision != "16-mixed":
            return precision_plugin("cpu", config)
        return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", **({"init_scale": 2.0**10} | scaler)))

    patch.setattr(trial, "precision_plugin", plugin)
    patch.setattr(lightning_module, "adam_options", lambda _device, plugin: adam_options("cuda", plugin))


@pytest.fixture
def like_a_gpu(monkeypatch):
    """Turns the CPU into such a one, for the test."""
    return partial(turned, monkeypatch)


def last_checkpoint(run):
    return torch.load(max(run.checkpoints.glob("epoch*.ckpt")), weights_only=True)


def adam_steps(checkpoint):
    """Steps that each weight's optimiser state has seen."""
    return {int(state["step"]) for state in checkpoint["optimizer_states"][0]["state"].values()}


@pytest.mark.parametrize("clip_norm", [0.05, None])
@pytest.mark.parametrize(
    ("precision", "implementation"), [("32-true", "fused"), ("16-mixed", "foreach"), ("bf16-mixed", "fused")]
)
def test_every_precision_trains_with_and_without_clipping(
    like_a_gpu, tmp_path, monkeypatch, precision, implementation, clip_norm
):
    like_a_gpu()
    tiny_store()
    norms = []

    real = MoEModule.optimizer_step

    def step(self, *args, **options):
        real(self, *args, **options)
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    monkeypatch.setattr(MoEModule, "optimizer_step", step)
    config = tiny_config(train__precision=precision, train__clip_norm=clip_norm)
    run = train(config, RunStore(tmp_path / "runs"), report=silent)
    checkpoint = last_checkpoint(run)
    assert adam_steps(checkpoint) == {6}
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert [name for name in ("fused", "foreach") if group[name]] == [implementation]
    assert ("MixedPrecision" in checkpoint) == (precision == "16-mixed")
    assert len(norms) == 6
    if clip_norm is None:
        assert min(norms) > 0.1
        assert max(norms) < 1000.0
    else:
        assert norms == pytest.approx([clip_norm] * 6, rel=1e-3)


def recipes():
    """The settings of every shipped file's cells, seeds aside, as they are tried: on small images, for four steps.

    But for few random images of 16 px, small batches, narrow layers and two epochs all is as shipped. What then is the
    same is tried once.
    """
    found = {}
    for name in shipped():
        for cell in expand(load_sweep(name)):
            tree = cell.config.model_dump(mode="json")
            tree |= {"data": {"name": "tiny", "image_size": 16, "validation": "few"}, "seed": 0}
            tree["model"]["width"] = 0.0625
            tree["train"] |= {"epochs": 2, "batch_size": 64}
            values = {path: value for path, value in cell.values.items() if path != "seed"}
            label = f"{name} " + " ".join(f"{path}={values[path]}" for path in sorted(values))
            found.setdefault(RunConfig.model_validate(tree), label)
    return [pytest.param(config, id=label) for config, label in found.items()]


@pytest.mark.parametrize("config", recipes())
def test_every_shipped_recipe_trains(like_a_gpu, tmp_path, config):
    like_a_gpu()
    tiny_store("tiny", count=128)
    tiny_store("few", count=16)
    run = train(config, RunStore(tmp_path / "runs"), report=silent)
    assert run.finished
    checkpoint = last_checkpoint(run)
    assert max(adam_steps(checkpoint)) == 4
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values() if value.is_floating_point())


def test_gradients_are_unscaled_before_they_are_clipped(like_a_gpu, tmp_path):
    """One step against a plain loop: Adam's first moment is a tenth of gradient and weight decay."""
    like_a_gpu(init_scale=2.0**12)
    tiny_store()
    config = tiny_config(
        train__precision="16-mixed", train__clip_norm=0.05, train__batch_size=48, train__epochs=1,
        train__weight_decay=0.01,
    )  # fmt: skip
    checkpoint = last_checkpoint(train(config, RunStore(tmp_path / "runs"), report=silent))

    data = load_run_data(config)
    module = MoEModule(config, data.train.mean, data.train.sd, len(data.train.classes)).train()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    (batch,) = data.loaders(config, torch.device("cpu"))[0]
    with torch.autocast("cpu", torch.float16, cache_enabled=False):
        values, *_ = module._two_view_step(batch, 0)
    (values["loss"] * 2.0**12).backward()
    gradients = {name: parameter.grad / 2.0**12 for name, parameter in module.named_parameters()}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert norm > 0.1  # without unscaling all would be clipped to nearly nothing, after it to a half or less
    moments = [state["exp_avg"] for state in checkpoint["optimizer_states"][0]["state"].values()]
    for (name, gradient), moment in zip(gradients.items(), moments, strict=True):
        expected = 0.1 * (gradient * 0.05 / (norm + 1e-6) + 0.01 * before[name])
        torch.testing.assert_close(moment, expected, rtol=1e-4, atol=1e-8)


# the scale overflows float16 in the first step, fits, and grows after two good steps into overflowing again
OVERFLOWING = {"init_scale": 2.0**40, "backoff_factor": 2.0**-30, "growth_factor": 2.0**30, "growth_interval": 2}


def scales(patch):
    """The scale of every step that is done."""
    seen = []
    real = GradScaler.step

    def step(self, *args, **options):
        seen.append(self.get_scale())
        return real(self, *args, **options)

    patch.setattr(GradScaler, "step", step)
    return seen


def test_a_step_that_overflows_is_skipped_and_the_run_goes_on(like_a_gpu, tmp_path, monkeypatch):
    like_a_gpu(**OVERFLOWING)
    tiny_store()
    seen = scales(monkeypatch)
    weights = []
    real = MoEModule.on_train_batch_start

    def remember(self, batch, batch_idx):
        weights.append(torch.cat([parameter.detach().flatten().clone() for parameter in self.parameters()]))
        real(self, batch, batch_idx)

    monkeypatch.setattr(MoEModule, "on_train_batch_start", remember)
    run = train(tiny_config(train__precision="16-mixed"), RunStore(tmp_path / "runs"), report=silent)
    assert seen == [2.0**40, 2.0**10, 2.0**10, 2.0**40, 2.0**10, 2.0**10]
    moved = [not torch.equal(old, new) for old, new in itertools.pairwise(weights)]
    assert moved == [False, True, True, False, True]
    checkpoint = last_checkpoint(run)
    assert adam_steps(checkpoint) == {4}
    assert checkpoint["global_step"] == 6
    assert checkpoint["MixedPrecision"]["scale"] == 2.0**40  # grown after the sixth step
    assert all(value is not None for value in run.history()[-1].values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished run whose scale overflowed on the way."""
    with tiny_place(tmp_path_factory.mktemp("undisturbed")) as runs, pytest.MonkeyPatch.context() as patch:
        turned(patch, **OVERFLOWING)
        return train(tiny_config(train__precision="16-mixed"), runs, report=silent)


@pytest.mark.parametrize("steps", [[0], [1], [2], [3], [4], [0, 1, 2, 3, 4]], ids=str)
def test_a_resumed_run_takes_up_the_scale_and_ends_with_the_same_bits(
    like_a_gpu, undisturbed, tmp_path, monkeypatch, steps
):
    """Stopped after any step, within an epoch and at its end, between overflows and good steps."""
    like_a_gpu(**OVERFLOWING)
    tiny_store()
    config = tiny_config(train__precision="16-mixed")
    seen, left, real = scales(monkeypatch), set(steps), MoEModule.training_step

    def step(self, batch, batch_idx):
        if self.global_step in left:
            left.remove(self.global_step)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, batch_idx)

    monkeypatch.setattr(MoEModule, "training_step", step)
    store = RunStore(tmp_path / "stopped")
    for _ in steps:
        with pytest.raises(trial.InterruptedRunError):
            train(config, store, report=silent)
    run = train(config, store, report=silent)
    assert seen == [2.0**40, 2.0**10, 2.0**10, 2.0**40, 2.0**10, 2.0**10]
    ours, expected = (load_file(each.model / "model.safetensors") for each in (run, undisturbed))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert run.history() == undisturbed.history()


def test_a_device_that_is_not_here_is_the_users_mistake(tmp_path):
    tiny_store()
    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(trial.UserError, match=f"machine.device={absent}: .*machine.device=auto"):
        train(tiny_config(machine__device=absent), RunStore(tmp_path / "runs"), report=silent)


def test_clipping_is_switched_off_by_null_and_nothing_else_is_taken():
    assert from_flat({"train.clip_norm": None}).train.clip_norm is None
    assert from_flat({"train.clip_norm": 1}).identity() == from_flat({}).identity()
    with pytest.raises(trial.UserError, match=r"train\.clip_norm=0"):
        from_flat({"train.clip_norm": 0})


@pytest.mark.parametrize(
    ("precision", "bad_step", "where", "fix"),
    [
        ("bf16-mixed", 1, "gradient", "try train.precision=32-true in place of bf16-mixed, and if that ends so too, a"),
        ("32-true", 1, "gradient", "nothing was learned yet, so train.lr is not the cause; look at the images and at"),
        ("32-true", 6, "gradient", "training diverged; lower train.lr"),
        ("32-true", 6, "loss", "training diverged; lower train.lr"),
    ],
)
def test_what_was_not_finite_first_is_said_and_what_mends_it(monkeypatch, precision, bad_step, where, fix):
    """A step's loss or the gradient behind it becomes NaN; the weights are NaN from then on."""
    tiny_store(count=80)
    step, done = MoEModule.training_step, []

    def training_step(self, batch, batch_idx):
        out = step(self, batch, batch_idx)
        done.append(batch_idx)
        if len(done) == bad_step and where == "loss":
            self._steps[-1][0] = torch.nan
        if len(done) == bad_step:
            out["loss"] = out["loss"] * torch.nan
        return out

    monkeypatch.setattr(MoEModule, "training_step", training_step)
    with pytest.raises(UserError) as caught:
        train(tiny_config(train__precision=precision, train__epochs=3), report=silent)
    first, _, advice = str(caught.value).partition(": ")
    assert first.startswith(f"the {where} of step {bad_step} is not finite")
    assert ("while its loss, " in first) == (where == "gradient")
    assert advice.startswith(fix)
