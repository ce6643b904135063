import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from probes.statistics.similarity import cluster, second_order
from probes.statistics.stability import cluster_stability, subsampled


def planted(noise, seed=0, n=60, each=4):
    """Two kinds of experts, each an own geometry under random rotations."""
    rng = np.random.default_rng(seed)
    kinds = [rng.normal(size=(n, 5)) for _ in range(2)]
    return [
        kind @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + noise * rng.normal(size=(n, 5))
        for kind in kinds
        for _ in range(each)
    ]


def rand_index(a, b):
    """Adjusted Rand index from counts of pairs (Hubert and Arabie 1985), by loops."""
    n = len(a)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    in_a, in_b = (sum(x[i] == x[j] for i, j in pairs) for x in (a, b))
    expected = in_a * in_b / len(pairs)
    most = (in_a + in_b) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def test_a_part_is_a_random_half_without_repeats():
    readouts = planted(0.5)
    parts = list(subsampled(readouts, draws=3, seed=1))
    rng = np.random.default_rng(1)
    for part in parts:
        rows = np.sort(rng.choice(60, 30, replace=False))
        slow = spearmanr(pdist(readouts[0][rows]), pdist(readouts[5][rows])).statistic
        assert part[0, 5] == pytest.approx(slow, abs=1e-10)
    assert not np.allclose(parts[0], parts[1])


def test_stability_equals_the_definition():
    readouts = planted(2.5)
    labels = cluster(second_order(readouts)).labels
    parts = list(subsampled(readouts, draws=6, seed=0))
    found = cluster_stability(parts, labels)
    together = np.zeros((8, 8))
    for draw, part in enumerate(parts):
        clusters = cluster(part)
        assert found.k[draw] == clusters.k
        assert found.rand[draw] == pytest.approx(rand_index(labels, clusters.labels))
        together += [[x == y for x in clusters.labels] for y in clusters.labels]
    np.testing.assert_allclose(found.together_NN, together / 6)
    assert len(set(found.rand)) > 1  # or the case would say little


def test_planted_kinds_are_stable_and_noise_is_not():
    clear, noise = planted(0.2), [np.random.default_rng(i).normal(size=(60, 5)) for i in range(8)]
    for readouts, bounds in ((clear, (0.999, 1.001)), (noise, (-0.5, 0.5))):
        labels = cluster(second_order(readouts)).labels
        found = cluster_stability(list(subsampled(readouts, draws=10, seed=0)), labels)
        assert bounds[0] < found.rand.mean() < bounds[1]
    labels = cluster(second_order(clear)).labels
    assert labels.tolist() == [0] * 4 + [1] * 4


def test_parts_on_which_an_expert_is_constant_are_left_out():
    parts = list(subsampled(planted(0.2), draws=2, seed=0))
    parts[0][3] = np.nan
    found = cluster_stability(parts, np.array([0] * 4 + [1] * 4))
    assert len(found.rand) == 1
    assert len(cluster_stability(parts[:1], np.zeros(8, int)).rand) == 0
