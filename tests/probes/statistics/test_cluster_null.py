"""The Gaussian null and random halves, against definitions and planted clusters."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import kurtosis

from probes.statistics.cluster_null import (
    continuum,
    defined,
    independent,
    margin,
    run_halves,
    spread_of_halves,
    within_runs,
)
from probes.statistics.resampling import p_value
from probes.statistics.similarity import cluster


def experts(centres, spread=0.1, each=20, dimensions=8, seed=0):
    """Similarities of experts around centres on the first axis, as correlations of unit vectors."""
    rng = np.random.default_rng(seed)
    points = spread * rng.normal(size=(len(centres) * each, dimensions))
    points[:, 0] += np.repeat(centres, each)
    return 1 - cdist(points, points, "sqeuclidean") / 2


def test_margin():
    assert margin({2: 0.5, 3: 0.3, 4: 0.4}) == pytest.approx(0.1)
    assert margin({2: 0.3, 3: 0.5}) == pytest.approx(-0.2)
    assert np.isnan(margin({2: 0.5}))


def test_two_clusters_are_told_from_none():
    similarity = experts([-0.4, 0.4])
    null = continuum(similarity, draws=99, seed=0)
    assert p_value(cluster(similarity).silhouette[2], null.pair_b) == 0.01
    cloud = experts([0.0], each=40)
    assert p_value(cluster(cloud).silhouette[2], continuum(cloud, draws=99, seed=0).pair_b) > 0.05


def test_a_continuum_is_no_pair_of_clusters():
    """Experts along a line, evenly: two is the best number, and no evidence."""
    similarity = experts(np.linspace(-0.5, 0.5, 40), each=1, spread=0.02)
    assert cluster(similarity).k == 2
    assert p_value(cluster(similarity).silhouette[2], continuum(similarity, draws=99, seed=0).pair_b) > 0.05


def test_clusters_of_any_number_are_told_from_none():
    """Four, such as runs make, which are no pair; each cloud is cut where it is best."""
    from probes.statistics import cluster_null

    corners, rng, seen = 0.5 * np.eye(8)[:4], np.random.default_rng(0), []
    points = np.repeat(corners, 5, axis=0) + 0.05 * rng.normal(size=(20, 8))
    similarity = 1 - cdist(points, points, "sqeuclidean") / 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_null, "cluster", lambda s: seen.append(cluster(s)) or seen[-1])
        null = continuum(similarity, draws=99, seed=0)
    np.testing.assert_array_equal(null.best_b, [max(one.silhouette.values()) for one in seen])
    np.testing.assert_array_equal(null.pair_b, [one.silhouette[2] for one in seen])
    assert (null.best_b > null.pair_b).any()
    found = cluster(similarity)
    assert (found.k, p_value(found.silhouette[4], null.best_b)) == (4, 0.01)
    assert p_value(found.silhouette[2], null.pair_b) > 0.05


def test_clusters_within_runs_are_those_of_each_run_alone():
    """Runs far apart, two kinds of experts in each; the mean over runs, and of independent draws of each."""
    rng = np.random.default_rng(0)
    kinds = np.concatenate([10.0 * run + 0.4 * (np.arange(6)[:, None] % 2) + 0.05 * rng.normal(size=(6, 8))
                            for run in range(3)])  # fmt: skip
    similarity, runs = 1 - cdist(kinds, kinds, "sqeuclidean") / 2, np.repeat(["b", "a", "c"], 6)
    found = within_runs(similarity, runs, draws=99, seed=0)
    blocks = [similarity[start : start + 6, start : start + 6] for start in (0, 6, 12)]
    assert found.silhouette == pytest.approx(np.mean([cluster(block).silhouette[2] for block in blocks]))
    assert p_value(found.silhouette, found.null_b) == 0.01
    drawn = np.array([continuum(block, draws=99, seed=0).best_b for block in blocks])
    assert found.null_b.mean() == pytest.approx(drawn.mean(), abs=0.03)
    assert found.null_b.std() == pytest.approx(np.sqrt((drawn.std(axis=1) ** 2).sum()) / 3, rel=0.25)
    order = rng.permutation(18)  # in which order experts come says nothing
    again = within_runs(similarity[np.ix_(order, order)], runs[order], draws=99, seed=0)
    assert again.silhouette == pytest.approx(found.silhouette)


def test_runs_of_few_experts_tell_nothing_of_clusters_within():
    similarity = experts([-0.4, 0.4], each=4)
    few = within_runs(similarity, np.array([0, 0, 0, 1, 1, 1, 2, 2]), draws=9, seed=0)
    assert np.isnan(few.silhouette)
    assert np.isnan(p_value(few.silhouette, few.null_b))
    one = within_runs(similarity, np.array([0, 0, 0, 0, 0, 1, 1, 1]), draws=9, seed=0)
    assert one.silhouette == max(cluster(similarity[:5, :5]).silhouette.values())


def test_clouds_have_just_the_spectrum_of_the_experts_and_nothing_else_of_them():
    """The covariances of the points behind the similarities, by hand; along each axis a cloud is normal."""
    rng = np.random.default_rng(0)
    points = np.repeat([[-2.0, 0, 0], [2, 0, 0]], 15, axis=0) + rng.normal(size=(30, 3)) * [0.1, 0.5, 0.2]
    similarity = 1 - cdist(points, points, "sqeuclidean") / 2
    seen = []
    from probes.statistics import cluster_null

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_null, "cluster", lambda s: seen.append(s) or cluster(s))
        continuum(similarity, draws=100, seed=0)
    along = []
    for drawn in seen:
        centred = drawn - drawn.mean(axis=0)
        variances, axes = np.linalg.eigh(centred - centred.mean(axis=1)[:, None])
        np.testing.assert_allclose(variances[-3:], np.linalg.eigvalsh(29 * np.cov(points.T)), rtol=1e-8)
        assert np.abs(variances[:-3]).max() < 1e-9
        np.testing.assert_allclose(drawn.diagonal(), 1)
        along.append(axes[:, -1] * 30**0.5)
    assert kurtosis(np.ravel(along)) == pytest.approx(-6 / 32, abs=0.15)  # of a coordinate on a sphere in 29 dimensions
    assert kurtosis(points[:, 0]) < -1.9


def test_independent_experts_seldom_choose_two():
    """So, as an audit found, k = 2 means something; the noise has the spectrum of the readouts."""
    rng = np.random.default_rng(0)
    mixing = [np.linalg.qr(rng.normal(size=(16, 16)))[0] for _ in range(20)]
    readouts = [rng.normal(size=(150, 16)) * np.arange(1, 17) ** -0.5 @ turn for turn in mixing]
    null = independent(readouts, draws=20, seed=0)
    assert (null.k_b == 2).mean() <= 0.2
    assert null.pair_b.max() < 0.1
    seen = []
    from probes.statistics import cluster_null

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_null, "second_order", lambda drawn: seen.append(drawn) or np.eye(20))
        independent(readouts, draws=30, seed=0)
    drawn = np.mean([np.linalg.eigvalsh(np.cov(sets[3].T)) for sets in seen], axis=0)
    wanted = np.linalg.eigvalsh(np.cov(readouts[3].T)) * 149
    np.testing.assert_allclose(drawn[-3:], wanted[-3:], rtol=0.15)


def test_halves_take_half_of_each_cell():
    runs, cells = np.repeat(np.arange(7), 3), np.repeat([0, 0, 0, 0, 1, 1, 2], 3)
    named = np.add.outer(100.0 * runs, runs)
    sizes = set()
    for part in run_halves(named, runs, cells, draws=20, seed=0):
        drawn = np.unique(part.diagonal() / 101)
        np.testing.assert_array_equal(part, np.add.outer(100 * np.repeat(drawn, 3), np.repeat(drawn, 3)))
        sizes.add(tuple(int(np.isin(drawn, of).sum()) for of in ([0, 1, 2, 3], [4, 5], [6])))
    assert sizes == {(2, 1, 1)}
    odd = run_halves(np.eye(12), np.repeat(np.arange(3), 4), np.zeros(12), draws=40, seed=0)
    assert {len(part) for part in odd} == {4, 8}
    assert not list(run_halves(np.eye(3), np.zeros(3), np.zeros(3), draws=2, seed=0))


def test_experts_dead_on_a_half_are_left_out():
    similarity = np.arange(64.0).reshape(8, 8)
    similarity[2] = similarity[:, 2] = np.nan
    (part,) = defined([similarity, np.full((8, 8), np.nan)])
    kept = [0, 1, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(part, similarity[np.ix_(kept, kept)])


def test_halves_vary_as_wholes_do():
    """Of a mean the variance over halves without replacement is that of the mean of the whole."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    means = np.array([rng.choice(values, 20, replace=False).mean() for _ in range(4000)])
    found = spread_of_halves(means, 39)
    assert found.variance == pytest.approx(values.var(ddof=1) / 40, rel=0.06)
    assert found.freedom == 39
    assert spread_of_halves(means[:10], 39).freedom == 9
    assert np.isnan(spread_of_halves(means, 0).variance)
    assert np.isnan(spread_of_halves(means[:1], 39).variance)
