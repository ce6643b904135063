from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata, spearmanr
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import silhouette_score

from probes.statistics import similarity
from probes.statistics.similarity import classical_mds, cluster, euclidean_rdm, mds, second_order

Matrix = NDArray[np.float64]
# A similarity in which {0, 2} and {1, 3} are pairs, 0.9 alike within and 0.1 between.
TWO_PAIRS = np.array([[1, 0.1, 0.9, 0.1], [0.1, 1, 0.1, 0.9], [0.9, 0.1, 1, 0.1], [0.1, 0.9, 0.1, 1]])


def planted_similarity(sizes: list[int], seed: int) -> tuple[Matrix, Matrix]:
    """Experts in groups: about 0.8 alike within a group, 0.2 between; in shuffled order."""
    rng = np.random.default_rng(seed)
    group_N = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    similarity_NN = np.where(group_N[:, None] == group_N, 0.8, 0.2)
    noise_NN = 0.05 * rng.normal(size=similarity_NN.shape)
    similarity_NN = similarity_NN + np.triu(noise_NN, 1) + np.triu(noise_NN, 1).T
    np.fill_diagonal(similarity_NN, 1.0)
    return similarity_NN, group_N


def same_partition(first: Any, second: Any) -> bool:
    return bool(np.array_equal(np.equal.outer(first, first), np.equal.outer(second, second)))


def test_rdm_worked_by_hand() -> None:
    Z_nd = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    np.testing.assert_allclose(euclidean_rdm(Z_nd), [5.0, 1.0, np.sqrt(18)], rtol=1e-15)


def test_rdm_agrees_with_loops_in_double_precision() -> None:
    Z_nd = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    expected = [np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))
                for x, y in combinations(Z_nd, 2)]  # fmt: skip
    found = euclidean_rdm(Z_nd)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert found.dtype == np.float64


def test_rdm_keeps_small_distances_far_from_the_origin() -> None:
    Z_nd = 1e6 + np.array([[0.0, 0.0], [0.0, 1e-3]])
    np.testing.assert_allclose(euclidean_rdm(Z_nd), [1e-3], rtol=1e-6)


def test_rdm_rejects_what_is_no_set_of_images() -> None:
    for shape in ((5,), (1, 5), (2, 2, 2)):
        with pytest.raises(ValueError, match="activations must be"):
            euclidean_rdm(np.zeros(shape))
    with pytest.raises(ValueError, match=r"not finite in 1 images, rows \[1\]"):
        euclidean_rdm(np.array([[0.0], [np.nan], [2.0]]))


def test_second_order_agrees_with_spearmanr_of_every_pair() -> None:
    rng = np.random.default_rng(1)
    # Small integers, so that many distances are tied; widths differ.
    readouts = [rng.integers(0, 3, size=(15, d)).astype(float) for d in (2, 3, 7)] + [rng.normal(size=(15, 4))]
    found = second_order(readouts)
    for i, j in combinations(range(4), 2):
        expected = spearmanr(pdist(readouts[i]), pdist(readouts[j])).statistic
        assert found[i, j] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), np.ones(4))


def test_second_order_agrees_with_spearmanr_over_many_blocks() -> None:
    rng = np.random.default_rng(12)
    readouts = [rng.normal(size=(200, 3)).astype(np.float32) for _ in range(3)]  # 19,900 pairs
    readouts.append((readouts[0] + 0.5 * readouts[1]).round(1))
    found = second_order(readouts)
    for i, j in combinations(range(4), 2):
        expected = spearmanr(pdist(readouts[i].astype(float)), pdist(readouts[j].astype(float))).statistic
        assert found[i, j] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(found, found.T)


def test_duplicate_images_tie_exactly() -> None:
    """Far from the origin, where a distance from scalar products would be off in its fourth digit."""
    rng = np.random.default_rng(13)
    distinct = [1e3 + rng.normal(size=(12, 5)).astype(np.float32) for _ in range(2)]
    twice = [np.concatenate([Z_nd, Z_nd]) for Z_nd in distinct]
    rdm_nn = squareform(euclidean_rdm(twice[0]))
    np.testing.assert_array_equal(rdm_nn[:12, :12], rdm_nn[12:, 12:])
    np.testing.assert_array_equal(rdm_nn[:12, :12], rdm_nn[12:, :12])
    ranks_P = similarity.centred_ranks(euclidean_rdm(twice[0]))
    np.testing.assert_array_equal(ranks_P, rankdata(euclidean_rdm(twice[0])) - (276 + 1) / 2)
    assert np.unique(ranks_P).size == 12 * 11 // 2 + 1  # of each distance four copies, and zeros
    expected = spearmanr(*(pdist(Z_nd.astype(float)) for Z_nd in twice)).statistic
    assert second_order(twice)[0, 1] == pytest.approx(expected, abs=1e-12)


