"""An expert without images in a step is left alone: as in a plain loop, where its gradients are None."""

import copy
from itertools import pairwise

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from moe import lightning_module
from moe.config import from_flat
from moe.data.loading import Batch
from moe.hardware import adam_options
from moe.lightning_module import MoEModule
from tests.moe.two_processes import CONFIG, COUNT, IDLE_STEPS, Scripted, images, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
PLUGINS = {
    "float32": Precision,
    "bfloat16": lambda: MixedPrecision("bf16-mixed", "cpu"),
    "float16, scaled": lambda: MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=2.0**10)),
}


def module(**changes):
    settings = CONFIG | {"train.weight_decay": 0.1, "train.lr": 1e-2, "train.clip_norm": 0.5, "gate.noisy": False}
    of = MoEModule(from_flat(settings | {k.replace("__", "."): v for k, v in changes.items()}), (0.5,) * 3, (0.2,) * 3)
    of.model.gate = Scripted(of.model.gate, IDLE_STEPS)
    return of.train()


def batch():
    return Batch(images(), torch.full((COUNT,), -1), torch.arange(COUNT))


class Steps(L.Callback):
    """Everything of each expert after each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_args, **_options):
        self.seen.append(snapshot(pl_module.model.experts, trainer.optimizers[0]))


def trained(of, plugin):
    """The steps of Lightning's own loop."""
    steps = Steps()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, plugins=[plugin], max_epochs=1, gradient_clip_val=of.config.train.clip_norm,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[steps],
    )  # fmt: skip
    trainer.fit(of, DataLoader([batch()] * len(IDLE_STEPS), batch_size=None))
    return steps.seen


def plain_loop(of):
    """Experts in a Python loop, each picking its images by a mask; nothing else of ours in the step."""
    experts, train = of.model.experts, of.config.train

    def embed(x, noise):
        h = of.model.shared(x)
        routing = of.model.gate(h, noise)
        gates = routing.gates()
        z = h.new_zeros(len(h), of.model.embedding)
        for number, expert in enumerate(experts):
            mask = gates[:, number] > 0
            if mask.any():
                z = z.index_add(0, mask.nonzero()[:, 0], gates[mask, number].unsqueeze(1) * expert(h[mask]))
        return z, routing, type("Uncounted", (), {"everywhere": None})

    of.model.embed = embed
    optimizer, seen = torch.optim.Adam(of.parameters(), lr=train.lr, weight_decay=train.weight_decay), []
    for _ in IDLE_STEPS:
        optimizer.zero_grad()
        of._two_view_step(batch(), 0)[0]["loss"].backward()
        torch.nn.utils.clip_grad_norm_(of.parameters(), train.clip_norm)
        optimizer.step()
        seen.append(snapshot(experts, optimizer))
    return seen


@pytest.mark.parametrize("clip_norm", [0.5, None])
@pytest.mark.parametrize("experts", ["plain", "batched"])
@pytest.mark.parametrize("precision", PLUGINS)
def test_idle_experts_keep_weights_statistics_and_moments_bit_by_bit(monkeypatch, precision, experts, clip_norm):
    """Idle in the second and third of five steps; with a GPU's optimiser, which is another one for each precision."""
    monkeypatch.setattr(lightning_module, "adam_options", lambda _device, plugin: adam_options("cuda", plugin))
    seen = trained(module(machine__experts=experts, train__clip_norm=clip_norm), PLUGINS[precision]())
    assert len(seen) == len(IDLE_STEPS)
    for after, (old, new) in enumerate(pairwise(seen), 1):
        for expert in range(4):
            idle = expert > 1 and after in (1, 2)
            assert old[expert].keys() == new[expert].keys()
            assert all(torch.equal(old[expert][name], new[expert][name]) for name in old[expert]) == idle


@pytest.mark.slow
@pytest.mark.parametrize("experts", ["plain", "batched"])
def test_all_experts_are_those_of_a_plain_loop(experts):
    of = module(machine__experts=experts).double()
    single = of._normalised
    of._normalised = lambda x: single(x).double()
    copied = copy.deepcopy(of)
    copied._normalised = of._normalised
    for ours, expected in zip(trained(of, Precision()), plain_loop(copied), strict=True):
        for mine, theirs in zip(ours, expected, strict=True):
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-9)


def test_an_expert_idle_from_the_start_has_no_optimiser_state():
    of = module()
    of.model.gate.chosen = IDLE_STEPS[1:3]
    optimizer = torch.optim.Adam(of.parameters())
    of._views_E = of._two_view_step(batch(), 0)[1].views_E
    assert of._views_E == [2 * COUNT, 2 * COUNT, 0, 0]
    of._two_view_step(batch(), 0)[0]["loss"].backward()
    of.on_after_backward()
    optimizer.step()
    assert [any(parameter in optimizer.state for parameter in expert.parameters()) for expert in of.model.experts] == [
        True, True, False, False,
    ]  # fmt: skip
