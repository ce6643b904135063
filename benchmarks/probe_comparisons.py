"""The comparisons of probes.py: data, timing, and the table's rows.

Axes: n images, p predictors, t targets, d readout units, c classes, N experts.
"""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import literal_probes as literal
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from moe.config import ModelConfig
from moe.model import build_model
from probes.statistics.separability import pair_folds, pairwise_separability
from probes.statistics.similarity import second_order
from probes.statistics.tuning import ALPHAS, cross_validated, fit_tuning

STL10, THINGS = "STL-10 size", "THINGS size"
FULL: dict[str, Any] = {
    "rounds": 3, "targets": 32, "literal targets": 2, "permuted": 320, "experts": 4, "units": (128, 64),
    "classes": {STL10: (5000, 10, 1), THINGS: (12863, 27, 1)},
    "similarity": (160, 1854, 40), "model": [(4, 1.0, 96, 8), (16, 1.0, 96, 8)],
}  # fmt: skip
QUICK: dict[str, Any] = {
    "rounds": 1, "targets": 8, "literal targets": 1, "permuted": 40, "experts": 2, "units": (64,),
    "classes": {STL10: (1000, 5, 1), THINGS: (2000, 12, 8)},
    "similarity": (24, 500, 10), "model": [(4, 0.25, 48, 8)],
}  # fmt: skip


@dataclass
class Row:
    """One comparison."""

    name: str
    wanted: str
    allowed: float
    note: str = ""
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    difference: float = 0.0

    def show(self) -> None:
        """Print it.

        Raises:
            SystemExit: the results differ by more than is allowed.

        """
        ratios = [slow / fast for slow, fast in zip(self.reference, self.ours, strict=True)]
        ours, reference, ratio = (statistics.median(values) for values in (self.ours, self.reference, ratios))
        spread = f"({min(ratios):.1f} to {max(ratios):.1f})"
        print(
            f"{self.name:34} {ours:9.3f} s {reference:11.2f} s {ratio:8.1f} {spread:20} {self.wanted:>10}"
            f" {self.difference:10.1e} {self.allowed:8.0e}   {self.note}",
            flush=True,
        )
        if not self.difference <= self.allowed:
            raise SystemExit(f"{self.name}: results differ by {self.difference}, {self.allowed} is allowed")


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it returned."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def ratings() -> tuple[np.ndarray, str]:
    """Predictors (1854, 66) and where they come from."""
    folder = Path(os.environ.get("MOE_SHARED_DATA", Path(__file__).parents[1] / "shared" / "data"))
    path = folder / "things" / "spose_embedding_66d_sorted.txt"
    if path.is_file():
        return np.maximum(np.loadtxt(path), 0.0), "real ratings"
    rng = np.random.default_rng(0)
    return rng.exponential(size=(1854, 66)) * (rng.random((1854, 66)) < 0.4), "random ratings"


def standardised(A_nk: np.ndarray) -> np.ndarray:
    """z-scores of the columns."""
    return (A_nk - A_nk.mean(axis=0)) / A_nk.std(axis=0)


