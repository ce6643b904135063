import warnings
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from probes.statistics import logistic, newton
from probes.statistics.separability import Separability, pair_folds, pairwise_separability


def blobs(counts: list[int], means: list[float], d: int, seed: int) -> tuple[Any, Any]:
    """Unit Gaussians whose first coordinate has the given means, in shuffled order."""
    rng = np.random.default_rng(seed)
    labels_n = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    Z_nd = rng.normal(size=(labels_n.size, d))
    Z_nd[:, 0] += np.array(means)[labels_n]
    return Z_nd, labels_n


def slow_reference(
    Z_nd: NDArray[np.float64],
    labels_n: NDArray[np.int64],
    *,
    C: float,
    folds: int,
    seed: int,
    groups: Any = None,
) -> NDArray[np.float64]:
    """Loops, another solver run to its optimum, and balanced accuracy from the two recalls."""
    classes = sorted({int(label) for label in labels_n if label >= 0})
    accuracy = np.full((len(classes), len(classes)), np.nan)
    for i, j in combinations(range(len(classes)), 2):
        rows = [r for r, label in enumerate(labels_n) if label in (classes[i], classes[j])]
        Z, y = Z_nd[rows], labels_n[rows]
        if groups is None:
            splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(Z, y)
        else:
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
            splits = splitter.split(Z, y, groups[rows])
        scores = []
        for train, test in splits:
            model = LogisticRegression(C=C, solver="newton-cg", tol=1e-9, max_iter=10_000)
            right = model.fit(Z[train], y[train]).predict(Z[test]) == y[test]
            recalls = [right[y[test] == label].mean() for label in (classes[i], classes[j])]
            scores.append(sum(recalls) / 2)
        accuracy[i, j] = accuracy[j, i] = sum(scores) / folds
    return accuracy


@pytest.mark.parametrize(("C", "folds", "seed"), [(1.0, 5, 0), (0.01, 3, 4)])
def test_agrees_with_loops(C: float, folds: int, seed: int) -> None:
    Z_nd, labels_n = blobs([40, 25, 60], [0.0, 1.0, 2.5], d=6, seed=0)
    found = pairwise_separability(Z_nd, labels_n, C=C, folds=folds, seed=seed)
    expected = slow_reference(Z_nd, labels_n, C=C, folds=folds, seed=seed)
    np.testing.assert_allclose(found.accuracy, expected, atol=1e-12)
    assert found.counts.tolist() == [40, 25, 60]
    assert found.classes.tolist() == [0, 1, 2]


def test_agrees_with_loops_when_groups_are_kept_together() -> None:
    Z_nd, labels_n = blobs([60, 50, 70], [0.0, 1.0, 2.5], d=4, seed=1)
    groups = labels_n * 100 + np.random.default_rng(2).integers(0, 9, size=labels_n.size)
    found = pairwise_separability(Z_nd, labels_n, groups=groups)
    expected = slow_reference(Z_nd, labels_n, C=1.0, folds=5, seed=0, groups=groups)
    np.testing.assert_allclose(found.accuracy, expected, atol=1e-12)
    assert np.isfinite(expected).sum() == 6
    assert (found.accuracy != pairwise_separability(Z_nd, labels_n).accuracy)[0, 1]


def hard(d: int = 40) -> tuple[Any, Any]:
    """Units of widely different size: scikit-learn's default solver stops far from the optimum."""
    Z_nd, labels_n = blobs([80, 80, 80], [0.0, 0.5, 1.0], d=d, seed=3)
    return Z_nd * np.logspace(-2, 2, d), labels_n


def test_the_result_is_the_optimum_where_the_default_solver_stops_early() -> None:
    Z_nd, labels_n = hard()
    found = pairwise_separability(Z_nd, labels_n)
    np.testing.assert_allclose(found.accuracy, slow_reference(Z_nd, labels_n, C=1.0, folds=5, seed=0), atol=1e-12)
    assert found.unconverged == 0
    with pytest.warns(ConvergenceWarning, match="15 of 15 logistic regressions"):
        literal = pairwise_separability(Z_nd, labels_n, solver="literal")
    assert np.nanmax(np.abs(literal.accuracy - found.accuracy)) > 1e-3


