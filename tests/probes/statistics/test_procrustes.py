"""Procrustes similarity beside scipy's best rotation, and its influences beside finite differences."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from probes.statistics.procrustes import procrustes, procrustes_influence, procrustes_matrix, procrustes_null, shape_of
from probes.statistics.references import permutations_of


def pair(n=25, d=4, k=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, X @ rng.normal(size=(d, k)) + rng.normal(size=(n, k)) + 3


def by_rotation(X, Y):
    """Cosine of the angular distance after the best rotation, the smaller one filled up with zeros."""
    size = max(X.shape[1], Y.shape[1])
    X, Y = (np.pad(Z - Z.mean(axis=0), ((0, 0), (0, size - Z.shape[1]))) for Z in (X, Y))
    R, _ = orthogonal_procrustes(X, Y)
    return np.sum(X @ R * Y) / (np.linalg.norm(X) * np.linalg.norm(Y))


def test_it_is_the_cosine_after_the_best_rotation():
    given = [pair(seed=seed)[seed % 2] for seed in range(5)]
    shapes = [shape_of(Z) for Z in given]
    slow = [[by_rotation(a, b) for b in given] for a in given]
    np.testing.assert_allclose(procrustes_matrix(shapes), slow, atol=1e-12)
    assert procrustes(shapes[0], shapes[1]) == pytest.approx(slow[0][1], abs=1e-12)


def test_a_rotation_a_place_and_a_scale_are_nothing():
    X, _ = pair()
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    assert procrustes(shape_of(X), shape_of(-2 * X @ Q + 5)) == pytest.approx(1)


def test_a_dead_one_is_nan():
    X, _ = pair()
    dead = shape_of(np.ones((25, 3)))
    assert np.isnan(procrustes(shape_of(X), dead))
    assert np.isnan(procrustes_influence(shape_of(X), dead)[0])
    found = procrustes_matrix([shape_of(X), dead])
    assert found[0, 0] == 1
    assert np.isnan(found[1]).all()
    assert np.isnan(procrustes_null([shape_of(X), dead], shape_of(X), 2, 0)[:, 1]).all()


def test_influences_are_derivatives_by_an_images_weight():
    X, Y = pair(n=12)

    def weighted(weights):
        w = weights / weights.sum()
        A, B = X - w @ X, Y - w @ Y
        M = (A * w[:, None]).T @ B
        sizes = w @ (A**2).sum(axis=1), w @ (B**2).sum(axis=1)
        return np.linalg.svd(M, compute_uv=False).sum() / np.sqrt(sizes[0] * sizes[1])

    value, influence = procrustes_influence(shape_of(X), shape_of(Y))
    assert value == pytest.approx(weighted(np.ones(12)))
    step = 1e-6
    slow = [12 * (weighted(1 + step * (np.arange(12) == i)) - weighted(1 - step * (np.arange(12) == i))) / (2 * step)
            for i in range(12)]  # fmt: skip
    np.testing.assert_allclose(influence, slow, atol=1e-6)
    assert influence.sum() == pytest.approx(0, abs=1e-9)


def test_the_null_permutes_the_same_way_for_all():
    X, Y = pair()
    shapes = [shape_of(X), shape_of(Y[:, :2])]
    found = procrustes_null(shapes, shape_of(Y), 3, seed=5)
    slow = [[procrustes(shape, shape_of(Y)[order]) for shape in shapes] for order in permutations_of(25, 3, 5)]
    np.testing.assert_allclose(found, slow, atol=1e-7)
    assert procrustes_null(shapes, shape_of(Y), 0, seed=5).shape == (0, 2)
