"""Least memory of a run, beside what a real step takes; and what a machine has."""

import resource

import numpy as np
import pytest
import torch
from torch import nn

from moe import memory
from moe.data.loading import Batch
from moe.data.store import Images, write_store
from moe.errors import UserError
from moe.gates.options import GATES
from moe.lightning_module import MoEModule
from moe.memory import Needs, check_memory, host_memory, needed
from tests.conftest import TINY, tiny_config, tiny_store


def stepped(config):
    """A real step of a run, as (module, optimiser, bytes that its shared blocks kept)."""
    module = MoEModule(config, (0.5,) * 3, (0.2,) * 3, classes=3)
    module._ends_epoch = lambda _step: False
    size, count = config.data.image_size, config.train.batch_size
    images = torch.randint(0, 255, (count, 3, size, size), dtype=torch.uint8)
    batch = Batch(images, torch.arange(count) % 3, torch.arange(count))
    kept, shared = {}, module.model.shared

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def watched(x):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            return nn.Sequential.forward(shared, x)

    shared.forward = watched
    optimiser = torch.optim.Adam(module.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision != "32-true"):
        values, record, _ = module._two_view_step(batch, 0)
    module._views_E = record.views_E
    values["loss"].backward()
    module.on_after_backward()
    optimiser.step()
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    return module, optimiser, sum(storage.nbytes() for place, storage in kept.items() if place not in own)


