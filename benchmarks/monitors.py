"""What the callbacks cost an epoch, at paper size: `python benchmarks/monitors.py [--wandb]`.

5,000 validation images, 100,000 training images in two views, E = 16, k = 2, 10 classes, batches of 256, with CSV
files and pictures. The hooks are called as Lightning calls them, on records made beforehand; median of repeats.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from callbacks.monitors import Coactivation, FewestViews, LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from moe.routing import Routing, RoutingRecord

EXPERTS, TOP_K, BATCH, TRAINING, VALIDATION = 16, 2, 256, 100_000, 5_000
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
REPEATS = 9
VIEWS_PER_SECOND = 33_000  # what training is to reach on a large GPU


def records(images: int, *, labelled: bool) -> list[RoutingRecord]:
    """The records of an epoch's steps, from random logits that know the class a little."""
    generator = torch.Generator().manual_seed(0)
    likes = 1.5 * torch.randn(len(CLASSES), EXPERTS, generator=generator)

    def routing(labels: torch.Tensor) -> Routing:
        logits = torch.randn(len(labels), EXPERTS, generator=generator) + likes[labels]
        kept, indices = logits.topk(TOP_K, dim=1)
        return Routing(logits, indices, kept.softmax(dim=1))

    steps = []
    for start in range(0, images, BATCH):
        labels = torch.randint(len(CLASSES), (min(BATCH, images - start),), generator=generator)
        clean = (routing(labels), labels) if labelled else (None, None)
        views = routing(labels), routing(labels)
        counts = (views[0].load() + views[1].load()).tolist()
        steps.append(RoutingRecord(*views, *clean, views_E=None if labelled else counts))
    return steps


def milliseconds(action: Callable[[], None]) -> float:
    """Median of repeats, after one that is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def epoch(monitor: Any, stage: str, steps: Sequence[RoutingRecord], trainer: Any, module: Any) -> None:
    """One epoch of a stage."""
    if stage == "train":
        monitor.on_train_epoch_start(trainer, module)
        for number, step in enumerate(steps):
            monitor.on_train_batch_end(trainer, module, {"routing": step}, None, number)
        monitor.on_train_epoch_end(trainer, module)
    else:
        monitor.on_validation_epoch_start(trainer, module)
        for number, step in enumerate(steps):
            monitor.on_validation_batch_end(trainer, module, {"routing": step}, None, number)
        monitor.on_validation_epoch_end(trainer, module)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wandb", action="store_true", help="with an offline W&B logger taking pictures and tables")
    with_wandb = parser.parse_args().wandb
    torch.set_num_threads(1)
    steps = {"train": records(TRAINING, labelled=False), "val": records(VALIDATION, labelled=True)}
    with tempfile.TemporaryDirectory() as folder:
        loggers = []
        if with_wandb:
            from lightning.pytorch.loggers import WandbLogger

            os.environ["WANDB_SILENT"] = "true"
            loggers.append(WandbLogger(save_dir=folder, offline=True, project="cost"))
            _ = loggers[0].experiment
        trainer = SimpleNamespace(
            sanity_checking=False, is_global_zero=True, world_size=1, loggers=loggers, current_epoch=3,
            state=SimpleNamespace(fn="fit"), strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        module = SimpleNamespace(log_dict=lambda _values, **_options: None)
        monitors = [
            LoadBalanceMonitor(),
            FewestViews(),
            ViewAgreementMonitor(),
            Coactivation(Path(folder)),
            RoutingHeatmap(Path(folder), CLASSES),
        ]
        total = 0.0
        for monitor in monitors:
            monitor.setup(trainer, module, "fit")
            cost = {
                stage: milliseconds(lambda m=monitor, s=stage: epoch(m, s, steps[s], trainer, module))
                for stage in getattr(monitor, "stages", ("train",))
            }
            total += sum(cost.values())
            print(f"{type(monitor).__name__:22}" + "".join(f"{s:>8} {ms:6.1f} ms" for s, ms in cost.items()))
        print(f"{'all':22}{'epoch':>8} {total:6.1f} ms")
        seconds = 2 * TRAINING / VIEWS_PER_SECOND
        print(f"{total / seconds / 10:.2f} % of an epoch at {VIEWS_PER_SECOND:,} views/s (wanted: under 2 %)")


if __name__ == "__main__":
    main()
