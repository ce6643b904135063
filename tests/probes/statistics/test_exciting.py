import numpy as np
import pytest

from probes.statistics.exciting import most_exciting


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
