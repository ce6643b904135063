"""Means over pairs of classes: how far would they move, had other classes been chosen?

The accuracies of pairs are not independent, since two pairs may share a class. With classes as a random sample, a
symmetric table of pairs is a mean, an effect of each class and a rest of each pair,
``a_ij = m + u_i + u_j + e_ij`` (the half diallel of Griffing 1956, method 4; for any other table the decomposition of
Hoeffding 1948, in which the parts are uncorrelated). Mean squares of the two parts give the variance of the mean,
``4 var(u) / C + 2 var(e) / (C (C - 1))``, and Satterthwaite's degrees of freedom the quantile of Student's t.
A bootstrap of the classes is too narrow for ten of them.

Tests between experts look far into the tails, where these degrees of freedom promise too much: of six equal experts
two would differ in one of ten sets of classes. There the jackknife, which counts var(e) twice, keeps the level with
C - 1 degrees of freedom (benchmarks/calibrate.py has the rates of both).

Axes: C classes, E experts.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from probes.statistics.resampling import LEVEL, Interval, holm

MIN_CLASSES = 4  # three classes leave no rest to estimate
_NEGLIGIBLE = 1e-12  # accuracies differ by no less than one image


class PairMean(NamedTuple):
    """The mean over pairs of classes, with its uncertainty over classes.

    Attributes:
        mean: over all defined pairs; NaN without any.
        error: its standard error; NaN with fewer than four classes between which all pairs are defined.
        freedom: degrees of freedom of that.
        jackknife: the standard error by leaving out each class, which is too large rather than too small.
        classes: how many classes the errors rest on.
    """

    mean: float
    error: float
    freedom: float
    jackknife: float
    classes: int

    def interval(self, level: float = LEVEL) -> Interval:
        """Where the mean over all classes that one might have chosen lies; NaN if that cannot be told."""
        reach = self.error * float(student.ppf((1 + level) / 2, self.freedom))
        return Interval(self.mean - reach, self.mean + reach)

    def p_value(self) -> float:
        """Two-sided p of a mean of 0 over all classes that one might have chosen; NaN if that cannot be told."""
        if self.jackknife <= _NEGLIGIBLE:
            return 1.0 if abs(self.mean) <= _NEGLIGIBLE else 0.0
        return float(2 * student.sf(abs(self.mean / self.jackknife), self.classes - 1))


_UNKNOWN = PairMean(float("nan"), float("nan"), float("nan"), float("nan"), 0)


class Difference(NamedTuple):
    """How much better the readout of expert `a` tells classes apart than that of expert `b`.

    Attributes:
        a: one expert.
        b: the other.
        difference: mean over pairs of classes of the accuracy of `a` less that of `b`.
        low: lower end of its 95% interval over classes.
        high: upper end.
        p_adjusted: two-sided p of no difference, allowing for all pairs of experts that were looked at (Holm 1979).
    """

    a: int
    b: int
    difference: float
    low: float
    high: float
    p_adjusted: float


def pair_mean(values_CC: NDArray[np.float64]) -> PairMean:
    """Mean over pairs of classes, and its standard error over the choice of classes.

    Args:
        values_CC: a symmetric table of pairs, NaN where undefined; the diagonal is not looked at. The error is
            estimated from the largest part of it without gaps that is found by leaving out the class with most.
    """
    values_CC = values_CC.copy()
    np.fill_diagonal(values_CC, np.nan)
    defined = values_CC[np.isfinite(values_CC)]
    if not len(defined):
        return _UNKNOWN
    whole_CC = _without_gaps(values_CC)
    if len(whole_CC) < MIN_CLASSES:
        return _UNKNOWN._replace(mean=float(defined.mean()))
    return PairMean(float(defined.mean()), *_error(whole_CC), _jackknife(whole_CC), len(whole_CC))


def _without_gaps(values_CC: NDArray[np.float64]) -> NDArray[np.float64]:
    """The table without the classes that have undefined pairs, the worst first."""
    kept = np.arange(len(values_CC))
    while len(kept):
        gaps = (~np.isfinite(values_CC[np.ix_(kept, kept)])).sum(axis=1) - 1  # less the diagonal
        if not gaps.any():
            break
        kept = np.delete(kept, gaps.argmax())
    return values_CC[np.ix_(kept, kept)]


def _error(values_CC: NDArray[np.float64]) -> tuple[float, float]:
    """Standard error of the mean of a table without gaps, and its degrees of freedom."""
    C = len(values_CC)
    upper = np.triu_indices(C, k=1)
    mean = values_CC[upper].mean()
    effect_C = (C - 1) / (C - 2) * (np.nanmean(values_CC, axis=1) - mean)
    rest = values_CC[upper] - mean - effect_C[upper[0]] - effect_C[upper[1]]
    of_classes, of_pairs = C - 1, C * (C - 3) // 2  # degrees of freedom
    squares = (C - 2) * float(effect_C @ effect_C), float(rest @ rest)
    class_square, pair_square = squares[0] / of_classes, squares[1] / of_pairs
    if class_square <= pair_square:  # no sign of effects of classes: pairs are as good as independent
        freedom = of_classes + of_pairs
        return float(np.sqrt(2 * sum(squares) / freedom / (C * (C - 1)))), float(freedom)
    parts = 4 / (C * (C - 2)) * class_square, 2 / ((C - 1) * (C - 2)) * pair_square
    variance = parts[0] - parts[1]
    return float(np.sqrt(variance)), variance**2 / (parts[0] ** 2 / of_classes + parts[1] ** 2 / of_pairs)


def _jackknife(values_CC: NDArray[np.float64]) -> float:
    """Standard error of the mean of a table without gaps, from the means without each class (Arvesen 1969)."""
    C = len(values_CC)
    rows_C = np.nansum(values_CC, axis=1)
    means_C = (rows_C.sum() - 2 * rows_C) / ((C - 1) * (C - 2))
    return float(np.sqrt((C - 1) / C * ((means_C - means_C.mean()) ** 2).sum()))


def mean_over_experts(accuracy_ECC: NDArray[np.float64]) -> PairMean:
    """The mean over experts and pairs of classes, classes being the sample and the experts what they are."""
    alive = np.isfinite(accuracy_ECC).any(axis=(1, 2))
    if not alive.any():
        return _UNKNOWN
    return pair_mean(accuracy_ECC[alive].mean(axis=0))


def expert_differences(accuracy_ECC: NDArray[np.float64]) -> list[Difference]:
    """Every two experts compared over the same pairs of classes.

    Args:
        accuracy_ECC: symmetric accuracies of E experts between C classes, NaN where undefined; a pair of experts of
            which one is NaN throughout (dead) has NaN throughout and does not count among the comparisons.
    """
    pairs = list(combinations(range(len(accuracy_ECC)), 2))
    found = [pair_mean(accuracy_ECC[a] - accuracy_ECC[b]) for a, b in pairs]
    p = np.array([one.p_value() for one in found])
    return [
        Difference(a, b, one.mean, *one.interval(), float(adjusted))
        for (a, b), one, adjusted in zip(pairs, found, holm(p), strict=True)
    ]
