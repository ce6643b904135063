"""Influences against leaving images out and weighing them, with scipy's correlations."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata, spearmanr, t

from probes.statistics.mean_similarity import (
    image_influence,
    image_spread,
    run_spread,
    similarity_interval,
)
from probes.statistics.similarity import ranked_rdms
from probes.statistics.spreads import Spread


def experts(n, count=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5)) * np.exp(0.5 * rng.normal(size=(n, 1)))
    return [features @ rng.normal(size=(5, 4)) + 0.3 * rng.normal(size=(n, 4)) for _ in range(count)]


def mean_similarity(readouts):
    rdms = [pdist(Z) for Z in readouts]
    return np.mean([spearmanr(a, b).statistic for i, a in enumerate(rdms) for b in rdms[:i]])


def weighted_similarity(readouts, weight_n):
    """Mean Spearman correlation with pairs of images weighing the product of their weights, by loops over pairs."""
    w = squareform(np.outer(weight_n, weight_n), checks=False)
    ranks = []
    for Z in readouts:
        x = pdist(Z)
        ranks.append(np.array([(w * ((x < value) + 0.5 * (x == value))).sum() for value in x]))

    def corr(a, b):
        a, b = a - np.average(a, weights=w), b - np.average(b, weights=w)
        return (w * a * b).sum() / np.sqrt((w * a * a).sum() * (w * b * b).sum())

    return np.mean([corr(a, b) for i, a in enumerate(ranks) for b in ranks[:i]])


def test_an_influence_is_the_derivative_by_an_images_weight():
    n, step = 30, 1e-3
    readouts = experts(n)
    found = image_influence(ranked_rdms(readouts), n)
    assert found.sum() == pytest.approx(0, abs=1e-9)
    slow = []
    for image in range(n):
        ends = [np.ones(n), np.ones(n)]
        ends[0][image] += step
        ends[1][image] -= step
        up, down = (weighted_similarity(readouts, weight) for weight in ends)
        slow.append((up - down) / (2 * step) * n)
    # the ranks' own variance, which ties would change, is taken as it is: a difference of some 1 / P
    np.testing.assert_allclose(found, np.array(slow) * (n - 1) / (n - 2), atol=0.02 * np.abs(slow).max())


def test_the_variance_is_that_of_leaving_images_out():
    n = 60
    readouts = experts(n)
    found = image_spread(ranked_rdms(readouts), n)
    left_out = [mean_similarity([np.delete(Z, image, axis=0) for Z in readouts]) for image in range(n)]
    jackknife = (n - 1) / n * ((left_out - np.mean(left_out)) ** 2).sum()
    assert found.variance == pytest.approx(jackknife, rel=0.1)
    assert found.freedom == n - 1


def test_images_of_one_concept_count_as_one():
    n = 60
    Zs = [np.repeat(Z, 3, axis=0) for Z in experts(n // 3)]
    rng = np.random.default_rng(0)
    Zs = [Z + 0.01 * rng.normal(size=Z.shape) for Z in Zs]
    units = np.repeat(np.arange(n // 3), 3)
    found = image_spread(ranked_rdms(Zs), n, units)
    left_out = [mean_similarity([Z[units != unit] for Z in Zs]) for unit in range(n // 3)]
    m = n // 3
    assert found.variance == pytest.approx((m - 1) / m * ((left_out - np.mean(left_out)) ** 2).sum(), rel=0.15)
    assert found.variance > 2 * image_spread(ranked_rdms(Zs), n).variance


def test_ties_share_their_place():
    Z = np.array([[0.0], [1.0], [2.0], [3.0], [5.0], [9.0]])
    ranks = ranked_rdms([Z, Z**2, np.sqrt(Z)])
    places = np.floor(ranks[0].astype(float) + 7)
    middle = rankdata(pdist(Z))
    assert len(np.unique(places)) == len(np.unique(middle))
    assert np.isfinite(image_influence(ranks, 6)).all()


def test_runs_are_left_out_one_at_a_time():
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=(9, 9))
    similarity = (similarity + similarity.T) / 2
    runs = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2])
    means = []
    for run in range(3):
        kept = [i for i in range(9) if runs[i] != run]
        means.append(np.mean([similarity[i, j] for i in kept for j in kept if i < j]))
    assert run_spread(similarity, runs) == pytest.approx((2 / 3 * ((means - np.mean(means)) ** 2).sum(), 2))
    assert np.isnan(run_spread(similarity[:6, :6], runs[:6]).variance)


def test_variances_add_up():
    found = similarity_interval(0.5, Spread(0.0003, 60), Spread(0.0001, 3))
    freedom = 0.0004**2 / (0.0003**2 / 60 + 0.0001**2 / 3)
    assert found == pytest.approx((0.5 - 0.02 * t.ppf(0.975, freedom), 0.5 + 0.02 * t.ppf(0.975, freedom)))
    assert np.isnan(similarity_interval(0.5, Spread(0.01, 60), Spread(float("nan"), float("nan")))).all()
    assert similarity_interval(0.9, Spread(0.0, 5)) == (0.9, 0.9)
    assert similarity_interval(0.99, Spread(1.0, 5)) == (-1.0, 1.0)
