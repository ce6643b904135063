"""How often the probes' p-values and intervals are wrong: simulations of data whose truth is known.

    python -m benchmarks.calibrate                 all, some minutes; the figures in docs/probes.md
    python -m benchmarks.calibrate --repeats 200   quicker and less exact

A p-value is right if 5% of simulations without an effect have p <= 0.05, an interval if 95% of simulations have the
truth in it. tests/probes/statistics/test_calibration.py runs the same with fewer repeats.

Axes: n images, C classes, E experts, R runs.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks import calibrate_claims as claims
from benchmarks.geometry_calibration import covered, unrelated
from benchmarks.planted import said_lines
from probes.statistics import (
    animacy_test,
    correlations,
    expert_differences,
    image_spread,
    mean_over_experts,
    most_exciting,
    overlap,
    overlap_null,
    p_value,
    pair_folds,
    pairwise_separability,
    ranked_rdms,
    recurrence,
    run_spread,
    similarity_interval,
)
from probes.statistics.pair_vectors import MEASURES

ALPHA = 0.05
Floats = NDArray[np.float64]
Random = np.random.Generator


# --- animacy: classes differ, but not by animacy -----------------------------------------------------------------


def _scores_of_classes(rng: Random, labels_n: NDArray[np.int64], experts: int, common: float) -> Floats:
    """Responses whose class means are random; experts share the part `common` of their variance."""
    C, n = int(labels_n.max()) + 1, len(labels_n)

    def shared(rows: int) -> Floats:
        return np.asarray(
            common * rng.normal(size=(rows, 1)) + (1 - common**2) ** 0.5 * rng.normal(size=(rows, experts))
        )

    return shared(C)[labels_n] + 2 * shared(n)


def animacy(rng: Random, *, classes: int = 10, animate: int = 6, experts: int = 4, common: float = 0.5) -> list[bool]:
    """Whether animacy seems to matter: over all experts, and for one or more of them after correction."""
    labels_n = np.repeat(np.arange(classes), rng.integers(10, 30, classes))
    found = animacy_test(
        _scores_of_classes(rng, labels_n, experts, common), labels_n, np.arange(classes) < animate, most=2000,
        seed=int(rng.integers(2**31)),
    )  # fmt: skip
    return [found.p <= ALPHA, bool((found.p_adjusted_E <= ALPHA).any())]


# --- most exciting inputs: gate and readout unrelated, experts alike ----------------------------------------------


def overlaps(rng: Random, *, n: int = 200, experts: int = 8, common: float = 0.9, each: int = 1) -> list[bool]:
    """Whether lists by gate and by readout seem to overlap; `each` images a concept, which are answered alike."""
    units = np.repeat(np.arange(n // each), each) if each > 1 else None

    def lists() -> NDArray[np.intp]:
        def part(columns: int) -> Floats:
            own = rng.normal(size=(n, columns))
            return own if units is None else 0.9 * rng.normal(size=(n // each, columns))[units] + 0.44 * own

        scores_nE = common * part(1) + (1 - common**2) ** 0.5 * part(experts)
        return np.stack([most_exciting(scores_n, 8) for scores_n in scores_nE.T])

    a_Ec, b_Ec = lists(), lists()
    null = overlap_null(a_Ec, b_Ec, n, draws=199, seed=int(rng.integers(2**31)), units=units)
    return [p_value(float(overlap(a_Ec, b_Ec).mean()), null) <= ALPHA]


# --- separability: classes drawn from a population ----------------------------------------------------------------


def _accuracies(rng: Random, classes: int, experts: int, *, own: float, size: float = 0.7) -> Floats:
    """Accuracies (E, C, C) of ideal observers of classes at random places in 3 dimensions.

    `own` is how much experts' views of a class's place differ, `size` the spread of the places; large ones bring
    accuracies to their ceiling.
    """
    places = size * rng.normal(size=(classes, 3)) + own * rng.normal(size=(experts, classes, 3))
    distance_ECC = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
    noise_ECC = 0.02 * np.triu(rng.normal(size=(experts, classes, classes)), k=1)
    return np.asarray(norm.cdf(distance_ECC / 2) + noise_ECC + noise_ECC.transpose(0, 2, 1))


@cache
def _true_accuracy(own: float, size: float) -> float:
    apart = np.random.default_rng(0).normal(size=(1_000_000, 3)) * (2 * (size**2 + own**2)) ** 0.5
    return float(norm.cdf(np.linalg.norm(apart, axis=1) / 2).mean())


def class_interval(rng: Random, *, classes: int = 10, size: float = 0.7) -> list[bool]:
    """Whether the mean accuracy over all classes lies in the interval."""
    low, high = mean_over_experts(_accuracies(rng, classes, 4, own=0.3, size=size)).interval()
    return [low <= _true_accuracy(0.3, size) <= high]


def equal_experts(rng: Random, *, classes: int = 10, experts: int = 2, own: float = 0.3) -> list[bool]:
    """Whether two or more experts that do not differ over all classes are called different."""
    found = expert_differences(_accuracies(rng, classes, experts, own=own))
    return [any(one.p_adjusted <= ALPHA for one in found)]


def difference_interval(rng: Random, *, classes: int = 10) -> list[bool]:
    """Whether the interval of the difference of two equal experts holds 0."""
    (found,) = expert_differences(_accuracies(rng, classes, 2, own=0.3))
    return [found.low <= 0 <= found.high]


def fitted_experts(rng: Random, *, classes: int = 10, experts: int = 2) -> list[bool]:
    """The same with images and logistic regressions in place of ideal observers."""
    labels_n = np.repeat(np.arange(classes), 25)
    folds = pair_folds(labels_n)
    places = 0.5 * rng.normal(size=(classes, 6))
    tables = []
    for _ in range(experts):
        means = places + 0.3 * rng.normal(size=places.shape)
        tables.append(
            pairwise_separability(means[labels_n] + rng.normal(size=(len(labels_n), 6)), labels_n, splits=folds)
        )
    return [any(one.p_adjusted <= ALPHA for one in expert_differences(np.stack([t.accuracy for t in tables])))]


# --- similarity: images, and runs, drawn from a population --------------------------------------------------------


def _experts(rng: Random, runs: int, experts: int) -> list[Floats]:
    """Ways to read 6 features; those of a run have something in common."""
    weights = []
    for _ in range(runs):
        of_run = np.exp(0.5 * rng.normal(size=6))
        weights += [
            np.diag(of_run * np.exp(0.6 * rng.normal(size=6))) @ rng.normal(size=(6, 8)) for _ in range(experts)
        ]
    return weights


def _shown(rng: Random, n: int) -> Floats:
    """Features of images, some of which are far more extreme than others."""
    return np.asarray(rng.normal(size=(n, 6)) * np.exp(0.4 * rng.normal(size=(n, 1))))


def _ranked(weights: list[Floats], features_n6: Floats) -> tuple[NDArray[np.float32], Floats, float]:
    ranks_NP = ranked_rdms([np.tanh(features_n6 @ weight) for weight in weights])
    similarity_NN = correlations(ranks_NP)
    return ranks_NP, similarity_NN, float(similarity_NN[np.triu_indices(len(weights), k=1)].mean())


@cache
def _true_similarity(runs: int) -> float:
    """Of one fixed run over all images; else over all images and runs."""
    rng = np.random.default_rng(0)
    if runs == 1:
        weights = _experts(np.random.default_rng(1), 1, 4)
        return float(np.mean([_ranked(weights, _shown(rng, 600))[2] for _ in range(20)]))
    return float(np.mean([_ranked(_experts(rng, runs, 4), _shown(rng, 120))[2] for _ in range(200)]))


def similarity(rng: Random, *, runs: int = 1, n: int = 60) -> list[bool]:
    """Whether the mean similarity over all images, of one run, or over images and runs, is in the interval."""
    weights = _experts(np.random.default_rng(1) if runs == 1 else rng, runs, 4)
    ranks_NP, similarity_NN, mean = _ranked(weights, _shown(rng, n))
    spreads = [image_spread(ranks_NP, n)]
    if runs > 1:
        spreads.append(run_spread(similarity_NN, np.repeat(np.arange(runs), 4)))
    low, high = similarity_interval(mean, *spreads)
    return [low <= _true_similarity(runs) <= high]


def recurring(rng: Random, *, runs: int = 10, experts: int = 4, clusters: int = 2) -> list[bool]:
    """Whether clusters that have nothing to do with runs seem to come back in more, or in fewer, than by chance."""
    labels_N = rng.integers(0, clusters, runs * experts)
    found = recurrence(labels_N, np.repeat(np.arange(runs), experts), draws=199, seed=int(rng.integers(2**31)))
    return [found.p_more <= ALPHA, found.p_fewer <= ALPHA]


# --- all of them --------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A simulation, what its events are, and the share of them that is right."""

    about: str
    simulate: Callable[[Random], list[bool]]
    low: float
    high: float
    repeats: int = 4000


