"""What the callbacks cost an epoch, at paper size: `python benchmarks/monitors.py [--wandb]`.

5,000 validation images, 100,000 training images in two views, E = 16, k = 2, D = 64, 10 classes, batches of 256, with
CSV files and pictures. The hooks are called as Lightning calls them, on records made beforehand; median of repeats, in
milliseconds of this process's CPU time with one thread. On a GPU the embeddings' part runs there: `--device cuda`.
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

from callbacks.embedding_monitor import EmbeddingMonitor
from callbacks.files import RoutingFolder
from callbacks.monitors import Coactivation, FewestViews, LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from callbacks.saturation import RoutingSaturation
from moe.embedded import EmbeddingRecord, watched
from moe.routing import Routing, RoutingRecord

EXPERTS, TOP_K, BATCH, TRAINING, VALIDATION = 16, 2, 256, 100_000, 5_000
DIMENSIONS, CHANNELS = 64, 64  # of z and of the shared features, for 16 experts
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
REPEATS = 9
STAGES = {FewestViews: ("train",), EmbeddingMonitor: ("val",)}  # of those that do not say themselves
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


def embeddings(images: int, device: torch.device) -> list[EmbeddingRecord]:
    """The records of a validation's steps, from random embeddings that know the class a little."""
    generator = torch.Generator().manual_seed(0)
    shown = watched(images)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    steps = []
    for places in torch.arange(images).split(BATCH):
        labels, some = torch.randint(len(CLASSES), places.shape, generator=generator).to(device), shown[places]
        z = [drawn(len(places), DIMENSIONS) + labels.unsqueeze(1) / len(CLASSES) for _ in range(3)]
        readouts = drawn(int(some.sum()), EXPERTS, DIMENSIONS)
        marks = places.to(device), some.to(device)
        steps.append(EmbeddingRecord(z[0], drawn(len(places), CHANNELS), z[1], z[2], labels, *marks, readouts))
    return steps


def milliseconds(action: Callable[[], None], device: torch.device) -> float:
    """Median of repeats, after one that is not counted: of CPU time, or of time until the GPU is done."""
    times, clock = [], time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(REPEATS + 1):
        start = clock()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (clock() - start))
    return statistics.median(times[1:])


def epoch(monitor: Any, stage: str, steps: Sequence[dict[str, Any]], trainer: Any, module: Any) -> None:
    """One epoch of a stage."""
    if stage == "train":
        monitor.on_train_epoch_start(trainer, module)
        for number, step in enumerate(steps):
            monitor.on_train_batch_end(trainer, module, step, None, number)
        monitor.on_train_epoch_end(trainer, module)
    else:
        monitor.on_validation_epoch_start(trainer, module)
        for number, step in enumerate(steps):
            monitor.on_validation_batch_end(trainer, module, step, None, number)
        monitor.on_validation_epoch_end(trainer, module)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wandb", action="store_true", help="with an offline W&B logger taking pictures and tables")
    parser.add_argument("--device", default="cpu", help="where the embeddings are")
    options = parser.parse_args()
    with_wandb, device = options.wandb, torch.device(options.device)
    torch.set_num_threads(1)
    routed = zip(records(VALIDATION, labelled=True), embeddings(VALIDATION, device), strict=True)
    steps: dict[str, list[dict[str, Any]]] = {
        "train": [{"routing": record} for record in records(TRAINING, labelled=False)],
        "val": [{"routing": record, "embedding": embedding} for record, embedding in routed],
    }
    with tempfile.TemporaryDirectory() as folder:
        loggers = []
        if with_wandb:
            from lightning.pytorch.loggers import WandbLogger

            os.environ["WANDB_SILENT"] = "true"
            loggers.append(WandbLogger(save_dir=folder, offline=True, project="cost"))
            _ = loggers[0].experiment
        trainer = SimpleNamespace(
            sanity_checking=False, is_global_zero=True, world_size=1, loggers=loggers, current_epoch=3,
            state=SimpleNamespace(fn="fit"), strategy=SimpleNamespace(root_device=device),
        )  # fmt: skip
        module = SimpleNamespace(log_dict=lambda _values, **_options: None)
        monitors = [
            LoadBalanceMonitor(),
            FewestViews(),
            ViewAgreementMonitor(),
            Coactivation(Path(folder)),
            RoutingHeatmap(Path(folder), CLASSES),
            RoutingSaturation(RoutingFolder(Path(folder))),
            EmbeddingMonitor(RoutingFolder(Path(folder))),
        ]
        total = 0.0
        for monitor in monitors:
            monitor.setup(trainer, module, "fit")
            cost = {
                stage: milliseconds(lambda m=monitor, s=stage: epoch(m, s, steps[s], trainer, module), device)
                for stage in getattr(monitor, "stages", STAGES.get(type(monitor), ()))
            }
            total += sum(cost.values())
            print(f"{type(monitor).__name__:22}" + "".join(f"{s:>8} {ms:6.1f} ms" for s, ms in cost.items()))
        print(f"{'all':22}{'epoch':>8} {total:6.1f} ms")
        seconds = 2 * TRAINING / VIEWS_PER_SECOND
        print(f"{total / seconds / 10:.2f} % of an epoch at {VIEWS_PER_SECOND:,} views/s (wanted: under 2 %)")


if __name__ == "__main__":
    main()
