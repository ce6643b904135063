import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from probes.statistics.coupling import bootstrap_coupling, couplings, min_max
from probes.statistics.resampling import bootstrap_counts


@pytest.fixture
def responses():
    """Three experts: related, tied in many places, inversely related; float32 as activations are."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(80, 3)).astype(np.float32)
    norms = np.abs(np.stack([logits[:, 0] + rng.normal(size=80), logits[:, 1], 3 - logits[:, 2] ** 3], axis=1))
    logits[:, 1] = logits[:, 1].round()
    return logits, norms.round(1).astype(np.float32)


def test_it_agrees_with_scipy(responses):
    logits, norms = responses
    found = couplings(logits, norms)
    for e in range(3):
        r = pearsonr(logits[:, e].astype(float), norms[:, e].astype(float)).statistic
        assert found.pearson[e] == pytest.approx(r, abs=1e-12)
        assert found.r2[e] == pytest.approx(r**2, abs=1e-12)
        assert found.spearman[e] == pytest.approx(spearmanr(logits[:, e], norms[:, e]).statistic, abs=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_bootstrap_equals_correlations_of_the_samples_written_out(responses, grouped):
    logits, norms = responses
    units = np.arange(80) // 3 if grouped else None
    found = bootstrap_coupling(logits, norms, draws=12, seed=4, units=units)
    for draw, times in enumerate(np.concatenate(list(bootstrap_counts(80, 12, 4, units))).astype(int)):
        rows = np.repeat(np.arange(80), times)
        for e in range(3):
            a, b = logits[rows, e].astype(float), norms[rows, e].astype(float)
            r = pearsonr(a, b).statistic
            assert found.pearson[draw, e] == pytest.approx(r, abs=1e-10)
            assert found.r2[draw, e] == pytest.approx(r**2, abs=1e-10)
            assert found.spearman[draw, e] == pytest.approx(spearmanr(a, b).statistic, abs=1e-10)


def test_large_offsets_lose_nothing():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(50, 1))
    b = a + rng.normal(size=(50, 1))
    moved = couplings(a + 1e6, b * 1e-3 - 1e5)
    assert moved.pearson[0] == pytest.approx(pearsonr(a[:, 0], b[:, 0]).statistic, abs=1e-6)


def test_a_constant_side_is_nan(responses):
    logits, norms = responses
    norms[:, 1] = 2.0
    found, drawn = couplings(logits, norms), bootstrap_coupling(logits, norms, draws=5, seed=0)
    for part in (*found, *(values[0] for values in drawn)):
        assert np.isnan(part).tolist() == [False, True, False]


def test_min_max_by_hand():
    found = min_max(np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]]))
    assert found[:, 0].tolist() == [0.0, 1.0, 0.5]
    assert np.isnan(found[:, 1]).all()


def test_shapes_must_match():
    with pytest.raises(ValueError, match="one shape"):
        couplings(np.zeros((3, 2)), np.zeros((3, 1)))
