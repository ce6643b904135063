"""Sums over rows that add up: all that least squares, and its r2 on other rows, needs to know of the data.

Axes: n rows, p predictors, t targets, a models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over some rows of predictors x and targets y, which should be roughly centred, and of their products.

    Attributes:
        rows: number of rows n.
        x_p: sums of predictors.
        y_t: sums of targets.
        xx_pp: sums of products of predictors.
        xy_tp: sums of products of targets and predictors.
        yy_t: sums of squared targets.
        low_t: lowest value of each target, infinite without rows.
        high_t: highest value.

    """

    rows: int
    x_p: Floats
    y_t: Floats
    xx_pp: Floats
    xy_tp: Floats
    yy_t: Floats
    low_t: Floats
    high_t: Floats

    @classmethod
    def of(cls, X_np: Floats, Y_nt: Floats) -> "Moments":
        """The sums over all rows of X (n, p) and Y (n, t)."""
        return cls(
            len(X_np),
            X_np.sum(axis=0),
            Y_nt.sum(axis=0),
            X_np.T @ X_np,
            Y_nt.T @ X_np,
            np.einsum("nt,nt->t", Y_nt, Y_nt),
            Y_nt.min(axis=0, initial=np.inf),
            Y_nt.max(axis=0, initial=-np.inf),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.rows + other.rows,
            self.x_p + other.x_p,
            self.y_t + other.y_t,
            self.xx_pp + other.xx_pp,
            self.xy_tp + other.xy_tp,
            self.yy_t + other.yy_t,
            np.minimum(self.low_t, other.low_t),
            np.maximum(self.high_t, other.high_t),
        )

    @classmethod
    def total(cls, parts: Sequence["Moments"]) -> "Moments":
        """The sums over all rows of all parts, at least one."""
        return reduce(cls.__add__, parts)

    def centred(self) -> tuple[Floats, Floats]:
        """X'X (p, p) and Y'X (t, p) of the columns less their means."""
        return (
            self.xx_pp - np.outer(self.x_p, self.x_p) / self.rows,
            self.xy_tp - np.outer(self.y_t, self.x_p) / self.rows,
        )

    def r2(self, training: "Moments", coef_tap: Floats) -> Floats:
        """Coefficient of determination on these rows of models fitted to other rows.

        Args:
            training: the rows fitted to; their means make the intercepts.
            coef_tap: (t, a, p) coefficients of a models of each target.

        Returns:
            (t, a); NaN where the target is constant on these rows, or a coefficient is NaN.

        """
        x_p, y_t = training.x_p / training.rows, training.y_t / training.rows
        # the sums of squares and products about the training means
        xx_pp = self.xx_pp - np.outer(self.x_p, x_p) - np.outer(x_p, self.x_p - self.rows * x_p)
        xy_tp = self.xy_tp - np.outer(self.y_t, x_p) - np.outer(y_t, self.x_p - self.rows * x_p)
        yy_t = self.yy_t - y_t * (2 * self.y_t - self.rows * y_t)
        explained_ta = np.einsum("tap,tap->ta", coef_tap, 2 * xy_tp[:, None] - coef_tap @ xx_pp)
        varies_t = self.high_t > self.low_t
        total_t = np.where(varies_t, self.yy_t - self.y_t**2 / max(self.rows, 1), np.nan)
        return np.asarray(1.0 - (yy_t[:, None] - explained_ta) / total_t[:, None])