def tuning_rows(size: dict[str, Any]) -> None:
    """Nested cross-validation of targets tuned to a few dimensions each, of which noise hides more or less."""
    X_np, source = ratings()
    X_np = standardised(X_np)
    rng = np.random.default_rng(1)
    targets, few = size["targets"], size["literal targets"]
    weights_tp = rng.exponential(size=(targets, 66)) * (rng.random((targets, 66)) < 0.15)
    Y_nt = standardised(X_np @ weights_tp.T) + rng.uniform(0.5, 2.0, size=targets) * rng.normal(size=(1854, targets))
    Y_nt = standardised(Y_nt)
    row = Row(f"tuning, {targets} targets, {source}", "60, aim 200", 1e-8, f"reference: {few} of {targets} targets")
    for number in range(size["rounds"]):
        ours, found = timed(lambda: fit_tuning(X_np, Y_nt))
        chosen = [(number * few + place) % targets for place in range(few)]
        seconds, _ = timed(lambda some=chosen: [literal.tuning(X_np, Y_nt[:, t], ALPHAS, 1e-4) for t in some])
        row.ours.append(ours)
        row.reference.append(seconds * targets / few)
        for target in chosen:
            r2, coef = literal.tuning(X_np, Y_nt[:, target], ALPHAS, 1e-10)
            errors = np.abs(found.r2[target] - r2).max(), np.abs(found.coef[target] - coef).max()
            row.difference = max(row.difference, *map(float, errors))
    row.show()
    permuted_nt = rng.permuted(np.tile(Y_nt, (1, -(-size["permuted"] // targets))), axis=0)
    seconds, r2_tf = timed(lambda: cross_validated(X_np, permuted_nt).r2)
    print(f"  r2 of permuted targets: {1000 * seconds / len(r2_tf):.1f} ms a target, mean r2 {r2_tf.mean():.4f}")


def readouts_of_classes(images: int, classes: int, d: int, expert: int, *, equal: bool) -> tuple[Any, Any]:
    """Correlated readouts whose class means differ; classes equal in size, or as unequal as THINGS' categories."""
    rng = np.random.default_rng([images, d, expert])
    share = np.ones(classes) if equal else np.random.default_rng(2).lognormal(0.0, 0.9, classes)
    counts = np.maximum((images * share / share.sum()).astype(int), 20)
    counts[counts.argmax()] += images - counts.sum()
    labels_n = np.random.default_rng(3).permutation(np.repeat(np.arange(classes), counts))
    mixing_dd = rng.normal(size=(d, d)) / np.sqrt(np.arange(1, d + 1))
    means_cd = 2.0 * rng.normal(size=(classes, d)) / np.sqrt(d)
    Z_nd = (rng.normal(size=(images, d)) + means_cd[labels_n]) @ mixing_dd
    return (3 * Z_nd / Z_nd.std()).astype(np.float32), labels_n


def separability_rows(size: dict[str, Any]) -> None:
    """Every pair of classes; folds are made once for all experts of a model, as the probe does."""
    wanted = {(STL10, 128): "5", (STL10, 64): "8", (THINGS, 128): "4", (THINGS, 64): "10"}
    for name, (images, classes, every) in size["classes"].items():
        for d in size["units"]:
            pairs = list(combinations(range(classes), 2))
            part = pairs[::every]
            experts = size["experts"]
            note = f"{experts} experts share their folds" + (f"; reference: every {every}th pair" if every > 1 else "")
            row = Row(f"separability, {name}, d = {d}", wanted[name, d], 1e-12, note)
            means = []
            for expert in range(size["rounds"]):
                Z_nd, labels_n = readouts_of_classes(images, classes, d, expert, equal=name == STL10)
                splitting, splits = timed(lambda labels=labels_n: pair_folds(labels))
                ours, found = timed(lambda Z=Z_nd, y=labels_n, s=splits: pairwise_separability(Z, y, splits=s))
                seconds, expected = timed(lambda Z=Z_nd, y=labels_n, p=part: literal.separability(Z, y, p))
                # once before and once after, since other work on the machine comes and goes
                again, _ = timed(lambda Z=Z_nd, y=labels_n, s=splits: pairwise_separability(Z, y, splits=s))
                counts = np.bincount(labels_n)
                all_images, part_images = (
                    sum(int(counts[list(pair)].sum()) for pair in some) for some in (pairs, part)
                )
                row.ours.append((ours + again) / 2 + splitting / experts)
                row.reference.append(seconds * all_images / part_images)
                error = np.abs([found.accuracy[pair] for pair in part] - np.array(expected)).max()
                row.difference = max(row.difference, float(error))
                means.append(found.mean())
            row.note += f"; mean accuracy {statistics.mean(means):.2f}"
            row.show()


def readouts_of_experts(experts: int, images: int) -> list[Any]:
    """Readouts that share a part of their geometry; with the paper's numbers of units; some duplicate images."""
    rng = np.random.default_rng(4)
    shared_nd = rng.normal(size=(images, 20))
    readouts = []
    for expert in range(experts):
        d = (128, 90, 64)[expert % 3]
        Z_nd = shared_nd @ rng.normal(size=(20, d)) / 5 + rng.normal(size=(images, d))
        Z_nd[-5:] = Z_nd[:5]
        readouts.append(np.maximum(Z_nd, 0).astype(np.float32))
    return readouts


def similarity_in_a_process(experts: int, images: int) -> tuple[float, Any, float]:
    """Seconds, matrix, and the peak memory in GiB of a process that does nothing else."""
    with threadpool_limits(1):
        readouts = readouts_of_experts(experts, images)
        seconds, matrix_NN = timed(lambda: second_order(readouts))
    return seconds, matrix_NN, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def similarity_rows(size: dict[str, Any]) -> None:
    """All pairs of experts against a part of them."""
    experts, images, part = size["similarity"]
    readouts = readouts_of_experts(experts, images)
    pairs = list(combinations(range(experts), 2))
    chosen = [pairs[place] for place in np.random.default_rng(5).choice(len(pairs), part, replace=False)]
    row = Row(f"similarity, {experts} x {images:,} images", "200", 1e-12, f"reference: {part} of {len(pairs):,} pairs")
    memory = 0.0
    for _ in range(min(size["rounds"], 2)):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            ours, found_NN, peak = pool.submit(similarity_in_a_process, experts, images).result()
        seconds, expected = timed(lambda: literal.similarity(readouts, chosen))
        row.ours.append(ours)
        row.reference.append(seconds * len(pairs) / part)
        error = np.abs([found_NN[pair] for pair in chosen] - np.array(expected)).max()
        row.difference, memory = max(row.difference, float(error)), max(memory, peak)
    row.note += f"; peak memory of the process {memory:.2f} GiB"
    row.show()


def activation_rows(size: dict[str, Any]) -> None:
    """Readouts of every image from every expert, the shared blocks run once or anew for each."""
    for experts, width, side, images in size["model"]:
        torch.manual_seed(0)
        model = build_model(ModelConfig(experts=experts, width=width)).eval().to(memory_format=torch.channels_last)
        x = torch.randn(images, 3, side, side).contiguous(memory_format=torch.channels_last)
        row = Row(f"activations, E = {experts}, width {width:g}", "reported", 1e-6, f"{images} images of {side} px")
        with torch.inference_mode():
            model.all_readouts(x)
            for _ in range(size["rounds"]):
                ours, (_, found) = timed(lambda m=model, x=x: m.route_and_readouts(x))
                seconds, expected = timed(lambda m=model, x=x: literal.readouts(m, x))
                row.ours.append(ours)
                row.reference.append(seconds)
                row.difference = max(row.difference, float((found - expected).abs().max()))
        row.show()


PROBES = {
    "tuning": tuning_rows,
    "separability": separability_rows,
    "similarity": similarity_rows,
    "activations": activation_rows,
}


def print_table(*, quick: bool, names: Sequence[str]) -> None:
    """Print the rows of some probes, or of all."""
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread used, {time.strftime('%Y-%m-%d')}")
    print(
        f"{'':34} {'ours':>11} {'reference':>13} {'ratio':>8} {'(rounds)':20} {'wanted':>10} {'difference':>10}"
        f" {'allowed':>8}"
    )
    with threadpool_limits(1):
        for name in names or PROBES:
            PROBES[name](QUICK if quick else FULL)
