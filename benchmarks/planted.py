"""Sweeps that never ran: gates and readouts made up so that the paper's claims are true of them, or are not.

    python -m benchmarks.planted        CPU time of every claim at the paper's size, 10 runs of 16 experts, 1,854 images

Axes: n images, E experts of a run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from moe.config import from_flat
from moe.data.store import Images, ImageStore, write_store
from probes.activations import Activations
from probes.statistics.verdicts import Verdict, verdict
from probes.subject import Subject
from probes.suite.claims_asked import Asked, Options
from probes.suite.claims_probe import MEASURES, ClaimsProbe
from sweeps.runs.store import RunStore

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
ANIMATE = np.array([name not in {"airplane", "car", "ship", "truck"} for name in CLASSES])
RUNS = (4, 4, 4, 6, 6, 6)
"""Experts of each run: two configurations of three seeds."""
Floats = NDArray[np.float64]
Random = np.random.Generator


def store(
    folder: Path, rng: Random, n: int = 200, *, rated: bool = True, labelled: bool = True,
    classes: Sequence[str] = CLASSES, dimensions: int = 8,
) -> ImageStore:  # fmt: skip
    """Noise in classes, with rated dimensions: three are classes, the others have nothing to do with them."""
    labels = np.arange(n) % len(classes)
    known = np.eye(len(classes))[labels][:, :3]
    factors = np.hstack([known, rng.random((n, dimensions - 3))]).astype(np.float32)
    content = Images(
        rng.integers(0, 256, (n, 12, 12, 3)).astype(np.uint8), [f"i{k:05d}" for k in range(n)], "made",
        labels if labelled else None, tuple(classes) if labelled else (),
        factors if rated else None, tuple(f"d{k}" for k in range(dimensions)) if rated else (),
    )  # fmt: skip
    return write_store("made", content, folder / "data", replace=True)


def sweep(
    folder: Path, experts: Sequence[int] = RUNS, n: int = 200, *, seed: int = 0, true: bool = True,
    rated: bool = True, labelled: bool = True,
) -> list[Subject]:  # fmt: skip
    """Runs in which every claim is true, or every claim is not.

    Args:
        folder: for the images and the runs.
        experts: of each run.
        n: number of images.
        seed: of what is made up.
        true: gates follow the dimensions, norms bend with the gate, loosely; experts of two kinds, in every run, read
            other features and prefer animate things or inanimate ones; animacy is the largest feature of both. Else
            gates and norms follow classes alone, the norms better, and norms follow gates on a line; what experts read
            is their run's own, classes are at random places, one expert of a run tells them apart worse.
        rated: whether images have dimensions.
        labelled: whether they have classes.
    """
    rng = np.random.default_rng(seed)
    images = store(folder, rng, n, rated=rated, labelled=labelled)
    labels = np.arange(n) % len(CLASSES)
    factors = rng.random((n, 8)) if images.factors_NF is None else images.factors_NF.astype(np.float64)
    made = _true_runs(rng, labels, factors, experts) if true else _false_runs(rng, labels, factors, experts)
    return _subjects(folder, images, made)


def large(folder: Path, runs: int, experts: int, n: int) -> list[Subject]:
    """Runs of experts with 64 units that share features, on images in 27 classes with 66 dimensions, as THINGS has."""
    rng = np.random.default_rng(0)
    names = [*CLASSES, *(f"class {number}" for number in range(27 - len(CLASSES)))]
    images = store(folder, rng, n, classes=names, dimensions=66)
    features = rng.normal(size=(n, 30)) + rng.normal(size=(27, 30))[np.arange(n) % 27]
    made = []
    for _ in range(runs):
        readouts = np.stack(
            [features @ rng.normal(size=(30, 64)) + 2 * rng.normal(size=(n, 64)) for _ in range(experts)]
        )
        made.append((features[:, :1] + rng.normal(size=(n, experts)), readouts))
    return _subjects(folder, images, made)


def _subjects(folder: Path, images: ImageStore, made: Sequence[tuple[Floats, Floats]]) -> list[Subject]:
    subjects = []
    for place, (logits, readouts) in enumerate(made):
        size = len(readouts)
        config = from_flat({"model.experts": size, "model.top_k": min(2, size), "seed": place, "data.name": "made"})
        run = RunStore(folder / "runs").create(config)
        indices = np.argsort(-logits, axis=1)[:, : min(2, size)]
        weights = np.full(indices.shape, 1 / indices.shape[1], np.float32)
        found = Activations(logits.astype(np.float32), indices, weights, readouts.astype(np.float32))
        subjects.append(Subject(run, images, found))
    return subjects


def said_of(sweeps: int, *, true: bool, seed: int = 0) -> dict[str, Counter[str]]:
    """How often each verdict was given on each claim, of so many sweeps of which all claims are true, or none is."""
    options = Options(**dict(ClaimsProbe(permutations=39, halves=20)))
    found: dict[str, Counter[str]] = {name: Counter() for name in MEASURES}
    for number in range(sweeps):
        with TemporaryDirectory() as folder:
            asked = Asked(sweep(Path(folder), seed=seed + number, true=true), options)
            for name, measure in MEASURES.items():
                one = measure(asked)
                found[name][verdict(*one.bounds, one.region, one.p)] += 1
    return found


def said_lines(sweeps: int) -> Iterator[str]:
    """A line a claim: the shares of right, of no, and of wrong verdicts, where it is true and where it is not."""
    worlds = {True: said_of(sweeps, true=True), False: said_of(sweeps, true=False)}
    yield f"verdicts of {sweeps} sweeps of 2 x 3 runs, 200 images: right, cannot tell, wrong; all claims true | none"
    for name in MEASURES:
        shares = []
        for true, found in worlds.items():
            order = (Verdict.HOLDS, Verdict.CANNOT_TELL, Verdict.FAILS)
            shares.append(", ".join(f"{found[name][one] / sweeps:.2f}" for one in (order if true else order[::-1])))
        yield f"  {name:38}{' | '.join(shares)}"


def _true_runs(
    rng: Random, labels: NDArray[np.int64], factors: Floats, experts: Sequence[int]
) -> list[tuple[Floats, Floats]]:
    n = len(labels)
    features = rng.normal(size=(2, n, 6)) + rng.normal(size=(10, 6))[labels]  # of either kind
    side = np.where(ANIMATE[labels], 1.0, -1.0)
    runs = []
    for size in experts:
        logits, readouts = np.empty((n, size)), np.empty((size, n, 8))
        for e in range(size):
            logits[:, e] = 3 * factors[:, 3 + e % 5] + 0.2 * rng.normal(size=n)
            seen = features[e % 2] @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 0.3 * rng.normal(size=(n, 6))
            directions = np.column_stack([2.5 * side, 0.1 * rng.normal(size=n), seen])
            steps = 0.15 * (logits[:, e] > np.quantile(logits[:, e], 0.8))
            gain = np.abs(1 + steps + 0.03 * (-1) ** e * side + 0.04 * rng.normal(size=n))
            readouts[e] = directions * (gain / np.linalg.norm(directions, axis=1))[:, None]
        runs.append((logits, readouts))
    return runs


def _false_runs(
    rng: Random, labels: NDArray[np.int64], factors: Floats, experts: Sequence[int]
) -> list[tuple[Floats, Floats]]:
    n, runs = len(labels), []
    for size in experts:
        logits, readouts = np.empty((n, size)), np.empty((size, n, 8))
        features = rng.normal(size=(n, 8)) + 1.5 * rng.normal(size=(10, 8))[labels]  # of this run
        for e in range(size):
            follows = factors[:, :3] @ rng.permutation([1.0, 2.0, 3.0])
            logits[:, e] = follows + rng.normal(size=n)
            norms = 10 + logits[:, e] + follows + 0.3 * rng.normal(size=n)
            seen = features @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + (4.0 if e == 0 else 0.3) * rng.normal(
                size=(n, 8)
            )
            readouts[e] = seen * (norms / np.linalg.norm(seen, axis=1))[:, None]
        runs.append((logits, readouts))
    return runs


def timed(runs: int = 10, experts: int = 16, n: int = 1854) -> Iterator[str]:
    """A line a claim: seconds on all cores; what claims share counts for the first of them."""
    with TemporaryDirectory() as folder, threadpool_limits(1, user_api="blas"):
        asked = Asked(large(Path(folder), runs, experts, n), Options(**dict(ClaimsProbe(animate=CLASSES[1:2]))))
        for name, measure in MEASURES.items():
            before = process_time()
            measure(asked)
            yield f"{name:38}{process_time() - before:6.1f} s"
    yield f"{'all':38}{process_time():6.1f} s, peak memory {getrusage(RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


if __name__ == "__main__":
    for line in timed():
        print(line, flush=True)
