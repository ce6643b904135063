"""Numbers of embeddings against scikit-learn and slow references."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from callbacks import embeddings

FEW = 60


def drawn(images=FEW, dimensions=7, classes=3, seed=0, signal=1.0):
    """Embeddings that know their class a little, around a mean that is not 0, and the classes in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    means = signal * rng.normal(size=(classes, dimensions)) + 2
    return means[labels] + rng.normal(size=(images, dimensions)), labels


def knn_by_sklearn(x, labels, neighbours, temperature):
    """An image at a time, from all others."""
    right = 0
    for one in range(len(x)):
        others = np.arange(len(x)) != one
        votes = KNeighborsClassifier(
            neighbours, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
        )
        right += votes.fit(x[others], labels[others]).predict(x[one : one + 1])[0] == labels[one]
    return right / len(x)


@pytest.mark.parametrize(("classes", "neighbours", "temperature"), [(3, 20, 0.07), (2, 5, 1.0), (10, 1, 0.07)])
def test_neighbours_tell_what_scikit_learns_do(classes, neighbours, temperature):
    x, labels = drawn(classes=classes)
    expected = knn_by_sklearn(x, labels, neighbours, temperature)
    assert 0 < expected < 1
    got = embeddings.knn_accuracy(x, labels, neighbours=neighbours, temperature=temperature)
    assert got == pytest.approx(expected, abs=1e-6)


def test_neighbours_in_several_chunks(monkeypatch):
    x, labels = drawn()
    whole = embeddings.knn_accuracy(x, labels), embeddings.uniformity(x)
    monkeypatch.setattr(embeddings, "_ROWS", 7)
    assert (embeddings.knn_accuracy(x, labels), embeddings.uniformity(x)) == pytest.approx(whole, rel=1e-12)


def test_all_others_vote_where_there_are_fewer_than_k():
    x, labels = drawn(images=12)
    assert embeddings.knn_accuracy(x, labels, neighbours=20) == embeddings.knn_accuracy(x, labels, neighbours=11)
    assert embeddings.knn_accuracy(x, labels) == pytest.approx(knn_by_sklearn(x, labels, 11, 0.07))
    assert embeddings.knn_accuracy([[1.0], [2.0]], [0, 1]) == 0


def linear_by_sklearn(x, labels, ridge=1.0):
    folds = embeddings.stratified_folds(torch.as_tensor(labels)).numpy()
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=ridge))
    return (cross_val_predict(model, x, labels, cv=PredefinedSplit(folds)) == labels).mean()


@pytest.mark.parametrize(
    ("images", "dimensions", "classes", "ridge"),
    [(60, 7, 3, 1.0), (40, 70, 4, 1.0), (60, 5, 2, 10.0), (23, 3, 10, 1.0)],
)
def test_a_linear_map_tells_what_scikit_learns_does(images, dimensions, classes, ridge):
    x, labels = drawn(images, dimensions, classes, signal=0.7)
    x[:, 0] = 1e6  # says nothing, and is large
    expected = linear_by_sklearn(x, labels, ridge)
    assert 0 < expected < 1
    assert float(embeddings.linear_accuracy(x, labels, ridge=ridge)) == pytest.approx(expected, abs=1e-6)


def test_many_embeddings_at_once_are_each_alone():
    x, labels = zip(*(drawn(seed=seed, signal=0.5) for seed in range(4)), strict=True)
    together = embeddings.linear_accuracy(np.stack(x), labels[0])
    assert together.tolist() == pytest.approx([linear_by_sklearn(one, labels[0]) for one in x])


def test_every_fold_has_some_of_each_class():
    labels = torch.as_tensor(drawn(images=100, classes=4)[1])
    folds = embeddings.stratified_folds(labels)
    for fold in range(5):
        assert torch.bincount(labels[folds == fold]).tolist() == [5] * 4


def test_classes_that_come_round_in_folds_are_not_left_out_of_a_fit():
    labels = np.arange(50) % 5
    x = np.eye(5)[labels] + 0.01 * np.random.default_rng(0).normal(size=(50, 5))
    assert embeddings.linear_accuracy(x, labels) == 1


def test_images_without_a_class_are_left_out():
    x, labels = drawn()
    mixed, known = np.concatenate([x, 100 - x]), np.concatenate([labels, np.full(len(x), -1)])
    assert embeddings.knn_accuracy(mixed, known) == embeddings.knn_accuracy(x, labels)
    assert embeddings.linear_accuracy(mixed, known) == embeddings.linear_accuracy(x, labels)


@pytest.mark.parametrize("labels", [[0] * 6, [-1] * 6, [-1] * 5 + [1]])
def test_fewer_than_two_classes_have_no_accuracy(labels):
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert math.isnan(embeddings.knn_accuracy(x, labels))
    assert math.isnan(embeddings.linear_accuracy(x, labels))


