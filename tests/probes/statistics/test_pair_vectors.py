"""Representations as vectors over pairs of images, beside plain formulas."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, squareform
from scipy.stats import spearmanr

from probes.statistics import cluster, correlations
from probes.statistics.agreement import clusters_by_measure
from probes.statistics.pair_vectors import DISTANCES, gram_vector, pair_vectors, placed, side_by_side, square

KINDS = {"euclidean": "euclidean", "unit_length": "cosine", "correlation": "correlation"}


def readouts(n=30, sizes=(3, 5, 8, 4), seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 3))
    return [(common @ rng.normal(size=(3, d)) + 0.7 * rng.normal(size=(n, d))).astype(np.float32) for d in sizes]


def hsic_by_four(K, L):
    """The unbiased estimate as Song et al. 2012 define it: a mean over all four different images."""
    n = len(K)
    total = 0.0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q])
    return total / (n * (n - 1) * (n - 2) * (n - 3))


def cka_by_definition(X, Y):
    K, L = X @ X.T, Y @ Y.T
    return hsic_by_four(K, L) / np.sqrt(hsic_by_four(K, K) * hsic_by_four(L, L))


@pytest.mark.parametrize("distance", DISTANCES)
def test_spearman_is_that_of_scipys_distances(distance):
    given = readouts()
    found = correlations(pair_vectors(given, distance, "spearman"))
    rdms = [squareform(cdist(Z.astype(float), Z.astype(float), KINDS[distance]), checks=False) for Z in given]
    slow = [[spearmanr(a, b).statistic for b in rdms] for a in rdms]
    np.testing.assert_allclose(found, slow, atol=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_cka_is_the_unbiased_one_of_kornblith_and_song(distance):
    given = readouts(n=9)
    found = correlations(pair_vectors(given, distance, "cka"))
    moved = [placed(Z, distance) for Z in given]
    slow = [[cka_by_definition(a, b) for b in moved] for a in moved]
    np.testing.assert_allclose(found, slow, atol=1e-6)


def test_cka_of_unrelated_representations_is_about_0_where_the_biased_one_is_not():
    rng = np.random.default_rng(0)
    found = [rng.normal(size=(40, 60)) for _ in range(20)]
    unbiased = correlations(pair_vectors(found, "euclidean", "cka"))[np.triu_indices(20, k=1)]
    X, Y = (Z - Z.mean(axis=0) for Z in found[:2])
    biased = np.linalg.norm(X.T @ Y) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y))
    assert abs(unbiased.mean()) < 0.01
    assert biased > 0.5


def test_a_rotation_and_a_scale_change_neither():
    rng = np.random.default_rng(1)
    (Z,) = readouts(sizes=(5,))
    Q = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    for measure in ("spearman", "cka"):
        found = correlations(pair_vectors([Z, 3 * Z @ Q + 1], "euclidean", measure))
        np.testing.assert_allclose(found, 1.0, atol=1e-5)


def test_a_norm_that_carries_all_is_removed_by_unit_length():
    rng = np.random.default_rng(2)
    direction = rng.normal(size=(40, 6))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    loud = direction * np.exp(rng.normal(size=(40, 1)))
    np.testing.assert_allclose(placed(loud, "unit_length"), direction, atol=1e-12)
    assert correlations(pair_vectors([direction, loud], "euclidean", "spearman"))[0, 1] < 0.9
    np.testing.assert_allclose(correlations(pair_vectors([direction, loud], "unit_length", "spearman")), 1, atol=1e-9)


def test_a_readout_of_length_0_stays_and_what_has_no_geometry_is_nan():
    Z = readouts(sizes=(4,))[0]
    Z[3] = 0
    assert np.isfinite(placed(Z, "correlation")).all()
    for measure in ("spearman", "cka"):
        found = correlations(pair_vectors([Z, np.ones((30, 2), np.float32)], "euclidean", measure))
        assert found[0, 0] == 1
        assert np.isnan(found[1]).all()


def test_cka_needs_four_images():
    with pytest.raises(ValueError, match="CKA needs 4 images, got 3"):
        gram_vector(np.ones((3, 2)))


def test_a_vector_is_a_symmetric_matrix():
    np.testing.assert_array_equal(square(np.array([1.0, 2, 3]), 3), [[0, 1, 2], [1, 0, 3], [2, 3, 0]])


def test_work_side_by_side_keeps_its_order_and_its_errors():
    seen = []
    assert side_by_side(lambda x: x * x, range(5), lambda *at: seen.append(at)) == [0, 1, 4, 9, 16]
    assert seen[-1] == (5, 5)
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda x: 1 / x, [1, 0])


def test_clusters_that_survive_a_measure_and_those_that_do_not():
    rng = np.random.default_rng(0)

    def of(labels):
        noise = np.triu(0.02 * rng.random((8, 8)), k=1)
        return 0.3 + 0.6 * np.equal.outer(labels, labels) - noise - noise.T

    halves, odd = np.arange(8) // 4, np.arange(8) % 2
    found = clusters_by_measure({"a": of(halves), "b": of(halves), "c": of(odd)})
    assert [one.k for one in found.clusters.values()] == [2, 2, 2]
    np.testing.assert_allclose(found.rand_MM[0], [1, 1, found.rand_MM[0, 2]])
    assert found.rand_MM[0, 2] < 0.1
    np.testing.assert_array_equal(found.rand_same_k_M, found.rand_MM[0])
    np.testing.assert_array_equal(found.clusters["c"].labels, cluster(of(odd)).labels)
