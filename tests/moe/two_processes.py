"""What test_distributed.py lets one or two gloo processes compute; the same functions run on the whole batch there.

python -m tests.moe.two_processes RANK WORLD FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from moe.balancing.options import BALANCING
from moe.config import ModelConfig, from_flat
from moe.data.loading import Batch, Share
from moe.distributed import gather
from moe.experts import weighted_sum
from moe.gates.base import keep_top_k
from moe.gates.expert_choice import ExpertChoiceGate
from moe.gates.options import ExpertChoiceConfig, SigmoidBiasConfig
from moe.gates.sigmoid_bias import SigmoidBiasGate
from moe.gates.told import Told
from moe.lightning_module import MoEModule
from moe.losses import importance_cv2, nt_xent
from moe.model import build_model
from moe.routing import Routing

COUNT = 24
CONFIG = {
    "model.width": 0.0625, "data.image_size": 16, "train.batch_size": COUNT, "train.precision": "32-true",
}  # fmt: skip
# experts of each image: 0 and 1 only in the first half, 2 in the last image of the first half and in the second,
# 3 in one image of all, 4 in none
CHOSEN = [[0, 1]] * 11 + [[0, 2]] + [[2, 0]] * 11 + [[2, 3]]
CHOSEN_APART = [[0, 1]] * 11 + [[1, 0]] + [[2, 3]] * 11 + [[3, 2]]


def images():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (COUNT, 3, 16, 16), generator=generator, dtype=torch.uint8)


class Step(nn.Module):
    """A training step as a module's forward, as Lightning gives it to DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, batch):
        values, record, _ = self.module._two_view_step(batch, 0)
        self.module._views_E = record.views_E
        return values


def parameters(module):
    """Gradients by name; zeros for an idle expert's, which a single process has none of."""
    named = module.named_parameters()
    return {name: torch.zeros_like(each) if each.grad is None else each.grad.clone() for name, each in named}


def buffers(module):
    return {name: buffer.clone().double() for name, buffer in module.named_buffers()}


def training_step(share, sync, dtype=torch.float32, gate="noisy_top_k"):
    """Values, gradients and running statistics after one step on this share of the batch."""
    config = from_flat(CONFIG | {"train.sync_batch_norm": sync, "gate.kind": gate})
    module = MoEModule(config, (0.5,) * 3, (0.25,) * 3).to(dtype)
    single = module._normalised
    module._normalised = lambda x: single(x).to(dtype)
    step = Step(module.train())
    if share.of > 1:
        step = DistributedDataParallel(step)
    places = share.cut(torch.arange(COUNT))
    values = step(Batch(images()[places], torch.full((len(places),), -1), places))
    values["loss"].backward()
    values = {name: value.detach() for name, value in values.items()}
    return {"values": values, "gradients": parameters(module), "buffers": buffers(module)}


def experts(share, chosen, sync):
    """Embeddings and gradients of experts with given routing; gradients are those of a sum, not of a mean."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(experts=5, width=0.0625)).train()
    for part in model.modules():
        if hasattr(part, "across_processes"):
            part.across_processes = sync
    channels = model.gate.logits[0].in_channels
    h = torch.randn(COUNT, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    places = share.cut(torch.arange(COUNT))
    indices = torch.tensor(chosen)[places]
    weights = torch.tensor([0.7, 0.3]).expand(len(places), 2)
    z = weighted_sum(model.experts, h[places], Routing(torch.zeros(len(places), 5), indices, weights))
    target = torch.randn(COUNT, z.shape[1], generator=torch.Generator().manual_seed(2))
    (z * target[places]).sum().backward()
    gradients = parameters(model.experts)
    if share.of > 1:
        for gradient in gradients.values():
            distributed.all_reduce(gradient)
    return {"z": z.detach(), "gradients": gradients, "buffers": buffers(model.experts)}


class Scripted(nn.Module):
    """A gate with given choices and without noise; its weights are the logits' own.

    Args:
        gate: makes the logits.
        chosen: experts of each image, over all processes; one list a step.
        share: this process's part of each batch.
    """

    told = Told.NOISE

    def __init__(self, gate, chosen, share=None):
        super().__init__()
        self.gate, self.chosen, self.share, self.step = gate, chosen, share or Share(), 0

    def forward(self, h, noise=None):
        logits = self.gate(h, noise).logits
        if not self.training:
            return Routing(logits, *keep_top_k(logits, 2))
        rows = torch.tensor(self.chosen[self.step])
        indices = self.share.cut(rows).repeat(len(logits) // len(self.share.cut(rows)), 1)
        self.step += 1
        return Routing(logits, indices, logits.gather(1, indices).softmax(dim=1))


# experts of each image in five steps: all four, two idle, those two with images in one process alone, all again
EVERYONE, FIRST_TWO = [[0, 1], [2, 3]] * (COUNT // 2), [[0, 1]] * COUNT
IDLE_STEPS = [EVERYONE, FIRST_TWO, FIRST_TWO, [[0, 1]] * (COUNT // 2) + [[2, 3]] * (COUNT // 2), EVERYONE]


def idle_steps(share):
    """Weights and moments of the experts after every step of a run in which some are idle."""
    module = MoEModule(from_flat(CONFIG | {"gate.noisy": False}), (0.5,) * 3, (0.25,) * 3).double().train()
    single = module._normalised
    module._normalised = lambda x: single(x).double()
    module.model.gate = Scripted(module.model.gate, IDLE_STEPS, share)
    step = Step(module)
    if share.of > 1:
        step = DistributedDataParallel(step)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2, weight_decay=0.1)
    places, after = share.cut(torch.arange(COUNT)), []
    for _ in IDLE_STEPS:
        optimizer.zero_grad()
        step(Batch(images()[places], torch.full((len(places),), -1), places))["loss"].backward()
        module.on_after_backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        after.append(snapshot(module.model.experts, optimizer))
    return after


def snapshot(experts, optimizer):
    """Everything that belongs to each expert: weights, statistics, the optimiser's state."""
    kept = []
    for expert in experts:
        state = {name: value.clone() for name, value in expert.state_dict().items()}
        for name, parameter in expert.named_parameters():
            state |= {f"{name} {key}": value.clone() for key, value in optimizer.state.get(parameter, {}).items()}
        kept.append(state)
    return kept


