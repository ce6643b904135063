"""A step on a GPU that is not here: torch's fake tensors say where every tensor would live and what would wait for it.

Fake tensors have shapes and devices but no numbers: whatever asks a GPU's tensor for one raises, and so does whatever
mixes devices. The forward pass alone: the backward pass needs a driver.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from moe.data.loading import Batch
from moe.experts import Loads
from moe.lightning_module import MoEModule
from tests.conftest import tiny_config

COUNT = 16


class Copies(TorchDispatchMode):
    """Every copy from the CPU to the GPU: operator, elements, whether the CPU goes on meanwhile."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_cuda and any(of_cpu(arg) for arg in args):
            self.seen.append((str(operator), result.numel(), (kwargs or {}).get("non_blocking", False)))
        return result


def of_cpu(value):
    return isinstance(value, torch.Tensor) and not value.is_cuda and value.dim() > 0


@pytest.fixture
def gpu(monkeypatch):
    """Modules are made where they shall be; there is no pinned memory without a driver."""
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_args, **_options: self)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr("moe.data.draw._largest", lambda _index: COUNT - 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda")
    # what was cached in this mode has no numbers
    from moe.data import augment, operations

    augment._constant.cache_clear()
    operations._bands.cache_clear()


def fake_step(gpu, path):
    with gpu:
        module = MoEModule(tiny_config(machine__experts=path), (0.5,) * 3, (0.25,) * 3).train()
        images = torch.zeros(COUNT, 3, 16, 16, dtype=torch.uint8)
        labels = torch.zeros(COUNT, dtype=torch.int64)
    batch = Batch(images, labels, torch.empty(COUNT, dtype=torch.int64))
    return lambda: module._two_view_step(batch, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor:UserWarning")
@pytest.mark.parametrize("path", ["plain", "batched"])
def test_a_step_waits_once_and_copies_the_places_of_its_images(path, gpu, monkeypatch):
    step = fake_step(gpu, path)
    with pytest.raises(DataDependentOutputException):
        step()
    asked = []
    sizes = [2 * COUNT * 2 // 4] * 4
    monkeypatch.setattr("moe.model.loads", lambda *_args, **_options: asked.append(1) or Loads(sizes, sizes))
    step()  # draws the epoch's table, copies constants
    asked.clear()
    with Copies() as copies:
        values, *_ = step()
    assert values["loss"].is_cuda
    assert asked == [1]
    assert copies.seen == [("aten._to_copy.default", COUNT, True)]
