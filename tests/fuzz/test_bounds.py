"""The judge of the fuzz targets can say no."""

import sys
import time

import numpy as np
import pytest

from moe.errors import UserError
from tests.fuzz.bounds import taken_or_refused


def test_a_users_mistake_in_one_sentence_passes():
    with taken_or_refused():
        raise UserError("labels.csv has no rows; add some")


class UnprintedError(UserError):
    """A message that went past what makes messages printable."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


@pytest.mark.parametrize("message", ["", "two\nlines", "x" * 2000])
def test_a_message_that_is_no_sentence_fails(message: str):
    with pytest.raises(AssertionError, match="not one sentence"), taken_or_refused():
        raise UnprintedError(message)


def test_half_of_a_surrogate_pair_fails():
    with pytest.raises(UnicodeEncodeError), taken_or_refused():
        raise UnprintedError("\udcff.csv has no rows")


def test_a_raw_error_fails():
    with pytest.raises(KeyError), taken_or_refused():
        raise KeyError("raw")


def test_time_without_bound_fails(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 11.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    with pytest.raises(AssertionError), taken_or_refused():
        pass


@pytest.mark.slow
def test_memory_without_bound_fails():
    """Also where as much was taken before."""
    for _ in range(2 if sys.platform == "linux" else 1):
        with pytest.raises(AssertionError), taken_or_refused():
            np.ones(2**30 + 2**24, np.uint8)
    with taken_or_refused():
        np.ones(2**29, np.uint8)
