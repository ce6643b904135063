"""What a sweep found, in sentences with numbers, and what is missing with the command that fills it."""

from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from statistics import fmean, stdev
from typing import Any, NamedTuple

from callbacks.keys import Keys
from sweeps.views.compare import Comparison, Gap, Group

_SIGNIFICANT = 0.05
_WITHIN = "silhouette_within_runs"
_RECURS, _FEWER = "runs_in_every_cluster_E", "_p_fewer"
TOGETHER = "--"  # between the names of sets of images that a probe was asked of together


class Sentence(NamedTuple):
    """One finding.

    Attributes:
        text: the sentence.
        section: id of the part of the page that shows it.
    """

    text: str
    section: str


class Findings(NamedTuple):
    """What a cell found.

    Attributes:
        cell: its swept parameters, in words.
        sentences: routing first, then what the probes say of each image set.
    """

    cell: str
    sentences: list[Sentence]


Numbers = Mapping[str, Any]  # a probe's result
Says = Callable[[Sequence[Numbers]], str | None]


def found(comparison: Comparison) -> list[Findings]:
    """What each cell with finished runs found."""
    return [Findings(group.label, _of_group(group)) for group in comparison.groups if group.runs]


def missing(comparison: Comparison) -> list[Gap]:
    """Runs without results and runs without the probes that others of the sweep have."""
    name = comparison.sweep.name
    gaps = list(comparison.gaps)
    runs = [run for group in comparison.groups for run in group.runs]
    done = {run.id: {(images, probe) for images, probe, _ in run.probe_results()} for run in runs}
    if runs and not any(done.values()):
        gaps.append(
            Gap("no run has been probed: nothing is known of what experts encode", f"moe probe --sweep {quote(name)}")
        )
    for images, probe in sorted(set().union(*done.values())) if done else ():
        without = [run for run, probes in done.items() if (images, probe) not in probes]
        if without:
            text = f"{probe} on {images} is missing for {len(without)} of {len(runs)} runs"
            sets = " ".join(f"--images {quote(one)}" for one in images.split(TOGETHER))
            gaps.append(Gap(text, f"moe probe --sweep {quote(name)} {sets} --probe {probe}"))
    return gaps


def _of_group(group: Group) -> list[Sentence]:
    said = [Sentence(text, "training") for text in _routing_words([run.summary.get("last", {}) for run in group.runs])]
    found: dict[str, dict[str, list[Numbers]]] = {}  # image set -> probe -> a result for each run that has one
    for run in group.runs:
        for images, probe, numbers in run.probe_results():
            found.setdefault(images, {}).setdefault(probe, []).append(numbers)
    for images, by_probe in found.items():
        for probe, (words, section) in _SAYS.items():
            results = [numbers for numbers in by_probe.get(probe, []) if numbers]
            if results and (text := words(results)):
                said.append(Sentence(f"{images}: {text}", section))
    return said


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and, of several, sample standard deviation: ``0.46 ± 0.03``."""
    mean = f"{fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{digits}f}"


def _range(counts: Sequence[float]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _known(results: Sequence[Numbers], key: str) -> list[float]:
    return [float(result[key]) for result in results if isinstance(result.get(key), int | float)]


def _routing_words(rows: Sequence[Numbers]) -> list[str]:
    agreement, chance = _known(rows, Keys.AGREEMENT), _known(rows, Keys.CHANCE_OBSERVED)
    dead = _known(rows, Keys.DEAD)
    words = []
    if agreement and chance:
        words.append(
            f"two views of an image go to the same experts in {spread(agreement)} of cases ({spread(chance)} by chance)"
        )
    if dead:
        words.append(
            "every expert is in use" if not sum(dead) else f"{fmean(dead):.3g} experts a run get no validation image"
        )
    return words


def _tuning_words(results: Sequence[Numbers]) -> str | None:
    gate, readout = _known(results, "gate_r2"), _known(results, "readout_r2")
    if not gate or not readout:
        return None
    p = _known(results, "gate_r2_p") + _known(results, "readout_r2_p")
    explained = f"{spread(gate)} of the variance of gate logits and {spread(readout)} of that of readouts"
    if not p:
        return f"rated dimensions explain {explained}"
    certain = "more than by chance" if max(p) <= _SIGNIFICANT else "not everywhere more than by chance"
    return f"rated dimensions explain {explained}, {certain}"


def _separability_words(results: Sequence[Numbers]) -> str | None:
    mean = _known(results, "mean")
    return f"an expert's readout tells two classes apart with accuracy {spread(mean)} (chance 0.5)" if mean else None


def _similarity_words(results: Sequence[Numbers]) -> str | None:
    mean, clusters = _known(results, "mean_similarity"), _known(results, "clusters")
    if not mean:
        return None
    p = _known(results, "silhouette_p")
    certain = ", not everywhere clearer than by chance" if p and max(p) > _SIGNIFICANT else ""
    groups = f", in {_range(clusters)} clusters{certain}" if clusters else ""
    return f"experts of a run represent images alike: rank correlation {spread(mean)}{groups}"


def cluster_words(result: Numbers) -> str:
    """What is to be said of the clusters of all runs' experts; nothing where there are none.

    Args:
        result: of the similarity probe over the runs.
    """
    known = {key: value for key in result for value in _known([result], key)}
    if "clusters" not in known or "silhouette" not in known:
        return ""
    words = f"{known['clusters']:.0f} clusters, mean silhouette {known['silhouette']:.2f}"
    words += _beside_none(known, "silhouette")
    by_run = [
        key.removeprefix(_RECURS).removesuffix(_FEWER) for key, value in known.items()
        if key.startswith(_RECURS) and key.endswith(_FEWER) and value <= _SIGNIFICANT
    ]  # fmt: skip
    words += f". Clusters follow the runs at E = {', '.join(by_run)}." if by_run else "."
    if within := _beside_none(known, _WITHIN):
        words += f" Within single runs: mean silhouette {known[_WITHIN]:.2f}{within}."
    return words


def _beside_none(known: Mapping[str, float], key: str) -> str:
    """How a silhouette compares with that of experts without clusters, where that is known."""
    null, p = known.get(f"{key}_null"), known.get(f"{key}_p")
    if key not in known or null is None or p is None:
        return ""
    than = "more clearly parted than" if p <= _SIGNIFICANT else "no more clearly parted than"
    return f", {than} experts without clusters would be ({null:.2f}, p = {p:.2g})"


def _animacy_words(results: Sequence[Numbers]) -> str | None:
    count = _known(results, "readout_clear")
    return f"{_range(count)} readouts a run prefer animate or inanimate things clearly" if count else None


def _coupling_words(results: Sequence[Numbers]) -> str | None:
    mean = _known(results, "mean_pearson")
    return f"gate logit and readout norm of an expert correlate at {spread(mean)}" if mean else None


_SAYS: dict[str, tuple[Says, str]] = {
    "tuning": (_tuning_words, "experts"),
    "separability": (_separability_words, "comparison"),
    "similarity": (_similarity_words, "map"),
    "animacy": (_animacy_words, "experts"),
    "coupling": (_coupling_words, "comparison"),
}
