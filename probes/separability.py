"""Category separability: how well a linear boundary in an expert's readout tells two categories apart.

Source: Section "Separability Analysis" (Figure 5), Appendix A.3.

Axes: n images, d readout units, C classes.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

# The objective has one optimum. scikit-learn's default solver, lbfgs, is stopped short of it (by its loose
# tolerance, or after 100 steps, as at 128 units), and accuracy would depend on where. Newton steps get there.
_SOLVER = "newton-cholesky"
_TOLERANCE = 1e-10
_MAX_ITER = 1000
_MIN_FOLDS = 2


@dataclass(frozen=True)
class Separability:
    """Cross-validated pairwise separability of C classes.

    Attributes:
        accuracy: (C, C) balanced accuracy in [0, 1], chance 0.5, symmetric; NaN on the diagonal and where
            undefined.
        counts: (C,) images of each class.
        classes: (C,) the labels, ascending: row and column i belong to label `classes[i]`.

    """

    accuracy: NDArray[np.float64]
    counts: NDArray[np.intp]
    classes: NDArray[np.int64]

    def mean(self) -> float:
        """Mean accuracy over the pairs of classes for which it is defined; NaN if there are none."""
        pairs = self.accuracy[np.triu_indices_from(self.accuracy, k=1)]
        defined = pairs[~np.isnan(pairs)]
        return float(defined.mean()) if defined.size else float("nan")


def pairwise_separability(
    Z_nd: NDArray[np.floating[Any]],
    labels_n: NDArray[np.integer[Any]],
    *,
    C: float = 1.0,
    folds: int = 5,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
) -> Separability:
    """Tell every pair of classes apart by logistic regression, scored on held-out images (Appendix A.3).

    For each pair, an L2-regularised binary logistic regression on the raw activations is fitted to its
    optimum on the training part of each stratified fold. Its accuracy is the mean over folds of the balanced
    accuracy (the mean of the two classes' recalls) on the held-out part.

    Args:
        Z_nd: (n, d) activations of one expert.
        labels_n: (n,) integer class labels; below 0 means unlabelled, and the image is ignored.
        C: inverse strength of the regularisation, as in scikit-learn; the paper's is the default.
        folds: number of folds.
        seed: seeds the shuffling of the folds.
        groups: (n,) group of each image, e.g. its concept. Images of one group then never stand on both sides
            of a split, so that the accuracy is one for unseen concepts. None splits image by image.

    Returns:
        The `Separability`. A class of fewer images (with `groups`: fewer groups) than folds has NaN
        throughout. So has a pair of which a fold lacks a class, which takes groups with images of both.

    Raises:
        ValueError: shapes do not match, labels are not integers, no image is labelled, an activation is not
            finite (labelled or not), or there are fewer than two folds.

    Warns:
        scipy.linalg.LinAlgWarning, sklearn.exceptions.ConvergenceWarning: activations so large that the
            optimum is hard to reach (a slower solver takes over) or cannot be reached in double precision.

    """
    _check(Z_nd, labels_n, groups, folds)
    classes, counts = np.unique(labels_n[labels_n >= 0], return_counts=True)
    if classes.size == 0:
        raise ValueError("no image is labelled: every label is below 0")
    accuracy_CC = np.full((classes.size, classes.size), np.nan)
    enough_C = [_units(labels_n == label, groups) >= folds for label in classes]
    model = LogisticRegression(C=C, solver=_SOLVER, tol=_TOLERANCE, max_iter=_MAX_ITER)
    split_by = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = split_by(folds, shuffle=True, random_state=seed)
    for i, j in combinations(np.flatnonzero(enough_C), 2):
        rows = np.flatnonzero((labels_n == classes[i]) | (labels_n == classes[j]))
        pair_groups = None if groups is None else groups[rows]
        score = _cross_validated(model, splitter, Z_nd[rows], labels_n[rows] == classes[j], pair_groups)
        accuracy_CC[i, j] = accuracy_CC[j, i] = score
    return Separability(accuracy_CC, counts, classes.astype(np.int64))


def _cross_validated(
    model: LogisticRegression,
    splitter: StratifiedKFold | StratifiedGroupKFold,
    Z_nd: NDArray[np.floating[Any]],
    second_n: NDArray[np.bool_],
    groups: NDArray[Any] | None,
) -> float:
    """Mean over folds of the held-out balanced accuracy; NaN if a class is missing from a side of a fold."""
    Z_nd = Z_nd.astype(np.float64)
    scores = []
    for train, test in splitter.split(Z_nd, second_n, groups):
        if any(second_n[part].all() or not second_n[part].any() for part in (train, test)):
            return float("nan")
        predicted = model.fit(Z_nd[train], second_n[train]).predict(Z_nd[test])
        scores.append(balanced_accuracy_score(second_n[test], predicted))
    return float(np.mean(scores))


def _units(member_n: NDArray[np.bool_], groups: NDArray[Any] | None) -> int:
    """Count what a split may not divide: a class's images or, with groups, its groups."""
    return int(member_n.sum()) if groups is None else np.unique(groups[member_n]).size


def _check(
    Z_nd: NDArray[np.floating[Any]],
    labels_n: NDArray[np.integer[Any]],
    groups: NDArray[Any] | None,
    folds: int,
) -> None:
    if labels_n.ndim != 1 or Z_nd.shape[:-1] != labels_n.shape:
        raise ValueError(f"activations (n, d) and labels (n,) do not match: {Z_nd.shape} and {labels_n.shape}")
    if groups is not None and groups.shape != labels_n.shape:
        raise ValueError(f"groups must be (n,) like the labels {labels_n.shape}, got {groups.shape}")
    if not np.issubdtype(labels_n.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels_n.dtype}")
    if folds < _MIN_FOLDS:
        raise ValueError(f"at least {_MIN_FOLDS} folds are needed, got {folds}")
    bad = np.flatnonzero(~np.isfinite(Z_nd).all(axis=1))
    if bad.size:
        raise ValueError(f"activations are not finite in {bad.size} images, rows {bad[:10].tolist()}")
