"""Is the relation between gate logit and readout norm a straight line (Figures 4 and S1)?

Three curves for each expert, from stiff to free: a straight line, a monotone step function (isotonic regression), and
any smooth one (cubic splines). Each is fitted to four fifths of the images and scored on the rest, so that a freer
curve has no advantage but what it gets right.

Axes: n images, E experts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import SplineTransformer

from probes.statistics.constancy import constant_columns
from probes.statistics.held_out import Floats, HeldOutR2, cross_predicted, held_out_r2

CURVES = ("line", "monotone", "smooth")
_KNOTS = 7  # of the smooth curve, at quantiles


def curve_r2(
    x_nE: NDArray[np.floating[Any]],
    y_nE: NDArray[np.floating[Any]],
    *,
    seed: int,
    units: NDArray[np.integer[Any]] | None = None,
) -> dict[str, HeldOutR2]:
    """How much of each expert's y a curve in its x explains on held-out images, for each of CURVES.

    Args:
        x_nE: gate logits.
        y_nE: readout norms.
        seed: of the five folds.
        units: (n,) images that are held out together, see `held_out.splits`.

    Returns:
        NaN for an expert of which either is constant.
    """
    defined_E = ~(constant_columns(x_nE) | constant_columns(y_nE))

    def predict(training: NDArray[np.intp], held_out: NDArray[np.intp]) -> Floats:
        predicted = np.full((len(held_out), len(CURVES), x_nE.shape[1]), np.nan)
        for expert in np.flatnonzero(defined_E):
            x_n, y_n = x_nE[:, expert].astype(np.float64), y_nE[:, expert].astype(np.float64)
            for place, curve in enumerate(CURVES):
                fitted = _model(curve, x_n[training], y_n[training]).fit(x_n[training, None], y_n[training])
                predicted[:, place, expert] = fitted.predict(x_n[held_out, None])
        return predicted

    predicted = cross_predicted(predict, (len(x_nE), len(CURVES), x_nE.shape[1]), seed, units)
    return {curve: held_out_r2(y_nE, predicted[:, place]) for place, curve in enumerate(CURVES)}


def _model(curve: str, x_n: Floats, y_n: Floats) -> LinearRegression | IsotonicRegression | Pipeline:
    if curve == "line":
        return LinearRegression()
    if curve == "monotone":  # whichever way the line goes
        return IsotonicRegression(increasing=bool(np.cov(x_n, y_n)[0, 1] >= 0), out_of_bounds="clip")
    knots = np.unique(np.quantile(x_n, np.linspace(0, 1, _KNOTS)))[:, None]
    if len(knots) < 2:  # x varies on held-out images alone
        return LinearRegression()
    return make_pipeline(SplineTransformer(knots=knots, extrapolation="linear"), LinearRegression())
