"""What test_distributed.py lets one or two gloo processes compute; the same functions run on the whole batch there.

python -m tests.moe.two_processes RANK WORLD FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from moe.config import ModelConfig, from_flat
from moe.data.loading import Batch, Share
from moe.distributed import gather
from moe.experts import weighted_sum
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
        return self.module._two_view_step(batch, 0)[0]


def parameters(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def buffers(module):
    return {name: buffer.clone().double() for name, buffer in module.named_buffers()}


def training_step(share, sync, dtype=torch.float32):
    """Values, gradients and running statistics after one step on this share of the batch."""
    module = MoEModule(from_flat(CONFIG | {"train.sync_batch_norm": sync}), (0.5,) * 3, (0.25,) * 3).to(dtype)
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


def everything(share):
    """All scenarios."""
    return {
        "step": training_step(share, sync=True),
        "step in float64": training_step(share, sync=True, dtype=torch.float64),
        "alone": training_step(share, sync=False),
        "experts": experts(share, CHOSEN, sync=True),
        "experts apart": experts(share, CHOSEN_APART, sync=True),
        "idle without exchange": experts(share, CHOSEN_APART, sync=False),
        "losses": losses(share),
    }


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save(everything(Share(rank, world)), folder / f"{rank}.pt")
    distributed.destroy_process_group()
