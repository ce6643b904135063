"""From an effect with its interval to a verdict on a claim, by one rule for all claims."""

from enum import StrEnum

import numpy as np

ALPHA = 0.05


class Verdict(StrEnum):
    """What can be said of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    CANNOT_TELL = "cannot tell at this size"


def verdict(low: float, high: float, region: tuple[float, float], p: float | None = None) -> Verdict:
    """Whether a claim holds that says that an effect lies within a region.

    It holds if the whole interval lies within the region and, where the claim has a test too, its p is at most 0.05. It
    does not hold if the interval lies wholly outside. All else, an interval across the region's edge, none at all, or
    a test that cannot be done, is no verdict. For a region without an upper end this is a test of superiority, for one
    around zero a test of equivalence; with 95% intervals either is wrong in at most 2.5% of cases.

    Args:
        low: lower end of the effect's interval; NaN: unknown.
        high: upper end.
        region: lower and upper end of what the claim says, either may be infinite.
        p: of the claim's test; None: it has none.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return Verdict.CANNOT_TELL
    if high <= region[0] or low >= region[1]:
        return Verdict.FAILS
    inside = low > region[0] and high < region[1]
    return Verdict.HOLDS if inside and (p is None or p <= ALPHA) else Verdict.CANNOT_TELL