def losses(share):
    """Both losses and their gradients for processes with different numbers of rows."""
    generator = torch.Generator().manual_seed(4)
    a, b, gates = torch.randn(COUNT, 5, generator=generator), torch.randn(COUNT, 5, generator=generator), None
    gates = torch.rand(COUNT, 4, generator=generator)
    rows = slice(0, COUNT) if share.of == 1 else (slice(0, 7), slice(7, COUNT))[share.rank]
    a, b, gates = (x[rows].clone().requires_grad_() for x in (a, b, gates))
    contrast, balance = nt_xent(a, b, 0.5), importance_cv2(gates)
    # anchors are a process's own: weighted by their number, the losses of processes add up to that of the whole
    (contrast * len(a) / COUNT + balance / share.of).backward()
    return {
        "nt_xent": contrast.detach() * len(a) / COUNT, "importance": balance.detach(),
        "gradients": [gather(x.grad) for x in (a, b, gates)],
    }  # fmt: skip


def balancing(share):
    """Every balancing loss and its gradient to the logits and, where it has noise, to scores and scale."""
    generator = torch.Generator().manual_seed(5)
    logits, noise, raw = torch.randn(3, COUNT, 4, generator=generator).double()
    logits[: COUNT // 2, 0] += 1  # halves that differ
    parts = [logits, logits + noise * raw.exp(), raw.exp()]
    result = {}
    for name, config in BALANCING.usable().items():
        leaves = [share.cut(part).clone().requires_grad_() for part in parts]
        routing = Routing(leaves[0], *keep_top_k(leaves[0] if name != "load" else leaves[1], 2), *leaves[1:])
        value = config.load()(config())(routing)
        (value / share.of).backward()
        gradients = [gather(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad) for leaf in leaves]
        result[name] = {"value": value.detach(), "gradients": torch.stack(gradients)}
    return result


def nudged(share):
    """The bias of each expert after each of five steps, and the loads of this process's part."""
    torch.manual_seed(0)
    gate = SigmoidBiasGate(5, 3, 5, 2, SigmoidBiasConfig(bias_rate=0.1)).train()
    gate.logits = nn.Flatten()
    biases, loads = [], []
    for step in range(5):
        h = torch.randn(COUNT, 5, 1, 1, generator=torch.Generator().manual_seed(step))
        h[: COUNT // 2, 0] += 2
        h[COUNT // 2 :, 1] += 2
        loads.append(gate(share.cut(h)).load())
        biases.append(gate.bias_E.clone())
    return {"biases": torch.stack(biases), "loads": torch.stack(loads)}


def thresholds(share):
    """Each expert's threshold after each of five steps of expert choice, and the smallest score that it took here."""
    torch.manual_seed(0)
    gate = ExpertChoiceGate(5, 3, 5, 2, ExpertChoiceConfig(threshold_rate=0.5)).double().train()
    gate.logits = nn.Flatten()
    found, smallest = [], []
    for step in range(5):
        h = torch.randn(COUNT, 5, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        routing = gate(share.cut(h))
        found.append(gate.threshold_E.clone())
        smallest.append(routing.gates().masked_fill(routing.gates() == 0, 1.0).amin(dim=0))
    return {"thresholds": torch.stack(found), "smallest": torch.stack(smallest)}


def everything(share):
    """All scenarios."""
    return {
        "step": training_step(share, sync=True),
        "step in float64": training_step(share, sync=True, dtype=torch.float64),
        "step of random in float64": training_step(share, sync=True, dtype=torch.float64, gate="random"),
        "alone": training_step(share, sync=False),
        "experts": experts(share, CHOSEN, sync=True),
        "experts apart": experts(share, CHOSEN_APART, sync=True),
        "idle without exchange": experts(share, CHOSEN_APART, sync=False),
        "idle steps": idle_steps(share),
        "losses": losses(share),
        "balancing": balancing(share),
        "nudged": nudged(share),
        "thresholds": thresholds(share),
    }


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save(everything(Share(rank, world)), folder / f"{rank}.pt")
    distributed.destroy_process_group()
