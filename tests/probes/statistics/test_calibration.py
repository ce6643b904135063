"""False positives of the probes' tests and coverage of their intervals: simulations with a known truth, made short."""

import pytest

from benchmarks.calibrate import CASES, luck, rates

# as many simulations as a few seconds allow
QUICK = {
    "animacy": 600,
    "animacy_27": 150,
    "overlap": 500,
    "overlap_concepts": 400,
    "class_interval_5_0.7": 1000,
    "class_interval_10_0.7": 1000,
    "class_interval_10_1.5": 1000,
    "equal_4_2": 1000,
    "equal_10_2": 1000,
    "equal_10_6": 300,
    "similarity": 300,
    "similarity_4_runs": 100,
    "recurrence": 200,
    "reference_spearman": 120,
    "reference_cka": 120,
    "reference_procrustes": 120,
    "reference_classes": 120,
    "reference_interval_spearman_60": 120,
    "reference_interval_cka_60": 120,
    "reference_interval_procrustes_60": 200,
    "reference_interval_tied": 120,
    "seeds": 1000,
    "seeds_30": 500,
    "verdicts": 1000,
    "line_interval": 60,
    "bent": 40,
    "bound_4_2": 500,
    "bound_10_2": 500,
    "bound_10_4": 200,
    "within_models": 80,
    "within_interval": 300,
    "contrast": 500,
    "contrast_27": 200,
    "clusters_found_8": 40,
    "independent_40": 40,
    "two_clusters": 40,
    "two_clusters_2_runs": 60,
    "recurring": 200,
    "recurring_edge": 300,
    "repeated_set": 40,
    "traits": 80,
    "cloud": 30,
    "within_runs": 30,
    "within_runs_found": 15,
    "useless_set": 30,
    "equal_tuning": 30,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_errors_are_as_rare_as_promised(name):
    case, repeats = CASES[name], QUICK[name]
    for rate in rates(case, repeats):
        assert case.low - luck(repeats) <= rate <= case.high + luck(repeats)


def test_an_effect_is_found():
    """Or a test that never says anything would pass."""
    import numpy as np

    from probes.statistics import animacy_test, expert_differences

    rng = np.random.default_rng(0)
    labels, animate = np.repeat(np.arange(10), 20), np.arange(10) < 6
    scores = 2.0 * animate[labels][:, None] + rng.normal(size=(10, 4))[labels] + rng.normal(size=(200, 4))
    assert animacy_test(scores, labels, animate, most=210, seed=0).p <= 0.05
    noise = np.triu(0.05 * rng.normal(size=(3, 10, 10)), k=1)
    tables = 0.7 + noise + noise.transpose(0, 2, 1)
    tables[2] += 0.1
    assert [one.p_adjusted <= 0.05 for one in expert_differences(tables)] == [False, True, True]