def test_ranks_are_held_exactly() -> None:
    values_P = np.random.default_rng(14).integers(0, 400_000, size=1_000_000).astype(float)
    np.testing.assert_array_equal(similarity.centred_ranks(values_P), rankdata(values_P) - (1_000_000 + 1) / 2)
    close_P = 1 + 1e-12 * np.random.default_rng(15).integers(0, 60_000, size=100_000)  # alike to 31 bits of the range
    close_P[:2] = 0.0, 1e3
    np.testing.assert_array_equal(similarity.centred_ranks(close_P), rankdata(close_P) - (100_000 + 1) / 2)


def test_a_single_expert_is_like_itself() -> None:
    Z_nd = np.random.default_rng(15).normal(size=(6, 2))
    np.testing.assert_array_equal(second_order([Z_nd]), [[1.0]])
    assert np.isnan(second_order([np.ones((6, 2))])).all()


def test_progress_counts_experts() -> None:
    seen: list[tuple[int, int]] = []
    readouts = list(np.random.default_rng(16).normal(size=(3, 6, 2)))
    second_order(readouts, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_second_order_worked_by_hand() -> None:
    # Distances (1, 3, 2) and (2, 1, 3) have those ranks: 1 - 6 (1 + 4 + 1) / (3 * 8) = -0.5.
    found = second_order([np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0], [-1.0]])])
    np.testing.assert_allclose(found, [[1.0, -0.5], [-0.5, 1.0]], atol=1e-15)


