"""Training with all experts at once, through Lightning: as one after another, and to the same bits after a resume."""

import lightning as L
import pytest
import torch

from moe.data.loading import Pixels, RunData
from moe.hardware import precision_plugin
from moe.lightning_module import MoEModule
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def data():
    images = torch.randint(0, 256, (64, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = Pixels(images, torch.arange(64) % 3, (0.5,) * 3, (0.25,) * 3, "", ("a", "b", "c"))
    return RunData(pixels, pixels)


def trained(folder, path, epochs, checkpoint=None, precision="32-true"):
    config = tiny_config(machine__experts=path, train__precision=precision)
    module = MoEModule(config, (0.5,) * 3, (0.25,) * 3)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, plugins=[precision_plugin("cpu", config.train)], max_epochs=epochs,
        gradient_clip_val=config.train.clip_norm, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, *data().loaders(config, CPU), ckpt_path=checkpoint, weights_only=True)
    if path == "batched":
        assert module.model._batched._bank is not None
    return trainer, {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_goes_as_on_the_plain_path(tmp_path, precision):
    _, plain = trained(tmp_path, "plain", 2, precision=precision)
    _, batched = trained(tmp_path, "batched", 2, precision=precision)
    assert plain.keys() == batched.keys()
    # Adam's first steps have a fixed length, whatever a gradient's size: where it is all rounding, so is the step
    moved = torch.cat([(plain[name] - batched[name]).double().flatten() for name in plain])
    size = torch.cat([plain[name].double().flatten() for name in plain])
    assert moved.norm() < (1e-3 if precision == "32-true" else 0.05) * size.norm()


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(tmp_path):
    _, undisturbed = trained(tmp_path, "batched", 2)
    trainer, _ = trained(tmp_path, "batched", 1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = trained(tmp_path, "batched", 2, checkpoint=tmp_path / "half.ckpt")
    different = [name for name, value in undisturbed.items() if not torch.equal(resumed[name], value)]
    assert different == []


def test_a_checkpoint_of_one_path_goes_on_with_the_other(tmp_path):
    trainer, before = trained(tmp_path, "batched", 1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, after = trained(tmp_path, "plain", 2, checkpoint=tmp_path / "half.ckpt")
    _, whole = trained(tmp_path, "plain", 2)
    assert before.keys() == after.keys()
    moved = torch.cat([(after[name] - whole[name]).double().flatten() for name in whole])
    assert moved.norm() < 1e-3 * torch.cat([value.double().flatten() for value in whole.values()]).norm()
