"""Coupling of gate and readout: does an expert respond most to the images that the gate would send it?

Source: Section "Expert-Level Tuning" (Figures 4 and S1). Axes: n images, B draws of a batch, E experts.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from probes.statistics.constancy import constant_columns
from probes.statistics.resampling import bootstrap_counts


class Coupling(NamedTuple):
    """Agreement of gate logit and readout norm of each expert, (E,) or (draws, E); NaN where one is constant.

    Attributes:
        pearson: linear correlation, -1 to 1.
        spearman: rank correlation, -1 to 1.
        r2: share of the norm's variance that a straight line in the logit explains, the square of `pearson`.
    """

    pearson: NDArray[np.float64]
    spearman: NDArray[np.float64]
    r2: NDArray[np.float64]


def min_max(values_nE: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Each column scaled to 0..1 as in Figure 4; NaN where it is constant."""
    constant_E, values_nE = constant_columns(values_nE), values_nE.astype(np.float64)
    span_E = np.where(constant_E, np.nan, np.ptp(values_nE, axis=0))
    return np.asarray((values_nE - values_nE.min(axis=0)) / span_E, dtype=np.float64)


def couplings(logits_nE: NDArray[np.floating[Any]], norms_nE: NDArray[np.floating[Any]]) -> Coupling:
    """Correlations over images between each expert's gate logit and its readout norm.

    Raises:
        ValueError: the two are not matrices of the same shape.
    """
    if logits_nE.shape != norms_nE.shape or logits_nE.ndim != 2:
        raise ValueError(
            f"logits and norms must be (n, E) matrices of one shape, not {logits_nE.shape}, {norms_nE.shape}"
        )
    everything_1n = np.ones((1, len(logits_nE)))
    a_nE, b_nE = min_max(logits_nE), min_max(norms_nE)
    pearson = _correlation(everything_1n, a_nE, b_nE)[0]
    return Coupling(pearson, _correlation(everything_1n, _ranks(a_nE), _ranks(b_nE))[0], pearson**2)


def bootstrap_coupling(
    logits_nE: NDArray[np.floating[Any]],
    norms_nE: NDArray[np.floating[Any]],
    *,
    draws: int,
    seed: int,
    units: NDArray[np.integer[Any]] | None = None,
) -> Coupling:
    """`couplings` of bootstrap samples of the images.

    Args:
        logits_nE: gate logits.
        norms_nE: readout norms.
        draws: number of samples.
        seed: of the draws.
        units: (n,) what is drawn, see `bootstrap_counts`.

    Returns:
        Arrays (draws, E).
    """
    a_nE, b_nE = min_max(logits_nE), min_max(norms_nE)
    places_a, places_b = _places(a_nE), _places(b_nE)
    pearson, spearman = [], []
    for counts_Bn in bootstrap_counts(len(a_nE), draws, seed, units):
        pearson.append(_correlation(counts_Bn, a_nE, b_nE))
        spearman.append(
            np.stack(
                [_one(counts_Bn, _weighted_ranks(counts_Bn, pa), _weighted_ranks(counts_Bn, pb))
                 for pa, pb in zip(places_a, places_b, strict=True)],
                axis=1,
            )
        )  # fmt: skip
    pearson_bE = np.concatenate(pearson)
    constant_E = np.isnan(a_nE).any(axis=0) | np.isnan(b_nE).any(axis=0)
    return Coupling(pearson_bE, np.where(constant_E, np.nan, np.concatenate(spearman)), pearson_bE**2)


def _ranks(values_nE: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks_nE = rankdata(values_nE, axis=0)
    return np.where(np.isnan(values_nE), np.nan, ranks_nE)


def _places(values_nE: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """For each column the place (n,) of every image's value among the column's different values."""
    return [np.unique(column, return_inverse=True)[1] for column in values_nE.T]


def _weighted_ranks(counts_Bn: NDArray[np.float64], place_n: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean ranks (B, n) of the images in samples that hold each of them so many times."""
    order_n = np.argsort(place_n, kind="stable")
    starts = np.searchsorted(place_n[order_n], np.arange(place_n.max() + 1))
    of_value = np.add.reduceat(counts_Bn[:, order_n], starts, axis=1)
    rank_of_value = of_value.cumsum(axis=1) - (of_value - 1) / 2
    return np.asarray(rank_of_value[:, place_n])


def _correlation(
    counts_Bn: NDArray[np.float64], a_nE: NDArray[np.float64], b_nE: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted Pearson correlation (B, E) of columns; centred first, so that sums of squares lose nothing."""
    a_nE, b_nE = a_nE - a_nE.mean(axis=0), b_nE - b_nE.mean(axis=0)
    total_B1 = counts_Bn.sum(axis=1, keepdims=True)
    mean_a, mean_b, aa, bb, ab = (counts_Bn @ part / total_B1 for part in (a_nE, b_nE, a_nE**2, b_nE**2, a_nE * b_nE))
    return _ratio(ab - mean_a * mean_b, aa - mean_a**2, bb - mean_b**2)


def _one(counts_Bn: NDArray[np.float64], a_Bn: NDArray[np.float64], b_Bn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted Pearson correlation (B,) of values that differ between samples."""
    total_B = counts_Bn.sum(axis=1)
    centre = (total_B + 1)[:, None] / 2  # the mean of ranks
    a_Bn, b_Bn = a_Bn - centre, b_Bn - centre
    weighted_Bn = counts_Bn * a_Bn
    covariance = np.einsum("bn,bn->b", weighted_Bn, b_Bn)
    return _ratio(covariance, np.einsum("bn,bn->b", weighted_Bn, a_Bn), np.einsum("bn,bn,bn->b", counts_Bn, b_Bn, b_Bn))


def _ratio(
    covariance: NDArray[np.float64], variance_a: NDArray[np.float64], variance_b: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = covariance / np.sqrt(np.maximum(variance_a, 0) * np.maximum(variance_b, 0))
    return np.clip(np.where(np.isfinite(ratio), ratio, np.nan), -1.0, 1.0)