def test_second_order_ignores_rotation_and_scale() -> None:
    rng = np.random.default_rng(2)
    Z_nd = rng.normal(size=(20, 5))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    found = second_order([Z_nd, 3.0 * Z_nd @ rotation + 1.0, rng.normal(size=(20, 5))])
    assert found[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert abs(found[0, 2]) < 0.5


@pytest.mark.parametrize(
    "dead_nd",
    [
        np.zeros((10, 4)),
        np.full((10, 4), 0.1, dtype=np.float32) * np.linspace(1, 1 + 5e-7, 10, dtype=np.float32)[:, None],
        np.eye(10),  # every distance is the square root of 2
    ],
)
def test_an_expert_without_geometry_is_nan(dead_nd: Any) -> None:
    rng = np.random.default_rng(3)
    alive = [rng.normal(size=(10, 4)), rng.normal(size=(10, 2))]
    found = second_order([alive[0], dead_nd, alive[1]])
    assert np.isnan(found).tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    np.testing.assert_array_equal(found[::2, ::2], second_order(alive))


def test_second_order_names_the_bad_readout() -> None:
    good = np.random.default_rng(4).normal(size=(5, 2))
    with pytest.raises(ValueError, match=r"readout 1: .*rows \[3\]"):
        second_order([good, np.where(np.arange(5)[:, None] == 3, np.inf, good)])
    with pytest.raises(ValueError, match="readout 1 has 4 images, readout 0 has 5"):
        second_order([good, good[:4]])
    with pytest.raises(ValueError, match="no readouts"):
        second_order([])


@pytest.mark.parametrize("sizes", [[6, 5], [4, 7, 5], [3, 4, 5, 6, 2]])
def test_planted_clusters_are_found(sizes: list[int]) -> None:
    similarity_NN, group_N = planted_similarity(sizes, seed=5)
    found = cluster(similarity_NN)
    assert found.k == len(sizes)
    assert same_partition(found.labels, group_N)
    assert sorted(found.silhouette) == list(range(2, min(15, sum(sizes) - 1) + 1))


@pytest.mark.parametrize("sizes", [[4, 6], [5, 3, 6], [4, 5, 3, 4, 6]])
def test_planted_families_of_readouts_are_found(sizes: list[int]) -> None:
    """Experts of a family see the same latent dimensions, each rotated into its own number of units, with noise."""
    rng = np.random.default_rng(17)
    group_N = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    latents = rng.normal(size=(len(sizes), 120, 6))
    readouts = []
    for group, d in zip(group_N, rng.integers(8, 20, size=len(group_N)), strict=True):
        rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
        readouts.append(latents[group] @ rotation[:6] + 0.3 * rng.normal(size=(120, d)))
    found = cluster(second_order(readouts))
    assert found.k == len(sizes)
    assert same_partition(found.labels, group_N)


@pytest.mark.slow
def test_planted_families_on_real_dimensions_are_found(shared_data: Path) -> None:
    """Three kinds of expert, each weighting its own part of the 66 rated dimensions; 24 experts, 1,854 concepts."""
    ratings = np.loadtxt(shared_data / "things" / "spose_embedding_66d_sorted.txt")
    rng = np.random.default_rng(18)
    group_N = rng.permutation(np.repeat(np.arange(3), 8))
    parts = np.array_split(rng.permutation(66), 3)
    readouts = []
    for group in group_N:
        weights_p = np.full(66, 0.1)
        weights_p[parts[group]] = rng.uniform(0.7, 1.3, size=len(parts[group]))
        readouts.append((ratings * weights_p) @ rng.normal(size=(66, 64)) / 8)
    found = cluster(second_order(readouts))
    assert found.k == 3
    assert same_partition(found.labels, group_N)


def test_every_number_of_clusters_agrees_with_scikit_learn() -> None:
    points = np.random.default_rng(6).normal(size=(25, 3))
    similarity_NN = 1 - squareform(pdist(points)) / 10
    for k in range(2, 16):
        reference = AgglomerativeClustering(k, metric="precomputed", linkage="average").fit(1 - similarity_NN)
        found = cluster(similarity_NN, [k])
        assert found.k == k
        assert same_partition(found.labels, reference.labels_)
        assert list(dict.fromkeys(found.labels.tolist())) == list(range(k))  # numbered by first appearance
        expected = silhouette_score(1 - similarity_NN, reference.labels_, metric="precomputed")
        assert found.silhouette == {k: pytest.approx(expected, abs=1e-9)}


def test_the_highest_silhouette_wins() -> None:
    points = np.random.default_rng(6).normal(size=(25, 3))
    similarity_NN = 1 - squareform(pdist(points)) / 10
    found = cluster(similarity_NN)
    assert found.silhouette[found.k] == max(found.silhouette.values())
    alone = cluster(similarity_NN, [found.k])
    np.testing.assert_array_equal(found.labels, alone.labels)


def test_clusters_worked_by_hand() -> None:
    """Two pairs, 0.1 apart within and 0.9 between: a silhouette of (0.9 - 0.1) / 0.9 for every expert."""
    found = cluster(TWO_PAIRS)
    assert found.k == 2
    assert found.labels.tolist() == [0, 1, 0, 1]
    # With three clusters one pair is split, and an expert alone counts 0.
    assert found.silhouette == {2: pytest.approx(8 / 9), 3: pytest.approx(4 / 9)}


def test_ties_give_exactly_k_clusters_and_the_smallest_k() -> None:
    found = cluster(np.ones((6, 6)))
    assert found.silhouette == dict.fromkeys(range(2, 6), 0.0)
    assert found.k == 2
    assert [np.unique(cluster(np.ones((6, 6)), [k]).labels).size for k in range(2, 6)] == [2, 3, 4, 5]


def test_the_order_of_k_range_does_not_matter() -> None:
    similarity_NN, _ = planted_similarity([4, 5, 3], seed=7)
    assert cluster(similarity_NN, [9, 3, 2, 3]).k == 3
    assert cluster(np.ones((6, 6)), [4, 3, 5]).k == 3


def test_rounding_above_one_is_no_negative_distance() -> None:
    similarity_NN = TWO_PAIRS.copy()
    similarity_NN[0, 2] = similarity_NN[2, 0] = 1 + 1e-12
    assert cluster(similarity_NN).labels.tolist() == [0, 1, 0, 1]


def test_undefined_rows_are_named() -> None:
    similarity_NN, _ = planted_similarity([5, 5], seed=8)
    similarity_NN[[2, 6]] = similarity_NN[:, [2, 6]] = np.nan
    with pytest.raises(ValueError, match=r"leave out rows and columns \[2, 6\] first"):
        cluster(similarity_NN)
    kept = np.delete(np.arange(10), [2, 6])
    assert cluster(similarity_NN[np.ix_(kept, kept)]).k == 2
    # A lone undefined pair: leaving out one of the two is enough.
    similarity_NN = TWO_PAIRS.copy()
    similarity_NN[1, 3] = similarity_NN[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"columns \[1\] first"):
        cluster(similarity_NN)


@pytest.mark.parametrize(
    ("similarity_NN", "k_range", "message"),
    [
        (np.ones((2, 2)), range(2, 16), "at least 3 experts"),
        (np.ones((3, 4)), range(2, 16), "square"),
        (np.arange(9.0).reshape(3, 3), range(2, 16), "symmetric"),
        (TWO_PAIRS, range(4, 9), "within 2 to 3"),
        (TWO_PAIRS, range(1, 3), "within 2 to 3"),
        (TWO_PAIRS, [], "within 2 to 3"),
    ],
)
def test_cluster_bad_arguments(similarity_NN: Matrix, k_range: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster(similarity_NN, k_range)


def test_classical_mds_worked_by_hand() -> None:
    """A 3-4-5 triangle's distances come back; three points on a line need one axis."""
    triangle_NN = np.array([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]])
    np.testing.assert_allclose(squareform(pdist(classical_mds(triangle_NN))), triangle_NN, atol=1e-12)
    line_NN = np.array([[0.0, 1, 4], [1, 0, 3], [4, 3, 0]])
    expected = np.array([[-5 / 3, 0], [-2 / 3, 0], [7 / 3, 0]])
    np.testing.assert_allclose(classical_mds(line_NN), expected, atol=1e-7)


def test_classical_mds_agrees_with_principal_components() -> None:
    points = np.random.default_rng(9).normal(size=(12, 4)) * [4.0, 3.0, 2.0, 1.0]
    centred = points - points.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left * size
    for k in range(4):
        expected[:, k] *= np.sign(expected[np.abs(expected[:, k]).argmax(), k])
    found = classical_mds(squareform(pdist(points)), dimensions=4)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_classical_mds_gives_no_imaginary_dimensions() -> None:
    # 0 and 2 are farther apart than by way of 1: no Euclidean space holds them.
    broken_NN = np.array([[0.0, 1, 5], [1, 0, 1], [5, 1, 0]])
    found = classical_mds(broken_NN, dimensions=3)
    assert np.isfinite(found).all()
    assert np.abs(found[:, 2]).max() < 1e-7


def test_classical_mds_bad_arguments() -> None:
    distance_NN = 1 - TWO_PAIRS
    for dimensions in (0, 5):
        with pytest.raises(ValueError, match="within 1 to 4"):
            classical_mds(distance_NN, dimensions)
    with pytest.raises(ValueError, match="diagonal"):
        classical_mds(TWO_PAIRS)
    with pytest.raises(ValueError, match=r"leave out rows and columns \[0\]"):
        classical_mds(np.where(np.eye(3, dtype=bool) & (np.arange(3) == 0), np.nan, 0.0))


def stress(points: Matrix, distance_NN: Matrix) -> float:
    return float(((pdist(points) - squareform(distance_NN)) ** 2).sum())


def test_mds_keeps_planar_points_and_their_orientation() -> None:
    distance_NN = squareform(pdist(np.random.default_rng(10).normal(size=(10, 2)) * [2.0, 1.0]))
    found = mds(distance_NN, seed=0)
    np.testing.assert_allclose(squareform(pdist(found)), distance_NN, atol=1e-6)
    np.testing.assert_allclose(found, classical_mds(distance_NN), atol=1e-6)


def test_mds_improves_on_its_start_and_is_reproducible() -> None:
    distance_NN = squareform(pdist(np.random.default_rng(11).normal(size=(20, 8))))
    found = mds(distance_NN, seed=0)
    assert found.shape == (20, 2)
    assert stress(found, distance_NN) < 0.9 * stress(classical_mds(distance_NN), distance_NN)
    np.testing.assert_array_equal(found, mds(distance_NN, seed=0))
    np.testing.assert_array_equal(found, mds(distance_NN, seed=1))


def test_mds_of_coinciding_points_is_the_origin() -> None:
    np.testing.assert_array_equal(mds(np.zeros((4, 4)), seed=0), np.zeros((4, 2)))


def test_mds_rejects_undefined_rows() -> None:
    with pytest.raises(ValueError, match="not finite"):
        mds(np.where(np.eye(4) == 1, 0.0, np.nan), seed=0)