def test_literal_is_scikit_learn_as_it_comes() -> None:
    Z_nd, labels_n = hard()
    with pytest.warns(ConvergenceWarning):
        found = pairwise_separability(Z_nd, labels_n, solver="literal")
    assert found.unconverged == 15
    for i, j in combinations(range(3), 2):
        rows = np.flatnonzero((labels_n == i) | (labels_n == j))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            expected = cross_val_score(
                LogisticRegression(C=1.0),
                Z_nd[rows],
                labels_n[rows],
                scoring="balanced_accuracy",
                cv=StratifiedKFold(5, shuffle=True, random_state=0),
            )
        np.testing.assert_allclose(found.fold_accuracy[i, j], expected, atol=1e-12)


def test_literal_says_nothing_where_it_converges() -> None:
    Z_nd, labels_n = blobs([40, 40], [0.0, 1.0], d=2, seed=14)
    found = pairwise_separability(Z_nd, labels_n, solver="literal")  # warnings are errors here
    assert found.unconverged == 0
    np.testing.assert_allclose(found.accuracy, pairwise_separability(Z_nd, labels_n).accuracy, atol=1e-12)


def test_folds_are_reported_one_by_one() -> None:
    Z_nd, labels_n = blobs([40, 3, 40], [0.0, 1.0, 1.0], d=3, seed=15)
    found = pairwise_separability(Z_nd, labels_n, folds=4)
    assert found.fold_accuracy.shape == (3, 3, 4)
    np.testing.assert_allclose(found.fold_accuracy.mean(axis=2), found.accuracy, atol=1e-15)
    np.testing.assert_array_equal(found.fold_accuracy[0, 2], found.fold_accuracy[2, 0])
    assert np.unique(found.fold_accuracy[0, 2]).size > 1
    assert np.isnan(found.fold_accuracy[:, 1]).all()


def test_splits_made_once_serve_many_experts() -> None:
    Z_nd, labels_n = blobs([40, 30, 50], [0.0, 1.0, 2.0], d=3, seed=16)
    groups = np.arange(120) // 4
    splits = pair_folds(labels_n, folds=3, seed=5, groups=groups)
    for expert_nd in (Z_nd, Z_nd[:, :2]):
        given = pairwise_separability(expert_nd, labels_n, splits=splits)
        made = pairwise_separability(expert_nd, labels_n, folds=3, seed=5, groups=groups)
        np.testing.assert_array_equal(given.fold_accuracy, made.fold_accuracy)
    with pytest.raises(ValueError, match="other labels"):
        pairwise_separability(Z_nd, (labels_n + 1) % 3, splits=splits)


