"""Category separability: how well a linear boundary in an expert's readout tells two categories apart.

Source: Section "Separability Analysis" (Figure 5), Appendix A.3.

Axes: n images, d readout units, C classes, r rows of a pair of classes, f folds.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from probes.statistics.logistic import Images

Solver = Literal["optimum", "literal"]

_MIN_FOLDS = 2
_NO_FOLD = -1


@dataclass(frozen=True)
class Separability:
    """Cross-validated pairwise separability of C classes.

    Attributes:
        accuracy: (C, C) balanced accuracy in [0, 1], chance 0.5, symmetric; NaN on the diagonal and where
            undefined. The mean of `fold_accuracy`.
        counts: (C,) images of each class.
        classes: (C,) the labels, ascending: row and column i belong to label `classes[i]`.
        fold_accuracy: (C, C, f) balanced accuracy on the held-out images of each fold.
        unconverged: fits that stopped before their optimum; above 0 only with the literal solver or where a warning
            was given.

    """

    accuracy: NDArray[np.float64]
    counts: NDArray[np.intp]
    classes: NDArray[np.int64]
    fold_accuracy: NDArray[np.float64]
    unconverged: int = 0

    def mean(self) -> float:
        """Mean accuracy over the pairs of classes for which it is defined; NaN if there are none."""
        pairs = self.accuracy[np.triu_indices_from(self.accuracy, k=1)]
        defined = pairs[~np.isnan(pairs)]
        return float(defined.mean()) if defined.size else float("nan")


@dataclass(frozen=True)
class PairFolds:
    """Which fold holds out which image, for every pair of classes; the same for all experts.

    Attributes:
        folds: the number of folds.
        counts: (C,) images of each class.
        classes: (C,) the labels, ascending.
        pairs: by (i, j), i < j, the rows of the two classes and the fold (r,) that holds each out. A pair is absent if
            a class has fewer images (groups) than folds, or a fold would lack a class on one side.

    """

    folds: int
    counts: NDArray[np.intp]
    classes: NDArray[np.int64]
    pairs: dict[tuple[int, int], tuple[NDArray[np.intp], NDArray[np.intp]]]


def pair_folds(
    labels_n: NDArray[np.integer[Any]], *, folds: int = 5, seed: int = 0, groups: NDArray[Any] | None = None
) -> PairFolds:
    """Split the images of every pair of classes into stratified, shuffled folds, as scikit-learn does.

    `pairwise_separability` makes these itself; with many experts on the same images, make them once.

    Args:
        labels_n: (n,) integer class labels; below 0 means unlabelled, and the image is ignored.
        folds: number of folds.
        seed: seeds the shuffling.
        groups: (n,) group of each image, e.g. its concept. Images of one group then never stand on both sides
            of a split, so that the accuracy is one for unseen concepts. None splits image by image.

    Raises:
        ValueError: shapes do not match, labels are not integers, no image is labelled, or there are fewer than
            two folds.

    """
    _check_labels(labels_n, groups, folds)
    classes, counts = np.unique(labels_n[labels_n >= 0], return_counts=True)
    split_by = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = split_by(folds, shuffle=True, random_state=seed)
    enough_C = [_units(labels_n == label, groups) >= folds for label in classes]
    pairs = {}
    for i, j in combinations(np.flatnonzero(enough_C).tolist(), 2):
        rows_r = np.flatnonzero((labels_n == classes[i]) | (labels_n == classes[j]))
        second_r = labels_n[rows_r] == classes[j]
        fold_r = np.full(len(rows_r), _NO_FOLD)
        for fold, (_, test) in enumerate(splitter.split(rows_r, second_r, None if groups is None else groups[rows_r])):
            fold_r[test] = fold
        if _both_classes_everywhere(second_r, fold_r, folds):
            pairs[i, j] = (rows_r, fold_r)
    return PairFolds(folds, counts, classes.astype(np.int64), pairs)


def pairwise_separability(
    Z_nd: NDArray[np.floating[Any]],
    labels_n: NDArray[np.integer[Any]],
    *,
    C: float = 1.0,
    folds: int = 5,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
    solver: Solver = "optimum",
    splits: PairFolds | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Separability:
    """Tell every pair of classes apart by logistic regression, scored on held-out images (Appendix A.3).

    For each pair, an L2-regularised binary logistic regression on the raw activations is fitted to the training
    part of each stratified fold. Its accuracy is the mean over folds of the balanced accuracy (the mean of the two
    classes' recalls) on the held-out part.

    The objective has one optimum, and the default result is the optimum's: see `logistic`. scikit-learn's
    default solver, lbfgs, is stopped short of it (by its loose tolerance, or after 100 steps, as at 128 units), and
    accuracy depends on where; ``solver="literal"`` does just that, as the paper's code does.

    Args:
        Z_nd: (n, d) activations of one expert.
        labels_n: (n,) integer class labels; below 0 means unlabelled, and the image is ignored.
        C: inverse strength of the regularisation, as in scikit-learn; the paper's is the default.
        folds: number of folds.
        seed: seeds the shuffling of the folds.
        groups: (n,) group of each image, e.g. its concept: see `pair_folds`.
        solver: "optimum", or "literal" for ``LogisticRegression(C=C)`` as it comes.
        splits: `pair_folds` of the same labels, then used instead of folds, seed and groups.
        progress: called with (done, total) pairs.

    Returns:
        The `Separability`. A class of fewer images (with `groups`: fewer groups) than folds has NaN
        throughout; `counts` says how many it has. NaN too is a pair of which a fold lacks a class, which takes
        groups with images of both.

    Raises:
        ValueError: shapes do not match, labels are not integers, no image is labelled, an activation is not
            finite (labelled or not), there are fewer than two folds, the solver is unknown, or the splits are
            others' labels'.

    Warns:
        sklearn.exceptions.ConvergenceWarning: some fits stopped before their optimum; once, with their number.
        scipy.linalg.LinAlgWarning: activations so large that the optimum is hard to reach.

    """
    _check_labels(labels_n, groups, folds)
    _check_activations(Z_nd, labels_n)
    if solver not in _SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(_SOLVERS)}, got {solver!r}")
    splits = pair_folds(labels_n, folds=folds, seed=seed, groups=groups) if splits is None else splits
    _check_splits(splits, labels_n)
    size = len(splits.classes)
    fold_accuracy_CCf = np.full((size, size, splits.folds), np.nan)
    unconverged = 0
    for done, (i, j, right_r, stopped) in enumerate(_SOLVERS[solver](Z_nd, labels_n, C, splits), 1):
        rows_r, fold_r = splits.pairs[i, j]
        second_r = labels_n[rows_r] == splits.classes[j]
        fold_accuracy_CCf[i, j] = fold_accuracy_CCf[j, i] = _balanced(right_r, second_r, fold_r, splits.folds)
        unconverged += stopped
        if progress is not None:
            progress(done, len(splits.pairs))
    if unconverged:
        total = len(splits.pairs) * splits.folds
        message = f"{unconverged} of {total} logistic regressions stopped before they converged"
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    accuracy_CC = fold_accuracy_CCf.mean(axis=2)
    return Separability(accuracy_CC, splits.counts, splits.classes, fold_accuracy_CCf, unconverged)


# What a solver yields of each pair (i, j): which of its rows are classified rightly by the fold that holds them out,
# and how many fits stopped early.
_Scored = Iterator[tuple[int, int, NDArray[np.bool_], int]]


def _optimum(
    Z_nd: NDArray[np.floating[Any]], labels_n: NDArray[np.integer[Any]], C: float, splits: PairFolds
) -> _Scored:
    """To the optimum: the fast fits, and scikit-learn's Newton where their predictions could not be proven."""
    images = Images(Z_nd)
    grams = [images.gram(np.flatnonzero(labels_n == label)) for label in splits.classes]
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    for (i, j), (rows_r, fold_r) in splits.pairs.items():
        second_r = labels_n[rows_r] == splits.classes[j]
        fits = images.fit_folds(rows_r, second_r, fold_r, C, grams[i] + grams[j])
        right_r = (fits.held_out_r > 0) == second_r
        stopped = 0
        for fold in np.flatnonzero(~fits.proven_f):
            test_r = fold_r == fold
            right_r[test_r], converged = _fitted(model, Z_nd[rows_r], second_r, test_r)
            stopped += not converged
        yield i, j, right_r, stopped


def _literal(
    Z_nd: NDArray[np.floating[Any]], labels_n: NDArray[np.integer[Any]], C: float, splits: PairFolds
) -> _Scored:
    """As the paper's code does, by scikit-learn's defaults."""
    model = LogisticRegression(C=C)
    for (i, j), (rows_r, fold_r) in splits.pairs.items():
        second_r = labels_n[rows_r] == splits.classes[j]
        right_r = np.empty(len(rows_r), dtype=bool)
        stopped = 0
        for fold in range(splits.folds):
            test_r = fold_r == fold
            right_r[test_r], converged = _fitted(model, Z_nd[rows_r], second_r, test_r)
            stopped += not converged
        yield i, j, right_r, stopped


_SOLVERS = {"optimum": _optimum, "literal": _literal}


def _fitted(
    model: LogisticRegression, Z_rd: NDArray[np.floating[Any]], second_r: NDArray[np.bool_], test_r: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], bool]:
    """Whether each test row is classified rightly, and whether the fit converged."""
    Z_rd = Z_rd.astype(np.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(Z_rd[~test_r], second_r[~test_r])
    stopped = [warning for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    for other in caught:
        if other not in stopped:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return model.predict(Z_rd[test_r]) == second_r[test_r], not stopped


def _balanced(
    right_r: NDArray[np.bool_], second_r: NDArray[np.bool_], fold_r: NDArray[np.intp], folds: int
) -> NDArray[np.float64]:
    """Balanced accuracy (f,): the mean of the recalls of the two classes."""
    cell_r = 2 * fold_r + second_r
    recall = np.bincount(cell_r, right_r, 2 * folds) / np.bincount(cell_r, minlength=2 * folds)
    return np.asarray(recall.reshape(folds, 2).mean(axis=1))


def _both_classes_everywhere(second_r: NDArray[np.bool_], fold_r: NDArray[np.intp], folds: int) -> bool:
    """Each fold holds out images of both classes and leaves some of both to train on."""
    held_out_f2 = np.bincount(2 * fold_r + second_r, minlength=2 * folds).reshape(folds, 2)
    return bool((held_out_f2 > 0).all() and (held_out_f2 < held_out_f2.sum(axis=0)).all())


def _units(member_n: NDArray[np.bool_], groups: NDArray[Any] | None) -> int:
    """Count what a split may not divide: a class's images or, with groups, its groups."""
    return int(member_n.sum()) if groups is None else np.unique(groups[member_n]).size


def _check_labels(labels_n: NDArray[np.integer[Any]], groups: NDArray[Any] | None, folds: int) -> None:
    if labels_n.ndim != 1:
        raise ValueError(f"labels must be (n,), got shape {labels_n.shape}")
    if groups is not None and groups.shape != labels_n.shape:
        raise ValueError(f"groups must be (n,) like the labels {labels_n.shape}, got {groups.shape}")
    if not np.issubdtype(labels_n.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels_n.dtype}")
    if folds < _MIN_FOLDS:
        raise ValueError(f"at least {_MIN_FOLDS} folds are needed, got {folds}")
    if not (labels_n >= 0).any():
        raise ValueError("no image is labelled: every label is below 0")


def _check_activations(Z_nd: NDArray[np.floating[Any]], labels_n: NDArray[np.integer[Any]]) -> None:
    if Z_nd.ndim != 2 or len(Z_nd) != len(labels_n):
        raise ValueError(f"activations (n, d) and labels (n,) do not match: {Z_nd.shape} and {labels_n.shape}")
    bad = np.flatnonzero(~np.isfinite(Z_nd).all(axis=1))
    if bad.size:
        raise ValueError(f"activations are not finite in {bad.size} images, rows {bad[:10].tolist()}")


def _check_splits(splits: PairFolds, labels_n: NDArray[np.integer[Any]]) -> None:
    classes, counts = np.unique(labels_n[labels_n >= 0], return_counts=True)
    if not (np.array_equal(classes, splits.classes) and np.array_equal(counts, splits.counts)):
        raise ValueError("the splits were made for other labels: their classes or counts differ")
