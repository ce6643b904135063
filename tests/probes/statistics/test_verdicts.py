"""The one rule from intervals to verdicts."""

import math

import pytest

from probes.statistics.verdicts import Verdict, verdict

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("low", "high", "region", "p", "wanted"),
    [
        (0.1, 0.3, (0, INF), None, Verdict.HOLDS),
        (-0.1, 0.3, (0, INF), None, Verdict.CANNOT_TELL),
        (-0.3, -0.1, (0, INF), None, Verdict.FAILS),
        (0.1, 0.3, (0, INF), 0.05, Verdict.HOLDS),
        (0.1, 0.3, (0, INF), 0.06, Verdict.CANNOT_TELL),
        (0.1, 0.3, (0, INF), NAN, Verdict.CANNOT_TELL),  # a test that could not be done
        (-0.02, 0.03, (-0.05, 0.05), None, Verdict.HOLDS),
        (-0.02, 0.06, (-0.05, 0.05), None, Verdict.CANNOT_TELL),
        (0.06, 0.07, (-0.05, 0.05), None, Verdict.FAILS),
        (-0.2, 0.2, (-0.05, 0.05), None, Verdict.CANNOT_TELL),
        (NAN, NAN, (0, INF), 0.001, Verdict.CANNOT_TELL),
        (0.0, 0.0, (0, INF), None, Verdict.FAILS),  # no effect at all, without doubt
    ],
)
def test_the_rule(low, high, region, p, wanted):
    assert verdict(low, high, region, p) is wanted