def test_progress_counts_pairs() -> None:
    Z_nd, labels_n = blobs([20, 20, 20, 4], [0.0, 1.0, 2.0, 3.0], d=2, seed=17)
    seen: list[tuple[int, int]] = []
    pairwise_separability(Z_nd, labels_n, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_fits_that_are_not_proven_are_left_to_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    Z_nd, labels_n = blobs([60, 50, 40], [0.0, 1.0, 1.5], d=4, seed=18)
    expected = pairwise_separability(Z_nd, labels_n)
    monkeypatch.setattr(newton, "MAX_STEPS", 0)
    images = logistic.Images(Z_nd)
    rows_r, fold_r = pair_folds(labels_n).pairs[0, 1]
    assert not images.fit_folds(rows_r, labels_n[rows_r] == 1, fold_r).proven_f.any()
    np.testing.assert_array_equal(pairwise_separability(Z_nd, labels_n).fold_accuracy, expected.fold_accuracy)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
def test_agrees_with_loops_at_any_scale(scale: float) -> None:
    Z_nd, labels_n = blobs([50, 40, 30], [0.0, 1.0, 1.5], d=10, seed=19)
    Z_nd = scale * (Z_nd @ np.random.default_rng(20).normal(size=(10, 10)) + 5.0)
    expected = slow_reference(Z_nd, labels_n, C=1.0, folds=5, seed=0)
    np.testing.assert_allclose(pairwise_separability(Z_nd, labels_n).accuracy, expected, atol=1e-12)


def test_pairs_of_every_kind_agree_with_loops() -> None:
    """Tiny and large classes, duplicates, a class in one point, one far away, and two that are the same images."""
    counts = [120, 6, 30, 20, 25, 25]
    labels_n = np.repeat(np.arange(6), counts)
    Z_nd = np.random.default_rng(21).normal(size=(226, 5)) + 0.7 * labels_n[:, None]
    Z_nd[60:120] = Z_nd[:60]
    Z_nd[labels_n == 2] = 1.0
    Z_nd[labels_n == 3] += 40.0
    Z_nd[labels_n == 5] = Z_nd[labels_n == 4]
    found = pairwise_separability(Z_nd, labels_n)
    expected = slow_reference(Z_nd, labels_n, C=1.0, folds=5, seed=0)
    np.testing.assert_allclose(found.accuracy, expected, atol=1e-12)
    assert (found.accuracy[3, :3] == 1.0).all()
    assert found.accuracy[4, 5] < 0.6


def test_planted_distances_order_the_pairs() -> None:
    # The best boundary between unit Gaussians 2, 6 and 4 apart is right with probability Phi(distance / 2).
    Z_nd, labels_n = blobs([400, 400, 400], [0.0, 2.0, 6.0], d=3, seed=4)
    accuracy = pairwise_separability(Z_nd, labels_n).accuracy
    np.testing.assert_allclose([accuracy[0, 1], accuracy[0, 2], accuracy[1, 2]], [0.8413, 0.9987, 0.9772], atol=0.02)


def test_separated_classes_are_perfect_and_identical_ones_at_chance() -> None:
    labels_n = np.repeat([0, 1, 2], 20)
    Z_nd = np.zeros((60, 2))
    Z_nd[:20, 0] = 10.0
    accuracy = pairwise_separability(Z_nd, labels_n).accuracy
    assert accuracy[0, 1] == accuracy[0, 2] == 1.0
    assert accuracy[1, 2] == 0.5


def test_accuracy_is_balanced() -> None:
    """Of no use for telling the classes apart, a large class must not lift the accuracy above chance."""
    labels_n = np.repeat([0, 1], [90, 10])
    assert pairwise_separability(np.ones((100, 3)), labels_n).accuracy[0, 1] == 0.5


def test_groups_keep_a_leak_out() -> None:
    """Activations that only tell groups apart: image by image that looks separable, by group it is chance."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), 10)
    Z_nd = rng.normal(size=(40, 30))[groups] + 0.01 * rng.normal(size=(400, 30))
    labels_n = groups % 2
    assert pairwise_separability(Z_nd, labels_n, C=100.0).mean() > 0.9
    assert pairwise_separability(Z_nd, labels_n, C=100.0, groups=groups).mean() < 0.65


def test_unlabelled_images_are_ignored() -> None:
    Z_nd, labels_n = blobs([30, 30], [0.0, 1.0], d=3, seed=6)
    more_nd = np.insert(Z_nd, [0, 10, 60], 50.0, axis=0)
    more_n = np.insert(labels_n, [0, 10, 60], [-1, -7, -1])
    found, expected = pairwise_separability(more_nd, more_n), pairwise_separability(Z_nd, labels_n)
    np.testing.assert_array_equal(found.accuracy, expected.accuracy)
    assert found.counts.tolist() == [30, 30]


def test_classes_are_the_labels_that_occur() -> None:
    Z_nd, labels_n = blobs([20, 30], [0.0, 1.0], d=3, seed=7)
    found = pairwise_separability(Z_nd, np.array([9, 4])[labels_n])
    assert found.classes.tolist() == [4, 9]
    assert found.counts.tolist() == [30, 20]


def test_a_class_of_fewer_images_than_folds_is_undefined() -> None:
    Z_nd, labels_n = blobs([20, 4, 5], [0.0, 1.0, 2.0], d=2, seed=8)
    found = pairwise_separability(Z_nd, labels_n)
    assert np.isnan(found.accuracy).tolist() == [
        [True, True, False],
        [True, True, True],
        [False, True, True],
    ]
    assert found.counts.tolist() == [20, 4, 5]
    assert found.mean() == found.accuracy[0, 2]


def test_a_class_of_fewer_groups_than_folds_is_undefined() -> None:
    Z_nd, labels_n = blobs([30, 30, 30], [0.0, 1.0, 2.0], d=2, seed=9)
    within_n = np.arange(90) % np.array([6, 4, 5])[labels_n]
    found = pairwise_separability(Z_nd, labels_n, groups=labels_n * 10 + within_n)
    assert np.isnan(found.accuracy).tolist() == [
        [True, True, False],
        [True, True, True],
        [False, True, True],
    ]


def test_a_pair_of_which_a_fold_lacks_a_class_is_undefined() -> None:
    # Each class has two groups, one shared: keeping that one whole leaves a fold to a single class.
    labels_n = np.repeat([0, 0, 1, 1], [5, 4, 5, 5])
    groups = np.repeat(["first", "shared", "shared", "second"], [5, 4, 5, 5])
    Z_nd = np.random.default_rng(10).normal(size=(19, 2))
    splits = StratifiedGroupKFold(2, shuffle=True, random_state=0).split(Z_nd, labels_n, groups)
    assert min(len(set(labels_n[test])) for _, test in splits) == 1
    found = pairwise_separability(Z_nd, labels_n, groups=groups, folds=2)
    assert np.isnan(found.accuracy).all()
    # Not for want of groups: with the shared group divided, the same images are scored.
    divided = np.where((groups == "shared") & (labels_n == 1), "third", groups)
    assert np.isfinite(pairwise_separability(Z_nd, labels_n, groups=divided, folds=2).mean())


def test_the_seed_decides_the_folds() -> None:
    Z_nd, labels_n = blobs([60, 60], [0.0, 1.0], d=3, seed=11)
    first, again, other = (pairwise_separability(Z_nd, labels_n, seed=seed).mean() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_mean_is_over_the_defined_pairs() -> None:
    nan = np.nan
    accuracy = np.array([[nan, 0.5, nan], [0.5, nan, 0.9], [nan, 0.9, nan]])
    counts, classes = np.ones(3, dtype=np.intp), np.arange(3)
    folds = np.full((3, 3, 5), nan)
    assert Separability(accuracy, counts, classes, folds).mean() == pytest.approx(0.7)
    assert np.isnan(Separability(np.full((3, 3), nan), counts, classes, folds).mean())


def test_one_class_has_no_pairs() -> None:
    found = pairwise_separability(np.random.default_rng(0).random((9, 2)), np.zeros(9, dtype=int))
    assert found.accuracy.shape == (1, 1)
    assert np.isnan(found.mean())


def test_activations_that_are_not_finite_are_named() -> None:
    Z_nd, labels_n = blobs([20, 20], [0.0, 1.0], d=3, seed=12)
    Z_nd[5, 1], Z_nd[17, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"2 images, rows \[5, 17\]"):
        pairwise_separability(Z_nd, labels_n)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels_n": np.zeros(9, dtype=int)}, "do not match"),
        ({"Z_nd": np.zeros(10)}, "do not match"),
        ({"labels_n": np.zeros(10)}, "integers"),
        ({"labels_n": np.full(10, -1)}, "no image is labelled"),
        ({"groups": np.zeros(9)}, "groups"),
        ({"folds": 1}, "at least 2 folds"),
        ({"solver": "lbfgs"}, "solver must be one of optimum, literal"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"Z_nd": np.zeros((10, 2)), "labels_n": np.arange(10) % 2}
    with pytest.raises(ValueError, match=message):
        pairwise_separability(**(good | arguments))
