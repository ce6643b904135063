"""Training steps, views to weights: ours against the literal recipe, lightly, and densely executed experts.

    python benchmarks/train_step.py --preset cpu
    python benchmarks/train_step.py --preset gpu          the paper's size; needs CUDA
    python benchmarks/train_step.py --busy 1              ours alone and beside a busy process, by kind of threads
    pip install lightly                                   for that row; it is left out where lightly is absent

All train the same network on the same images through Lightning's Trainer, in turn, several rounds. Before that, the
four must agree on the loss of the same views (eval mode, since dense experts normalise other images).
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from recipes import RECIPES, Ours
from torch import Tensor

from moe.config import RunConfig, from_flat
from moe.data.augment import two_views
from moe.data.loading import Pixels
from moe.hardware import precision_plugin
from sweeps.training.cores import LeaveCores

# the warm-up lasts longer than the second after which a run looks around for the first time
_BUSY = {"data.image_size": 32}, {"experts": [4], "images": 2048, "warm_up": 14, "steps": 20, "rounds": 3}

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "experts": [4, 8], "images": 2048, "warm_up": 2, "steps": 6, "rounds": 3,
        "config": {
            "model.width": 0.25, "data.image_size": 48, "train.batch_size": 128, "train.precision": "32-true",
            "machine.device": "cpu",
        },
    },
    "gpu": {
        "experts": [4, 8, 16], "images": 51_200, "warm_up": 20, "steps": 100, "rounds": 3,
        "config": {"train.precision": "16-mixed", "machine.device": "cuda"},
    },
}  # fmt: skip


class Clock(L.Callback):
    """Time between the end of the warm-up and the last step."""

    def __init__(self, warm_up: int, steps: int) -> None:
        self.warm_up, self.steps, self.seconds = warm_up, steps, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_args: Any) -> None:
        """Start or stop."""
        if trainer.global_step in (self.warm_up, self.warm_up + self.steps):
            _wait()
            self.seconds = time.perf_counter() - self.seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def smooth_images(count: int, size: int) -> Pixels:
    """Random images with some structure, uint8."""
    generator = torch.Generator().manual_seed(0)
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for start in range(0, count, 1024):
        part = torch.rand(min(1024, count - start), 3, 12, 12, generator=generator)
        images[start : start + len(part)] = torch.nn.functional.interpolate(part, size, mode="bilinear") * 255
    return Pixels(images, torch.full((count,), -1), (0.5,) * 3, (0.2,) * 3, "", ())


def check_agreement(config: RunConfig, pixels: Pixels, recipes: list[str], device: torch.device) -> dict[str, float]:
    """Loss of the same two views under every recipe, with the same weights, in float32."""
    places = torch.arange(64)
    images = pixels.images_NCSS[places].to(device)
    losses = {}
    for name in recipes:
        module = RECIPES[name][0](config, pixels.mean, pixels.sd).to(device).eval()
        a, b = (module._normalised(x) for x in two_views(config.augment, images, places, seed=0, epoch=0))  # noqa: SLF001
        with torch.no_grad():
            losses[name] = float(module.loss_of_views(a, b))
    worst = max(abs(loss - losses["ours"]) for loss in losses.values())
    if worst > 1e-4:
        raise SystemExit(f"the recipes disagree about the loss of the same views: {losses}")
    return losses


def views_per_second(
    name: str,
    config: RunConfig,
    pixels: Pixels,
    options: Any,
    *,
    compiled: bool = False,
    extra: Sequence[L.Callback] = (),
) -> float:
    """One round of one recipe."""
    device = torch.device(config.machine.device)
    kind, loader = RECIPES[name]
    torch.manual_seed(0)
    module = kind(config, pixels.mean, pixels.sd)
    if compiled:
        module.model.shared.compile()
        for expert in module.model.experts:
            expert.blocks.compile(dynamic=True)
    clock = Clock(options.warm_up, options.steps)
    trainer = L.Trainer(
        accelerator=device.type, devices=1, plugins=[precision_plugin(device.type, config.train)],
        max_steps=options.warm_up + options.steps, gradient_clip_val=config.train.clip_norm, logger=False,
        callbacks=[*extra, clock], enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, loader(config, pixels, device, options.workers))
    return 2 * config.train.batch_size * options.steps / clock.seconds


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other processes that compute all the time."""
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def beside_others(config: RunConfig, pixels: Pixels, options: Any) -> None:
    """Our step alone and beside busy processes: all threads kept, one thread, and as a run has them."""
    most = torch.get_num_threads()
    kinds = {f"{most} threads": most, "one thread": 1, "as a run has them": None}
    speeds: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for others in (0, options.busy):
            for kind, threads in kinds.items():
                torch.set_num_threads(threads or most)
                with busy(others):
                    extra = [LeaveCores(lambda _line: None)] if threads is None else []
                    speed = views_per_second("ours", config, pixels, options, extra=extra)
                speeds.setdefault((kind, others), []).append(speed)
    torch.set_num_threads(most)
    medians = {case: statistics.median(values) for case, values in speeds.items()}
    for (kind, others), values in speeds.items():
        where = f"beside {others} busy" if others else "alone"
        print(f"{kind:18} {where:14} {medians[kind, others]:7.0f} views/s ({min(values):.0f} to {max(values):.0f})")
    alone = medians["as a run has them", 0] / medians[f"{most} threads", 0]
    beside = medians["as a run has them", options.busy] / medians["one thread", 0]
    print(f"alone {100 * alone:.1f} % of {most} threads kept (wanted: 97 or more)")
    print(f"beside {options.busy} busy {100 * beside:.1f} % of one thread alone (wanted: 80 or more)")


