"""Experts beside references: time and memory at the paper's size, and agreement with rsatoolbox and plain formulas.

    python benchmarks/geometry.py                    160 experts x 1,854 images, all distances and measures
    python benchmarks/geometry.py --experts 16 --images 500
    python benchmarks/geometry.py --agree            the same numbers by rsatoolbox on the same input

rsatoolbox (0.3.2 was tried) is no dependency: `pip install rsatoolbox` first.
"""

import argparse
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
EXPERTS = 16  # of a run


def made(experts: int, images: int) -> tuple[list[Array], dict[str, Array], list[Array]]:
    """Readouts of 64 units that share features, references as the probe has them, and shared features of each run."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(images, 30))
    readouts = [
        (common @ rng.normal(size=(30, 64)) + 2 * rng.normal(size=(images, 64))).astype(np.float32)
        for _ in range(experts)
    ]
    references = {
        "dimensions": np.maximum(common @ rng.normal(size=(30, 66)), 0),
        "pixels": rng.normal(size=(images, 192)) + common[:, :1],
        "categories": np.eye(27)[rng.integers(0, 27, images)],
    }
    shared = [common @ rng.normal(size=(30, 64)) for _ in range(0, experts, EXPERTS)]
    return readouts, references, shared


def used() -> float:
    """Seconds of this process on all its cores."""
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime


def timed(experts: int, images: int) -> None:
    """Everything that the probe computes of so many experts, and a part of it checked against scipy."""
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr
    from threadpoolctl import threadpool_limits

    from probes.statistics.agreement import clusters_by_measure
    from probes.statistics.pair_vectors import DISTANCES, MEASURES
    from probes.suite.geometry_compare import Setting, compare_all
    from probes.suite.geometry_references import Reference

    readouts, features, shared = made(experts, images)
    rows, every = np.arange(images), slice(0, experts)
    labelled = rows[rows % 2 == 0]  # 892 of THINGS' 1,854 concepts have one category
    references = [Reference(name, rows, every, features[name]) for name in ("dimensions", "pixels")]
    references += [
        Reference("shared", rows, slice(start, min(start + EXPERTS, experts)), mine)
        for start, mine in zip(range(0, experts, EXPERTS), shared, strict=True)
    ]
    categories = Reference("categories", labelled, every, features["categories"][labelled])
    runs = np.repeat(np.arange(len(shared)), EXPERTS)[:experts].astype(str)
    setting = Setting(DISTANCES, MEASURES, 99, 0, runs, np.full(experts, EXPERTS))
    started, before = time.perf_counter(), used()

    def step() -> None:
        print(f"{used() - before:.0f} s", end=" ", flush=True)

    with threadpool_limits(1, user_api="blas"):
        found, similarities = compare_all(readouts, references, setting, step)
        found += compare_all([readout[labelled] for readout in readouts], [categories], setting, step, others=False)[0]
        clusters_by_measure(similarities)
    wall, cpu = time.perf_counter() - started, used() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    one = next(each for each in found if each.reference == "pixels")  # Spearman of Euclidean distances comes first
    slow = spearmanr(pdist(readouts[3].astype(float)), pdist(features["pixels"])).statistic
    print()
    print(
        f"{experts} experts of {len(shared)} runs x {images:,} images, 4 kinds of references ({len(references) + 1} in "
        f"all), {len(similarities)} kinds of similarity"
    )
    print(f"{cpu:.0f} s of CPU, {wall:.0f} s on {os.cpu_count()} cores, peak memory {peak:.2f} GiB")
    print(f"off scipy's correlation by {abs(one.value_m[3] - slow):.1e}")


def agree() -> None:
    """Our numbers beside rsatoolbox's on the same input, printed with their differences."""
    import rsatoolbox
    from rsatoolbox.inference import boot_noise_ceiling, eval_bootstrap_pattern

    from probes.statistics.pair_vectors import pair_vectors
    from probes.statistics.references import compare, noise_ceiling, unit
    from probes.statistics.similarity import centred_ranks, correlations
    from probes.statistics.spreads import influence_spread

    rng = np.random.default_rng(0)
    n, subjects = 60, 6
    common = rng.normal(size=(n, 5))
    patterns = [common @ rng.normal(size=(5, 8)) + rng.normal(size=(n, 8)) for _ in range(subjects)]
    vectors = pair_vectors(patterns, "euclidean", "spearman")
    theirs = rsatoolbox.rdm.calc_rdm([rsatoolbox.data.Dataset(each) for each in patterns], method="euclidean")
    names = {
        "compare, Spearman": np.abs(rsatoolbox.rdm.compare(theirs, theirs, "spearman") - correlations(vectors)).max()
    }
    ranked = rsatoolbox.rdm.RDMs(vectors.astype(float) - vectors.min() + 1)
    low, high = noise_ceiling(correlations(vectors))
    of_ranks = boot_noise_ceiling(ranked, method="corr")
    names["noise ceiling, ranks correlated"] = max(abs(of_ranks[0] - low.mean()), abs(of_ranks[1] - high.mean()))
    again = boot_noise_ceiling(theirs, method="spearman")
    names["noise ceiling, mean ranks ranked again"] = max(abs(again[0] - low.mean()), abs(again[1] - high.mean()))
    model = rsatoolbox.model.ModelFixed("common", rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(common), "euclidean"))
    np.random.seed(0)  # noqa: NPY002 - what rsatoolbox draws from
    drawn = eval_bootstrap_pattern([model], theirs.subset("index", [0]), method="spearman", N=1000)
    reference = unit(centred_ranks(model.rdm_obj.get_vectors()[0]))
    (found,) = compare(vectors[:1], [reference], n, ranked=True, draws=0, seed=0)
    ours = influence_spread(found.influence_Nn[0]).variance ** 0.5
    for name, difference in names.items():
        print(f"{name:42} differs by {difference:.1e}")
    boot = float(np.nanstd(drawn.evaluations))
    print(f"{'sd over images, bootstrap of 1,000':42} {boot:.4f}; by influences {ours:.4f}")


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=160)
    parser.add_argument("--images", type=int, default=1854)
    parser.add_argument("--agree", action="store_true", help="compare with rsatoolbox")
    options = parser.parse_args()
    # Python puts this file's folder first, where `probes.py` would hide the package `probes`.
    folder = Path(__file__).parent
    sys.path[:] = [str(folder.parent), *(path for path in sys.path if Path(path or ".").resolve() != folder.resolve())]
    agree() if options.agree else timed(options.experts, options.images)


if __name__ == "__main__":
    main()
