import statistics

import numpy as np
import pytest

from probes.statistics.animacy import (
    ANIMATE,
    INANIMATE,
    animacy_index,
    animacy_null,
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


def test_the_null_deals_the_sides_to_images_or_to_concepts(responses):
    scores, animate = responses
    rng = np.random.default_rng(3)
    for drawn in animacy_null(scores, animate, draws=5, seed=3):
        sides = rng.permutation(animate)
        assert drawn == pytest.approx([d_prime(scores[:, e], sides) for e in range(3)], abs=1e-9)
    units = np.repeat(np.arange(15), 4)
    of_unit = np.arange(15) % 3 == 0
    rng = np.random.default_rng(3)
    for drawn in animacy_null(scores, of_unit[units], draws=5, seed=3, units=units):
        sides = rng.permutation(of_unit)[units]
        assert drawn == pytest.approx([d_prime(scores[:, e], sides) for e in range(3)], abs=1e-9)


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