FALSE = (0.03, 0.07)  # of tests at 5%
AT_MOST = (0.0, 0.07)  # of tests that are coarse or correct for several comparisons
COVERED = (0.93, 0.975)
CASES = {
    "animacy": Case("no animacy, 10 classes, 6 animate: p <= .05 | an expert clear", animacy, *AT_MOST),
    "animacy_27": Case(
        "no animacy, 27 classes, 4 animate, 16 experts: the same",
        lambda rng: animacy(rng, classes=27, animate=4, experts=16), *AT_MOST, 1000,
    ),
    "overlap": Case("gate and readout unrelated, experts alike: overlap_p <= .05", overlaps, *FALSE),
    "overlap_concepts": Case(
        "the same, 4 images a concept", lambda rng: overlaps(rng, n=400, each=4), *FALSE
    ),
    **{
        f"class_interval_{C}_{size}": Case(
            f"mean accuracy in its interval, {C} classes, places {size}",
            lambda rng, C=C, size=size: class_interval(rng, classes=C, size=size), low, 0.975,
        )
        for C, low in ((5, 0.91), (10, 0.93), (27, 0.93)) for size in (0.7, 1.5)
    },
    **{
        f"difference_{C}": Case(
            f"0 in the interval of the difference of 2 equal experts, {C} classes",
            lambda rng, C=C: difference_interval(rng, classes=C), *COVERED,
        )
        for C in (4, 10, 27)
    },
    **{
        f"equal_{C}_{E}": Case(
            f"{E} equal experts, {C} classes: some differ",
            lambda rng, C=C, E=E: equal_experts(rng, classes=C, experts=E), *AT_MOST,
        )
        for C in (4, 10, 27) for E in (2, 6)
    },
    "equal_fitted": Case("2 equal experts, 10 classes, real fits: they differ", fitted_experts, *AT_MOST, 400),
    "similarity": Case("mean similarity of a run's 4 experts in its interval, 60 images", similarity, *COVERED),
    "similarity_runs": Case(
        "the same over 10 runs and images", lambda rng: similarity(rng, runs=10, n=40), 0.93, 0.99, 1000
    ),
    "similarity_4_runs": Case(
        "the same over 4 runs and images", lambda rng: similarity(rng, runs=4, n=40), 0.93, 0.99, 1000
    ),
    **{
        f"reference_{measure}": Case(
            f"experts and a reference unrelated, {measure}: mean p <= .05 | an expert's, corrected",
            lambda rng, measure=measure: unrelated(rng, measure=measure), *FALSE,
        )
        for measure in MEASURES
    },
    "reference_classes": Case(
        "the same, a reference of unequal classes, spearman", lambda rng: unrelated(rng, classes=4), *FALSE
    ),
    **{
        f"reference_interval_{measure}_{n}": Case(
            f"mean similarity of 3 experts with a reference in its interval, {n} images, {measure}",
            lambda rng, measure=measure, n=n: covered(rng, measure=measure, n=n), *COVERED, 2000,
        )
        for measure in MEASURES for n in (60, 200)
    },
    "reference_interval_tied": Case(
        "the same, a reference of four classes, 60 images", lambda rng: covered(rng, tied=True), *COVERED, 2000
    ),
    "recurrence": Case("clusters dealt at random: in more runs | in fewer, p <= .05", recurring, *AT_MOST),
    "seeds": Case("mean over 2 configurations of 2 seeds in its interval", claims.seeds, *COVERED),
    "seeds_30": Case(
        "the same, 3 configurations of 10 seeds", lambda rng: claims.seeds(rng, cells=3, each=10), *COVERED
    ),
    "verdicts": Case("effect at the claim's edge: it holds | it does not", claims.verdicts, 0.0, 0.035),
    "line_interval": Case("r2 of a line in its interval, 300 images", claims.line_interval, *COVERED, 2000),
    "bent": Case("a straight relation seems bent", claims.bent, *AT_MOST, 2000),
    "equal_tuning": Case("equal tuning: 0 in the interval, 4 runs", claims.equal_tuning, 0.93, 1.0, 1000),
    **{
        f"bound_{C}_{E}": Case(
            f"an expert of {E} off by the bound, {C} classes: alike",
            lambda rng, C=C, E=E: claims.as_far_as_the_bound(rng, classes=C, experts=E), *AT_MOST,
        )
        for C, E in ((4, 2), (10, 2), (10, 4), (27, 2))
    },
    "within_models": Case("experts dealt to runs: more alike within, p <= .05", claims.within_models, *AT_MOST, 1000),
    "within_interval": Case("the same, 2 x 4 runs: 0 in the interval", claims.within_interval, 0.92, 1.0, 2000),
    "contrast": Case("classes at random places: animacy parts them, p <= .05", claims.contrast, *AT_MOST),
    "contrast_27": Case(
        "the same, 27 classes, 4 animate", lambda rng: claims.contrast(rng, classes=27, animate=4), *AT_MOST, 1000
    ),
    "cloud": Case("24 experts of one cloud: two clusters, p <= .05 | clusters", claims.cloud, *AT_MOST, 1000),
    "cloud_flat": Case(
        "the same, no axis of theirs larger", lambda rng: claims.cloud(rng, decay=0.0), *AT_MOST, 1000
    ),
    "clusters_found": Case(
        "2 clusters of 12, r .8 within, .4 between: 2 found | some", claims.planted_clusters, 0.5, 1.0, 500
    ),
    "clusters_found_8": Case(
        "the same of 4", lambda rng: claims.planted_clusters(rng, each=4), 0.5, 1.0, 500
    ),
    "clusters_found_4_runs": Case(
        "4 clusters of 4, r .8 within, .4 between: some found",
        lambda rng: claims.planted_clusters(rng, kinds=4, each=4)[1:], 0.9, 1.0, 500,
    ),
    "within_runs": Case("4 runs, each one cloud: clusters in them, p <= .05", claims.clusters_of_runs, *AT_MOST, 1000),
    "within_runs_found": Case(
        "the same, two kinds of experts in each run", lambda rng: claims.clusters_of_runs(rng, apart=0.8), 0.5, 1.0, 300
    ),
    "independent_40": Case("40 experts with nothing in common: two clusters", claims.structureless, 0.0, 0.05, 200),
    "two_clusters": Case("margin of two clusters in its interval, 2 x 2 runs", claims.margin_interval, 0.93, 1.0, 500),
    "two_clusters_2_runs": Case(
        "the same, 2 runs that differ much",
        lambda rng: claims.margin_interval(rng, cells=1, own=0.8), 0.93, 1.0, 500,
    ),
    "two_clusters_10_runs": Case(
        "the same, 2 x 5 runs", lambda rng: claims.margin_interval(rng, each=5), 0.93, 1.0, 500
    ),
    "recurring": Case(
        "share of 10 runs with both clusters in its interval", claims.recurring_interval, 0.93, 1.0, 2000
    ),
    "recurring_edge": Case("a share of just half: it holds | it does not", claims.recurring_edge, 0.0, 0.035, 2000),
    "traits": Case("clusters dealt at random: they differ in a trait, p <= .05", claims.traits, *AT_MOST, 2000),
    "useless_set": Case("a set that says no more: p <= .05 | interval above 0", claims.useless_set, *AT_MOST, 1000),
    "repeated_set": Case("it repeats columns: p <= .05 | interval too", claims.repeated_set, *AT_MOST, 1000),
}  # fmt: skip