def where_the_time_goes(config: RunConfig, pixels: Pixels, repeats: int) -> dict[str, float]:
    """Median milliseconds of each part of our step, waiting for the device after each."""
    device = torch.device(config.machine.device)
    module = Ours(config, pixels.mean, pixels.sd).to(device).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=config.train.lr, fused=device.type == "cuda")
    places = torch.arange(config.train.batch_size)
    images = pixels.images_NCSS[places].to(device)
    kind = torch.bfloat16 if config.train.precision != "32-true" else torch.float32
    parts: dict[str, list[float]] = {}
    last = [0.0]

    def lap(part: str) -> None:
        _wait()
        now = time.perf_counter()
        parts.setdefault(part, []).append(1000 * (now - last[0]))
        last[0] = now

    for epoch in range(repeats + 2):
        _wait()
        last[0] = time.perf_counter()
        views = torch.cat(two_views(config.augment, images, places, seed=0, epoch=epoch))
        x = module._normalised(views)  # noqa: SLF001
        lap("views")
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            h: Tensor = module.model.shared(x)
            lap("shared blocks")
            routing = module.model.gate(h)
            lap("gate")
            from moe.experts import weighted_sum

            z = weighted_sum(module.model.experts, h, routing)
            lap("experts")
            z_a, z_b = z.chunk(2)
            loss = module.contrast(z_a, z_b)
        lap("projection, NT-Xent")
        loss.backward()
        lap("backward")
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        lap("clipping, Adam")
    return {part: statistics.median(times[2:]) for part, times in parts.items()}


def main() -> None:
    """Check agreement, time all recipes in turn, print medians, spreads and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="of the per-image recipes; default: all cores"
    )
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="ours alone and beside N busy processes")
    parser.add_argument("--precision", help="train.precision; default: the preset's")
    parser.add_argument("--compile", action="store_true", help="also ours with torch.compile")
    for name in ("images", "warm_up", "steps", "rounds"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    parser.add_argument("--experts", type=int, nargs="+")
    options = parser.parse_args()
    preset = PRESETS[options.preset]
    if options.busy:
        preset = preset | _BUSY[1] | {"config": preset["config"] | _BUSY[0]}
    for name in ("images", "warm_up", "steps", "rounds", "experts"):
        if getattr(options, name) is None:
            setattr(options, name, preset[name])
    _quiet()
    device = torch.device(preset["config"]["machine.device"])
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{hardware}, {os.cpu_count()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    recipes = [name for name in RECIPES if name != "lightly" or importlib.util.find_spec("lightly")]
    for experts in options.experts:
        chosen = {"train.precision": options.precision} if options.precision else {}
        config = from_flat(preset["config"] | {"model.experts": experts} | chosen)
        if options.busy:
            print(f"\nE = {experts}, {config.data.image_size} px, batch {config.train.batch_size}")
            beside_others(config, smooth_images(options.images, config.data.image_size), options)
            continue
        _compare(config, smooth_images(options.images, config.data.image_size), recipes, options)


def _compare(config: RunConfig, pixels: Pixels, recipes: list[str], options: Any) -> None:
    size, batch = config.data.image_size, config.train.batch_size
    print(
        f"\nE = {config.model.experts}, {size} px, batch {batch}, width {config.model.width}, {config.train.precision}"
    )
    losses = check_agreement(config, pixels, recipes, torch.device(config.machine.device))
    print("losses of the same views agree:", ", ".join(f"{name} {loss:.5f}" for name, loss in losses.items()))
    rows = [(name, False) for name in recipes] + ([("ours", True)] if options.compile else [])
    speeds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, compiled in rows:
            speed = views_per_second(name, config, pixels, options, compiled=compiled)
            speeds.setdefault(f"{name}, compiled" if compiled else name, []).append(speed)
    for name, values in speeds.items():
        ratios = [ours / other for ours, other in zip(speeds["ours"], values, strict=True)]
        print(
            f"{name:15} {statistics.median(values):9.0f} views/s ({min(values):.0f} to {max(values):.0f})"
            f"   ours is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    parts = where_the_time_goes(config, pixels, options.steps)
    total = sum(parts.values())
    print("our step:", "; ".join(f"{part} {ms:.1f} ms ({100 * ms / total:.0f} %)" for part, ms in parts.items()))


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
