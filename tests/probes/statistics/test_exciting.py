import numpy as np
import pytest

from probes.statistics.exciting import most_exciting, overlap, overlap_null, undecided


def test_worked_by_hand() -> None:
    assert most_exciting(np.array([0.1, 3.0, -1.0, 2.0]), 2).tolist() == [1, 3]


def test_ties_go_to_the_smaller_index() -> None:
    assert most_exciting(np.array([1.0, 2.0, 1.0, 2.0, 2.0, 1.0]), 5).tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("count", [0, 1, 7, 100, 101])
def test_agrees_with_a_python_sort(count: int) -> None:
    scores_n = np.random.default_rng(3).integers(0, 12, size=100) / 4
    by_hand = sorted(range(100), key=lambda i: (-scores_n[i], i))[:count]
    assert most_exciting(scores_n, count).tolist() == by_hand


def test_more_than_there_are_gives_all() -> None:
    assert most_exciting(np.array([1.0, 2.0]), 9).tolist() == [1, 0]
    assert most_exciting(np.array([]), 3).tolist() == []


def test_unsigned_scores_do_not_wrap_round() -> None:
    assert most_exciting(np.array([0, 255, 7], dtype=np.uint8), 3).tolist() == [1, 2, 0]


def test_infinities_are_ordered() -> None:
    assert most_exciting(np.array([0.0, -np.inf, np.inf]), 3).tolist() == [2, 0, 1]


def test_nan_is_an_error_that_names_the_place() -> None:
    with pytest.raises(ValueError, match="index 1"):
        most_exciting(np.array([1.0, np.nan, 2.0, np.nan]), 1)


def test_a_matrix_or_a_negative_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="one axis"):
        most_exciting(np.zeros((2, 2)), 1)
    with pytest.raises(ValueError, match="negative"):
        most_exciting(np.zeros(2), -1)


def test_lists_that_end_among_equal_scores_are_undecided() -> None:
    scores_nE = np.array([[3, 3, 1, 1], [2, 2, 1, 1 + 1e-7], [1, 2, 1, 0], [0, 0, 1, 0]], np.float32)
    assert undecided(scores_nE, 1).tolist() == [False, False, True, True]
    assert undecided(scores_nE, 2).tolist() == [False, True, True, False]
    assert undecided(scores_nE, 4).tolist() == [False] * 4  # all images are on it


def test_overlap_is_the_share_of_common_images() -> None:
    found = overlap(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), np.array([[3, 9, 1, 8], [7, 6, 5, 4]]))
    assert found.tolist() == [0.5, 1.0]


def test_the_null_exchanges_images_for_all_experts_alike() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.choice(30, 6, replace=False) for _ in range(3)]) for _ in range(2))
    found = overlap_null(a, b, 30, draws=20, seed=4)
    rng = np.random.default_rng(4)
    for value in found:
        becomes = rng.permutation(30)
        slow = [len({becomes[i] for i in b[e]} & set(a[e])) / 6 for e in range(3)]
        assert value == pytest.approx(np.mean(slow))
    # of two random lists, the hypergeometric mean
    assert overlap_null(a, b, 30, draws=5000, seed=0).mean() == pytest.approx(6 / 30, abs=0.01)


def test_images_of_a_group_stay_together() -> None:
    """Groups of one size: each group's images become one group's images, in order."""
    units = np.repeat(np.arange(10), 3)[np.random.default_rng(0).permutation(30)]
    lists = np.array([np.flatnonzero(units == 4)])
    for share in overlap_null(lists, lists, 30, draws=50, seed=0, units=units):
        assert share in (0.0, 1.0)
    assert overlap_null(lists, lists, 30, draws=3000, seed=0, units=units).mean() == pytest.approx(0.1, abs=0.02)
