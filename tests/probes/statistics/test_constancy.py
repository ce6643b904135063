"""Whether responses vary is one question with one answer, asked column by column."""

import numpy as np
import pytest

from probes.statistics.constancy import constant_columns, is_constant


def test_rounding_is_no_variation_and_more_than_rounding_is():
    ones = np.ones((4, 3), np.float32)
    ones[1, 1] += 8 * np.finfo(np.float32).eps
    ones[2, 2] += 40 * np.finfo(np.float32).eps
    assert constant_columns(ones).tolist() == [True, True, False]
    assert constant_columns(ones.astype(np.float64)).tolist() == [True, False, False]


def test_a_large_unit_does_not_hide_the_others():
    """1e6 in float32 rounds by 0.06: as much as the other units vary altogether."""
    rng = np.random.default_rng(0)
    readout = rng.normal(0, 0.05, (50, 4)).astype(np.float32)
    readout[:, 0] = 1e6
    assert constant_columns(readout).tolist() == [True, False, False, False]
    assert not is_constant(readout)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_equal_rows_are_constant_in_every_type(dtype):
    rows = np.tile(np.array([[0, 3, 250]], dtype), (5, 1))
    assert is_constant(rows)
    rows[4, 0] = 1
    assert constant_columns(rows).tolist() == [False, True, True]


def test_what_is_not_finite_is_not_constant_and_nothing_is():
    assert constant_columns(np.array([[np.nan, np.inf], [np.nan, 1.0]])).tolist() == [False, False]
    assert constant_columns(np.zeros((0, 2))).all()
