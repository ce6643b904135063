"""How well responses are predicted on images that the prediction has not seen, and how far that hangs on the images.

Axes: n images, t targets, f folds.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

from probes.statistics.constancy import constant_columns

FOLDS = 5
Floats = NDArray[np.float64]


class HeldOutR2(NamedTuple):
    """Coefficients of determination on held-out images, all folds together.

    Attributes:
        value_t: 1 - sum of squared errors / sum of squares about the mean; NaN for a constant target. Below 0 the
            predictions are worse than the mean.
        influence_nt: derivative of the value with respect to each image's weight, times n. The predictions are taken as
            they are: that other images would have trained them otherwise is not in it.
    """

    value_t: Floats
    influence_nt: Floats


def held_out_r2(Y_nt: NDArray[np.floating[Any]], predicted_nt: Floats) -> HeldOutR2:
    """The r2 of predictions, each made without its image."""
    Y_nt = np.where(constant_columns(Y_nt), np.nan, Y_nt.astype(np.float64))
    error_nt, about_nt = (Y_nt - predicted_nt) ** 2, (Y_nt - Y_nt.mean(axis=0)) ** 2
    size_t = about_nt.sum(axis=0)
    missed_t = error_nt.sum(axis=0) / size_t
    return HeldOutR2(1 - missed_t, -(error_nt - missed_t * about_nt) * len(Y_nt) / size_t)


def splits(
    n: int, seed: int, units: NDArray[np.integer[Any]] | None = None, folds: int = FOLDS
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Training and held-out rows of each fold, drawn at random; images of one unit (a concept) stay together."""
    if units is None or len(np.unique(units)) == n:
        yield from KFold(folds, shuffle=True, random_state=seed).split(np.empty((n, 1)))
    else:
        yield from GroupKFold(folds, shuffle=True, random_state=seed).split(np.empty((n, 1)), groups=units)


def cross_predicted(
    predict: Callable[[NDArray[np.intp], NDArray[np.intp]], Floats],
    shape: tuple[int, ...],
    seed: int,
    units: NDArray[np.integer[Any]] | None = None,
) -> Floats:
    """Predictions of every image by a model that was fitted without it.

    Args:
        predict: from rows to fit to and rows to predict to predictions (rows, ...).
        shape: of all predictions, images first.
        seed: of the folds.
        units: see `splits`.
    """
    predicted = np.empty(shape)
    for training, held_out in splits(shape[0], seed, units):
        predicted[held_out] = predict(training, held_out)
    return predicted
