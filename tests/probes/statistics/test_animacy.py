import statistics
from itertools import combinations

import numpy as np
import pytest

from probes.statistics.animacy import (
    ANIMATE,
    INANIMATE,
    animacy_index,
    animacy_test,
    animate_classes,
    bootstrap_animacy,
)
from probes.statistics.resampling import bootstrap_counts


def d_prime(values, animate):
    """From its definition, in plain Python."""
    a = [float(v) for v, is_a in zip(values, animate, strict=True) if is_a]
    b = [float(v) for v, is_a in zip(values, animate, strict=True) if not is_a]
    sd = ((statistics.pvariance(a) + statistics.pvariance(b)) / 2) ** 0.5
    return (statistics.fmean(a) - statistics.fmean(b)) / sd


@pytest.fixture
def responses():
    rng = np.random.default_rng(0)
    animate = rng.random(60) < 0.4
    return (rng.normal(size=(60, 3)) + animate[:, None] * [0, 1, -2] + 100).astype(np.float32), animate


def test_worked_by_hand():
    # means 3 and 1, variances 1 and 1
    found = animacy_index(np.array([[2.0], [4.0], [0.0], [2.0]]), np.array([True, True, False, False]))
    assert found.tolist() == [2.0]


def test_it_agrees_with_plain_python(responses):
    scores, animate = responses
    found = animacy_index(scores, animate)
    assert found == pytest.approx([d_prime(scores[:, e], animate) for e in range(3)], abs=1e-9)
    assert animacy_index(scores, ~animate) == pytest.approx(-found, abs=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_bootstrap_equals_indices_of_the_samples_written_out(responses, grouped):
    scores, animate = responses
    units = np.arange(60) // 4 if grouped else None
    found = bootstrap_animacy(scores, animate, draws=8, seed=2, units=units)
    for draw, times in enumerate(np.concatenate(list(bootstrap_counts(60, 8, 2, units))).astype(int)):
        rows = np.repeat(np.arange(60), times)
        for e in range(3):
            assert found[draw, e] == pytest.approx(d_prime(scores[rows, e], animate[rows]), abs=1e-9)


def slow_divisions(scores, labels, animate):
    """|d'| of every way to call as many of the classes animate, the true one among them."""
    classes = sorted(set(labels))
    count = sum(animate[c] for c in classes)
    return {
        chosen: [abs(d_prime(scores[:, e], np.isin(labels, chosen))) for e in range(scores.shape[1])]
        for chosen in combinations(classes, count)
    }


def test_all_divisions_of_the_classes_equal_the_definition():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3, 4, 5, 7], [5, 9, 6, 4, 8, 7])  # classes 2 and 6 have no image
    animate = np.array([True, False, True, True, False, False, True, False])
    scores = rng.normal(size=(8, 3))[labels] + rng.normal(size=(39, 3)) + 50
    found = animacy_test(scores, labels, animate, most=20, seed=0)
    slow = slow_divisions(scores, labels, animate)
    true = slow[0, 3]
    assert (found.every, len(found.index_SE)) == (True, 15)
    assert sorted(found.sizes_S) == pytest.approx(sorted(np.mean(sizes) for sizes in slow.values()))
    assert found.index_SE[0] == pytest.approx(animacy_index(scores, animate[labels]))
    assert found.p == pytest.approx(np.mean([np.mean(sizes) >= np.mean(true) - 1e-9 for sizes in slow.values()]))
    p = np.array([[np.mean([o[e] >= s[e] - 1e-9 for o in slow.values()]) for e in range(3)] for s in slow.values()])
    assert found.p_E.tolist() == [np.mean([o[e] >= true[e] - 1e-9 for o in slow.values()]) for e in range(3)]
    for e in range(3):
        assert found.p_adjusted_E[e] == np.mean(p.min(axis=1) <= found.p_E[e] + 1e-9)
    assert (found.p_adjusted_E >= found.p_E).all()


def test_many_divisions_are_sampled_and_the_true_one_counts():
    rng = np.random.default_rng(0)
    labels, animate = np.arange(60) % 12, np.arange(12) < 4
    scores = (4.0 * animate[labels] + rng.normal(size=60))[:, None]
    found = animacy_test(scores, labels, animate, most=100, seed=0)
    assert (found.every, len(found.index_SE)) == (False, 100)
    assert found.p <= 0.02  # the sample may hold the true one again
    assert animacy_test(scores, labels, animate, most=495, seed=0).p == 1 / 495


def test_a_dead_expert_has_no_p_and_no_say():
    rng = np.random.default_rng(0)
    labels, animate = np.arange(60) % 6, np.arange(6) < 3
    scores = np.stack([rng.normal(size=60), np.full(60, 0.1)], axis=1).astype(np.float32)
    found = animacy_test(scores, labels, animate, most=100, seed=0)
    assert np.isnan([found.p_E[1], found.p_adjusted_E[1]]).all()
    assert found.p == found.p_E[0] == found.p_adjusted_E[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_within_both_kinds_is_nan_and_not_a_huge_number(dtype):
    animate = np.array([True] * 7 + [False] * 5)
    scores = np.where(animate, 0.1, 0.7).astype(dtype)[:, None]
    assert np.isnan(animacy_index(scores, animate)).all()
    assert np.isnan(bootstrap_animacy(scores, animate, draws=20, seed=0)).all()
    labels = np.where(animate, np.arange(12) % 2, 2 + np.arange(12) % 2)
    assert np.isnan(animacy_test(scores, labels, np.array([True] * 2 + [False] * 2), most=9, seed=0).p_E[0])


def test_constant_responses_and_one_sided_samples_are_nan():
    animate = np.array([True, False, False])
    scores = np.array([[1.0, 0.1], [1.0, 0.2], [1.0, 0.4]])
    assert np.isnan(animacy_index(scores, animate)).tolist() == [True, False]
    drawn = bootstrap_animacy(scores, animate, draws=50, seed=0)
    without = np.concatenate(list(bootstrap_counts(3, 50, 0)))[:, 0] == 0
    assert without.any()
    assert np.isnan(drawn[without]).all()
    with pytest.raises(ValueError, match="both"):
        animacy_index(scores, np.ones(3, bool))


def test_classes_that_are_known():
    assert not ANIMATE & INANIMATE
    stl10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    sides = animate_classes(stl10)
    assert [name for name, side in zip(stl10, sides, strict=True) if side] == [
        "bird",
        "cat",
        "deer",
        "dog",
        "horse",
        "monkey",
    ]
    assert animate_classes(["Body_Part", "tool"]).tolist() == [True, False]
    assert animate_classes(["cat", "dog"]) is None
    assert animate_classes(["cat", "spaceship"]) is None
    assert animate_classes(["cat", "spaceship"], ["spaceship"]).tolist() == [False, True]


def test_all_things_categories_are_known(shared_data):
    header = (shared_data / "things" / "category_mat_manual.tsv").read_text().splitlines()[0].split("\t")
    assert len(header) == 27
    assert animate_classes(header).sum() == 4