def luck(repeats: int) -> float:
    """How far the share of so few simulations may lie off the range in which it is right."""
    return float(2.5 * (ALPHA * (1 - ALPHA) / repeats) ** 0.5)


def rates(case: Case, repeats: int, seed: int = 0) -> list[float]:
    """Share of the simulations in which each event of a case occurs."""
    rng = np.random.default_rng(seed)
    return [float(rate) for rate in np.mean([case.simulate(rng) for _ in range(repeats)], axis=0)]


def lines(repeats: int | None) -> Iterator[str]:
    """One line a case, the share of each event and what it should be."""
    for name, case in CASES.items():
        count = repeats or case.repeats
        found = rates(case, count)
        off = luck(count)
        verdict = "ok" if all(case.low - off <= rate <= case.high + off for rate in found) else "WRONG"
        shares = " | ".join(f"{rate:.3f}" for rate in found)
        yield f"{verdict:6}{name:33}{shares:16}{case.low:.2f}..{case.high:.3f}  {count:5} x  {case.about}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, help="of every simulation, instead of its own number")
    parser.add_argument("--sweeps", type=int, default=40, help="whole sweeps whose claims are all true, and none")
    options = parser.parse_args()
    for line in chain(lines(options.repeats), said_lines(options.sweeps) if options.sweeps else ()):
        print(line, flush=True)
