"""What notebooks call by the package's name."""

import inspect

import numpy as np

from probes import statistics


def test_every_public_name_is_there_and_explained():
    for name in statistics.__all__:
        assert callable(getattr(statistics, name)) is (name != "ALPHAS")
        if inspect.isfunction(getattr(statistics, name)):
            assert getattr(statistics, name).__doc__


def test_the_names_and_results_that_are_promised():
    rng = np.random.default_rng(0)
    X, readouts = rng.random((60, 3)), [rng.normal(size=(60, d)) for d in (2, 3, 5, 4)]
    labels = np.arange(60) % 3
    tuning = statistics.fit_tuning(X, X[:, :2] + 0.1)
    assert (tuning.r2.shape, tuning.alpha.shape, tuning.coef.shape) == ((2, 5), (2,), (2, 3))
    accuracy = statistics.pairwise_separability(readouts[0], labels).accuracy
    assert accuracy.shape == (3, 3)
    assert np.isnan(accuracy.diagonal()).all()
    similarity = statistics.second_order(readouts)
    clusters = statistics.cluster(similarity, range(2, 4))
    assert (similarity.shape, clusters.labels.shape, set(clusters.silhouette)) == ((4, 4), (4,), {2, 3})
    assert clusters.k in clusters.silhouette
    assert statistics.most_exciting(np.array([1.0, 3.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]