def test_numbers_that_are_not_finite_have_no_accuracy():
    x, labels = drawn()
    broken = x.copy()
    broken[3, 2] = np.inf
    assert math.isnan(embeddings.knn_accuracy(broken, labels))
    alone = float(embeddings.linear_accuracy(x, labels))
    assert embeddings.linear_accuracy(np.stack([broken, x]), labels).tolist() == pytest.approx(
        [math.nan, alone], nan_ok=True
    )


def test_as_many_labels_as_images():
    x, labels = drawn()
    for accuracy in (embeddings.knn_accuracy, embeddings.linear_accuracy):
        with pytest.raises(ValueError, match="need as many labels"):
            accuracy(x, labels[1:])


def test_effective_rank_is_that_of_the_singular_values():
    for shape in ((50, 6), (6, 50)):
        z = np.random.default_rng(1).normal(size=shape) * np.geomspace(1, 1e-3, shape[1])
        values = np.linalg.svd(z, compute_uv=False)
        p = values / values.sum() + 1e-7
        assert embeddings.effective_rank(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_effective_rank_counts_directions():
    assert embeddings.effective_rank(np.eye(40)[:, :8] * 1e-9) == pytest.approx(8, rel=1e-4)
    assert embeddings.effective_rank(np.outer(np.arange(1, 30), [1.0, -2, 3])) == pytest.approx(1, rel=1e-4)
    assert math.isnan(embeddings.effective_rank(np.zeros((5, 3))))
    assert math.isnan(embeddings.effective_rank([[1.0, math.nan]]))


def test_alignment_and_uniformity_pair_by_pair():
    a, b = drawn()[0], drawn(seed=1)[0]
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    apart = [((one - other) ** 2).sum() for one, other in zip(unit_a, unit_b, strict=True)]
    assert embeddings.alignment(a, b) == pytest.approx(np.mean(apart), rel=1e-9)
    pairs = [np.exp(-2 * ((unit_a[i] - unit_a[j]) ** 2).sum()) for i in range(FEW) for j in range(i)]
    assert embeddings.uniformity(a) == pytest.approx(np.log(np.mean(pairs)), rel=1e-9)


def test_alignment_and_uniformity_at_their_ends():
    z = np.random.default_rng(0).normal(size=(2000, 64))
    assert embeddings.alignment(z, 3 * z) == pytest.approx(0, abs=1e-12)
    assert embeddings.alignment(z, -z) == pytest.approx(4)
    assert embeddings.uniformity(z) == pytest.approx(-4, abs=0.15)
    assert embeddings.uniformity(np.ones((20, 3))) == pytest.approx(0, abs=1e-12)
    assert math.isnan(embeddings.uniformity(z[:1]))
    with pytest.raises(ValueError, match="equal shapes"):
        embeddings.alignment(z, z[1:])


def cka(x, y):
    """From the similarities of all pairs of images, as the paper defines it (Equations 2 and 4)."""
    centring = np.eye(len(x)) - 1 / len(x)
    k, l_ = (centring @ one @ one.T @ centring for one in (x, y))
    return np.trace(k @ l_) / np.sqrt(np.trace(k @ k) * np.trace(l_ @ l_))


def test_cka_is_that_of_all_pairs_of_images():
    sets = [drawn(seed=seed, dimensions=3 + seed)[0] for seed in range(4)]
    got = embeddings.linear_cka(sets).numpy()
    assert got == pytest.approx(np.array([[cka(x, y) for y in sets] for x in sets]), rel=1e-9)
    assert got.diagonal() == pytest.approx(1)
    between = [cka(sets[i], sets[j]) for i in range(4) for j in range(i)]
    assert embeddings.mean_between(torch.as_tensor(got)) == pytest.approx(np.mean(between))


def test_cka_does_not_see_rotation_scale_and_place():
    x, _ = drawn()
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(7, 7)))[0]
    assert embeddings.linear_cka([x, 5 * x @ rotation + 100])[0, 1] == pytest.approx(1)


def test_a_set_that_is_the_same_for_all_images_has_no_cka():
    x = torch.as_tensor(drawn()[0]).float()
    dead = torch.full_like(x, 0.1)
    got = embeddings.linear_cka(torch.stack([x, dead, 2 * x]))
    assert got.isnan().tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    assert embeddings.mean_between(got) == pytest.approx(1)
    assert math.isnan(embeddings.mean_between(got[:1, :1]))
    with pytest.raises(ValueError, match="as many images"):
        embeddings.linear_cka([x, x[1:]])


def test_float32_gives_the_same_to_seven_digits():
    x, labels = drawn(images=200)
    single = x.astype(np.float32)
    assert embeddings.knn_accuracy(single, labels) == pytest.approx(embeddings.knn_accuracy(x, labels), abs=1e-6)
    assert float(embeddings.linear_accuracy(single, labels)) == pytest.approx(linear_by_sklearn(x, labels), abs=1e-6)
    assert embeddings.uniformity(single) == pytest.approx(embeddings.uniformity(x), rel=1e-6)
    assert embeddings.effective_rank(single) == pytest.approx(embeddings.effective_rank(x), rel=1e-6)
