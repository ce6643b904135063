"""What a run needs of memory at least, and what there is at most: what cannot fit is refused before it starts.

Without this the system ends such a process without a word, or others in its place, some minutes later.

Counted, on torch's meta device, which has shapes and no memory, are the parameters; gradients and Adam's two averages
of those that every step trains; the images, which stay in memory; and what the shared blocks keep of a step for its
backward pass. Not counted are the experts' part of that, what comes and goes, Python and torch themselves. So this is a
lower bound: it never refuses what could have run, and what it lets pass may still run out of memory.
"""

import contextlib
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from moe.config import CHOICES, RunConfig, flat, from_flat
from moe.data.datasets import training_stores, validation_store
from moe.errors import UserError
from moe.model import build_model

_NUMBER = 4  # bytes: parameters, gradients and averages are float32 in any precision
_SIZES = ("model.", "gate.", "loss.", "train.batch_size", "data.image_size")  # what decides how large a run is
_UNLIMITED = sys.maxsize
_CONTROL = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Needs:
    """Bytes that a process of a run needs at least.

    Attributes:
        weights: of all parameters.
        learning: of the gradients and averages of those that every step trains; an expert without images has none.
        images: uint8, of training and validation.
        step: what the shared blocks keep of both views of its part of a batch until the backward pass.
    """

    weights: int
    learning: int
    images: int
    step: int

    @property
    def computing(self) -> int:
        """On the device that computes: what a step keeps is gone when the optimiser is at work."""
        return self.weights + max(self.learning, self.step)

    def lower(self) -> str:
        """The setting that decides most of it."""
        sizes = {
            "model.width": self.weights + self.learning, "data.image_size": self.images, "train.batch_size": self.step
        }  # fmt: skip
        return max(sizes, key=lambda setting: sizes[setting])

    def parts(self) -> str:
        """Each in words, the largest first; those that do not count are left out."""
        named = {"weights, gradients and averages": self.weights + self.learning, "images": self.images,
                 "a step": self.step}  # fmt: skip
        least = max(named.values()) / 100
        shown = sorted((size, what) for what, size in named.items() if size >= least)
        return ", ".join(f"{_gb(size)} for {what}" for size, what in reversed(shown))


def check_memory(config: RunConfig, device: str) -> None:
    """Refuse a run for which neither the machine nor its GPUs can ever have the memory.

    Args:
        config: the run; its images are prepared.
        device: that trains: cpu, cuda or mps.

    Raises:
        UserError: says how much it needs at least, what for, how much there is, and what to lower.
    """
    stores = [*training_stores(config.data), validation_store(config.data)]
    images, classes = sum(len(store) for store in stores), len(stores[0].manifest.classes)
    needs, processes = needed(config, images, classes), config.machine.devices
    here = needs.images + (needs.weights if device == "cuda" else needs.computing)  # a network is made here and moved
    places = [(processes * here, "this machine", host_memory())]
    if device == "cuda":
        there = needs.computing + (needs.images if config.machine.images == "device" else 0)
        places += [(there, "each GPU", _gpu_memory(processes))]
    for size, place, most in places:
        if size > most:
            raise UserError(
                f"this run needs at least {_gb(size)} of memory ({needs.parts()}), and {place} has {_gb(most)}; "
                f"lower {' or '.join(_to_lower(config, needs, images, classes))}"
            )


def needed(config: RunConfig, images: int, classes: int) -> Needs:
    """What each process of a run needs.

    Args:
        config: the run.
        images: their number, in training and validation together.
        classes: of the training images.
    """
    pixels = 3 * config.data.image_size**2
    try:
        with torch.device("meta"):
            model = build_model(config.model, config.gate)
            objective: nn.Module = config.loss.load()(model.embedding, classes, config.loss)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # a plugin's class that needs its memory
        return Needs(0, 0, images * pixels, 0)
    used = model.gate.top_k if model.gate.exact else 1  # experts that have images in any step, at least
    always = (model.shared, model.gate, objective, *model.experts[:used])
    weights = sum(each.numel() for part in (model, objective) for each in part.parameters())
    trained = sum(each.numel() for part in always for each in part.parameters() if each.requires_grad)
    kept = _kept(model.shared, 2 * config.train.batch_size // config.machine.devices, config.data.image_size)
    number = _NUMBER if config.train.precision == "32-true" else _NUMBER // 2
    return Needs(_NUMBER * weights, 3 * _NUMBER * trained, images * pixels, number * kept)


def _kept(shared: nn.Module, views: int, side: int) -> int:
    """How many numbers the shared blocks keep for the backward pass, their own parameters aside."""
    own = {_place(parameter) for parameter in shared.parameters()}
    found: dict[StorageWeakRef, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        found[_place(tensor)] = tensor.untyped_storage()  # several layers may keep one tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _latents = shared(torch.empty(views, 3, side, side, device="meta"))
    return sum(storage.nbytes() for place, storage in found.items() if place not in own) // _NUMBER


def _to_lower(config: RunConfig, needs: Needs, images: int, classes: int) -> list[str]:
    """The settings with a value above its default that make the run larger; else the one that decides most."""
    values = flat(config)
    defaults = flat(from_flat({choice.path: values[choice.path] for choice in CHOICES.values()}))
    found = []
    for path, value in values.items():
        if not path.startswith(_SIZES) or isinstance(value, str | bool) or value <= defaults[path]:
            continue
        with contextlib.suppress(UserError):
            smaller = needed(from_flat(values | {path: defaults[path]}), images, classes)
            if smaller.computing + smaller.images < 0.9 * (needs.computing + needs.images):
                found.append(f"{path}={value}")
    return found or [f"{(setting := needs.lower())}={values[setting]}"]


def host_memory() -> int:
    """Bytes that a process can ever have here: RAM, or less in a control group, and swap; a limit of its shell."""
    try:
        found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, swap = (1024 * int(found[name].split()[0]) for name in ("MemTotal", "SwapTotal"))
    except (OSError, KeyError, ValueError):  # other systems make swap as they need it
        total, swap = _UNLIMITED, 0
    limits = [min([total, *_group_limits()]) + swap]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft = resource.getrlimit(kind)[0]
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits)


def _group_limits(own: Path = Path("/proc/self/cgroup"), control: Path = _CONTROL) -> Iterator[int]:
    """Limits of this process's control group and of those around it, of either version."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers not in ("", "memory"):
            continue
        root, name = (control, "memory.max") if not controllers else (control / "memory", "memory.limit_in_bytes")
        place = PurePosixPath(path.lstrip("/"))
        for group in (place, *place.parents):
            with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                yield int((root / group / name).read_text())


def _gpu_memory(devices: int) -> int:
    """Bytes of the smallest of the GPUs that a run takes."""
    count = min(devices, torch.cuda.device_count())
    return min((torch.cuda.get_device_properties(n).total_memory for n in range(count)), default=_UNLIMITED)


def place(config: RunConfig, device: str) -> str:
    """Where a run computes, and how much memory there is, in words."""
    what, most = (
        ("the GPU", _gpu_memory(config.machine.devices)) if device == "cuda" else ("the machine", host_memory())
    )
    return what if most == _UNLIMITED else f"{what} ({_gb(most)})"


def _place(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
