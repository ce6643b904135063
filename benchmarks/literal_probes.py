"""The paper's probes as one would write them from its appendix, with scikit-learn and scipy, in loops.

probes.py times them beside ours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from torch import Tensor

Floats = NDArray[np.float64]


def tuning(X_np: Floats, y_n: Floats, alphas: Floats, tolerance: float) -> tuple[Floats, Floats]:
    """r2 (folds,) and coefficients (p,) of one target: a grid search in each outer fold, then one on all rows."""
    model = Lasso(positive=True, tol=tolerance, max_iter=100_000)
    folds = KFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(model, {"alpha": alphas}, scoring="r2", cv=folds)
    r2 = []
    for train, test in folds.split(X_np):
        search.fit(X_np[train], y_n[train])
        r2.append(r2_score(y_n[test], search.predict(X_np[test])))
    return np.array(r2), search.fit(X_np, y_n).best_estimator_.coef_


def separability(Z_nd: NDArray[Any], labels_n: NDArray[Any], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Balanced accuracy of some pairs of classes, each fit converged."""
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracies = []
    for i, j in pairs:
        rows = np.flatnonzero((labels_n == i) | (labels_n == j))
        X, y = Z_nd[rows].astype(np.float64), labels_n[rows] == j
        scores = [
            balanced_accuracy_score(y[test], model.fit(X[train], y[train]).predict(X[test]))
            for train, test in folds.split(X, y)
        ]
        accuracies.append(float(np.mean(scores)))
    return accuracies


def similarity(readouts: Sequence[NDArray[Any]], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Spearman correlation between the dissimilarities of some pairs of experts."""
    return [
        float(spearmanr(*(pdist(readouts[expert].astype(np.float64)) for expert in pair)).statistic) for pair in pairs
    ]


def readouts(model: Any, x_BCHW: Tensor) -> Tensor:
    """Readouts (E, B, D), the whole network up to the readout run anew for every expert."""
    return torch.stack([expert(model.shared(x_BCHW)).float() for expert in model.experts])