def sizes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", sorted(GATES.usable()))
def test_a_step_takes_no_less(kind, precision):
    config = tiny_config(
        gate__kind=kind, model__experts=8, train__batch_size=6, train__precision=precision, loss__objective="supervised"
    )
    needs = needed(config, 48 + 12, 3)
    module, optimiser, kept = stepped(config)
    weights = list(module.parameters())
    averages = [state[name] for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    assert needs.weights == sizes(weights)
    assert needs.images == 60 * 3 * 16 * 16
    assert 0.1 * sizes(gradients + averages) < needs.learning <= sizes(gradients + averages)
    assert 0.4 * kept < needs.step <= kept
    if precision == "32-true":
        assert needs.step == kept


def test_by_hand():
    """A stem of 4 channels on 16 x 16 pixels and a block of 2 on 8 x 8, of 2 x 5 views.

    The stem keeps the views, what enters its norm, and what leaves it; the block what enters its three norms and leaves
    the first, and its result; each norm two statistics of the batch and its two running ones.
    """
    needs = needed(tiny_config(model__gate_after=1, train__batch_size=5), 10, 0)
    assert needs.step == 4 * (10 * (16 * 16 * (3 + 4 + 4) + 8 * 8 * 2 * 5) + 4 * (4 + 2 + 2 + 2))


@pytest.mark.parametrize(
    ("changes", "device", "most", "words"),
    [
        ({"model.width": 4, "model.embedding": 2**20}, "cpu", None, "lower model.width=4.0 or model.embedding=1048576"),
        ({"model.width": 1, "model.experts": 64, "model.constant_params": False}, "cpu", 10**9,
         "this machine has 1.0 GB; lower model.experts=64"),
        ({"data.image_size": 512, "train.batch_size": 48}, "cpu", 10**9, "lower data.image_size=512"),
        ({"data.image_size": 96, "train.batch_size": 48}, "cpu", 10**6, "has 0.0 GB; lower train.batch_size=48"),
        ({"data.image_size": 512, "train.batch_size": 48}, "cuda", 10**9, "each GPU has 1.0 GB; lower data.image_size"),
        ({"loss.projection": 2**20, "model.width": 1}, "cuda", 10**9, "GPU has 1.0 GB; lower loss.projection=1048576"),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_both_figures(monkeypatch, changes, device, most, words):
    tiny_store(count=48)
    if most:
        monkeypatch.setattr(memory, "_gpu_memory" if device == "cuda" else "host_memory", lambda *_: most)
    with pytest.raises(UserError, match=r"this run needs at least [\d,]+\.\d GB of memory \(") as refused:
        check_memory(tiny_config(**{path.replace(".", "__"): value for path, value in changes.items()}), device)
    assert words in str(refused.value)


def test_what_fits_is_let_pass(monkeypatch):
    tiny_store(count=48)
    needs = needed(tiny_config(), 96, 3)
    for most in (needs.computing + needs.images, needs.computing + needs.images - 1):
        monkeypatch.setattr(memory, "host_memory", lambda most=most: most)
        if most >= needs.computing + needs.images:
            check_memory(tiny_config(), "cpu")
        else:
            with pytest.raises(UserError):
                check_memory(tiny_config(), "cpu")


def test_processes_on_one_machine_share_its_memory(monkeypatch):
    tiny_store(count=48)
    one = needed(tiny_config(machine__devices=2), 96, 3)
    monkeypatch.setattr(memory, "host_memory", lambda: 2 * (one.computing + one.images) - 1)
    check_memory(tiny_config(), "cpu")
    with pytest.raises(UserError):
        check_memory(tiny_config(machine__devices=2), "cpu")


def test_a_network_that_needs_its_memory_to_be_made_is_not_counted(monkeypatch):
    class Reader(nn.Module):
        def __init__(self, *_):
            super().__init__()
            self.scale = float(torch.ones(3).sum())

    monkeypatch.setattr(type(tiny_config().gate), "load", classmethod(lambda _cls: Reader))
    assert needed(tiny_config(), 10, 0) == Needs(0, 0, 10 * 3 * 16 * 16, 0)


def test_images_are_held_once_while_they_are_read(tmp_path):
    """Joined stores too."""
    from moe.data import loading

    images = np.zeros((20, 16, 16, 3), np.uint8)
    stores = [write_store(name, Images(images, [str(n) for n in range(20)], "black")) for name in ("a", "b")]
    made = []

    class Noting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.numel() >= 40 * 3 * 16 * 16:
                made.append(result.untyped_storage().data_ptr())
            return result

    with Noting():
        loading.load_pixels(stores, 16)
    assert len(set(made)) == 1


def group(folder, lines, files):
    """The limits that a process in these groups finds."""
    for path, text in files.items():
        file = folder / "control" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "own").write_text("\n".join(lines) + "\n")
    return sorted(memory._group_limits(folder / "own", folder / "control"))


def test_limits_of_control_groups(tmp_path):
    second = {"slurm/job/memory.max": "max\n", "slurm/memory.max": "4000\n", "memory.max": "9000\n"}
    assert group(tmp_path / "two", ["0::/slurm/job"], second) == [4000, 9000]
    first = {"memory/a/b/memory.limit_in_bytes": "7\n", "memory/memory.limit_in_bytes": "8\n"}
    assert group(tmp_path / "one", ["9:name=systemd:/", "4:memory:/a/b", "3:cpuset:/c", "0::/"], first) == [7, 8]
    assert list(memory._group_limits(tmp_path / "no such file")) == []


def test_the_least_of_all_limits_counts(monkeypatch):
    free = {resource.RLIMIT_AS: (resource.RLIM_INFINITY,) * 2, resource.RLIMIT_DATA: (resource.RLIM_INFINITY,) * 2}
    monkeypatch.setattr(resource, "getrlimit", free.__getitem__)
    whole = host_memory()
    assert whole > 2**30
    monkeypatch.setattr(memory, "_group_limits", lambda: iter([10**6]))
    assert 10**6 <= host_memory() < whole or whole == 10**6  # and swap
    free[resource.RLIMIT_AS] = (12345, resource.RLIM_INFINITY)
    assert host_memory() == 12345


def test_the_command_refuses_what_cannot_fit_and_leaves_no_run_behind(moe, tmp_path):
    tiny_store()
    large = TINY | {"model.width": 4, "model.embedding": 2**20}
    code, _, err = moe("train", *(f"--{path}={value}" for path, value in large.items()))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: this run needs at least ")
    assert not (tmp_path / "runs").exists()
