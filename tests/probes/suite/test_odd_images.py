"""Images of which little can be said: every probe says so, or says what it can; none fails."""

from dataclasses import replace

import numpy as np
import pytest

from moe.data.readers import no_progress
from probes.registry import PROBES
from probes.testing import example_subject
from tests.probes.suite.made import store_of, with_activations
from tests.probes.test_contract import QUICK

pytestmark = pytest.mark.slow

N = 24


def rated(*columns):
    return np.stack(np.broadcast_arrays(*columns), axis=1).astype(np.float32)


DRAWN = np.random.default_rng(0).normal(size=(N, 3))
ONE_RATED = np.where(np.arange(N)[:, None] == 3, DRAWN, np.nan)
ODD = {
    "one image": ([0], "ab", None), "three images": ([0, 1, 1], "ab", None),
    "no label": ([-1] * N, "ab", None), "one class": ([0] * N, "ab", None),
    "a class an image": (list(range(N)), [str(n) for n in range(N)], DRAWN),
    "one of a class": ([0] * (N - 1) + [1], "ab", DRAWN),
    "a dimension that is constant": ([n % 3 for n in range(N)], "abc", rated(DRAWN[:, 0], 1, DRAWN[:, 1])),
    "dimensions that are one": ([n % 3 for n in range(N)], "abc", rated(DRAWN[:, 0], DRAWN[:, 0], DRAWN[:, 0])),
    "enormous dimensions": ([n % 3 for n in range(N)], "abc", rated(*(1e30 * DRAWN.T))),
    "dimensions of one image": ([n % 3 for n in range(N)], "abc", ONE_RATED),
    "all alike but one": ([n % 2 for n in range(N)], "ab", DRAWN),
    "copies of two": ([n % 2 for n in range(N)], "ab", DRAWN),
    "copies of one": ([n % 2 for n in range(N)], "ab", DRAWN),
    "one concept": ([n % 3 for n in range(N)], "abc", DRAWN), "two concepts": ([n % 3 for n in range(N)], "abc", DRAWN),
}  # fmt: skip
COPIES = {"all alike but one": [int(n == 3) for n in range(N)], "copies of two": [n % 2 for n in range(N)],
          "copies of one": [0] * N}  # fmt: skip


@pytest.mark.parametrize("name", list(PROBES))
@pytest.mark.parametrize("odd", ODD)
def test_no_probe_fails(tmp_path, odd, name):
    labels, classes, factors = ODD[odd]
    more = {} if factors is None else {"factors_NF": factors.astype(np.float32), "factors": ("f", "g", "h")}
    if "concept" in odd:
        more["groups"] = [f"concept {n % 2 * odd.startswith('two')}" for n in range(N)]
    subject = replace(example_subject(tmp_path, images=8), store=store_of(tmp_path, labels, classes, **more))
    rng = np.random.default_rng(1)
    logits_nE, readouts_EnD = rng.normal(size=(len(labels), 4)), rng.normal(size=(4, len(labels), 6))
    of = COPIES.get(odd, range(len(labels)))
    subject = with_activations(subject, logits_nE[of], readouts_EnD[:, of])
    probe = PROBES[name](**QUICK[name])
    if reason := probe.skip(subject.store):
        assert reason[0].islower() or reason[0].isdigit()
        return
    folder = tmp_path / "out"
    folder.mkdir()
    result = probe.run(subject, folder, no_progress)
    assert not any(isinstance(value, float) and not np.isfinite(value) for value in result.numbers.values())
