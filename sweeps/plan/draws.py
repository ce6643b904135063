"""Draws of a sweep's parameters, each from a stream of numbers of its own, and when there is nothing new to draw."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sweeps.plan.distributions import Parameter, draw, reach

_FRUITLESS = 10_000  # draws in a row without a new run, at least, before there is taken to be none


class NothingNewError(Exception):
    """A search has tried every run that its parameters allow."""

    def __init__(self, runs: int) -> None:
        super().__init__(f"not run: the space has only {runs} different runs")


def draws(parameters: Mapping[str, Parameter], digest: str) -> Iterator[dict[str, Any]]:
    """Values of all parameters, without end.

    Args:
        parameters: by path.
        digest: of the sweep's file; each parameter's numbers come from it and from the path.
    """
    streams = {path: _stream(digest, path) for path in parameters}
    while True:
        yield {path: draw(parameter, next(streams[path])) for path, parameter in parameters.items()}


def reachable(parameters: Mapping[str, Parameter], digest: str) -> Iterator[dict[str, Any]]:
    """The like of values that a search can come to: without the outermost tails."""
    streams = {path: _stream(digest, path) for path in parameters}
    ends = {path: reach(parameter) for path, parameter in parameters.items()}
    while True:
        yield {
            path: draw(parameter, low + next(streams[path]) * (high - low))
            for (path, parameter), (low, high) in zip(parameters.items(), ends.values(), strict=True)
        }


def _stream(digest: str, path: str) -> Iterator[float]:
    """A parameter's own random numbers in [0, 1), without end."""
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{digest}/{path}".encode()).digest()))
    while True:
        yield from generator.random(1000).tolist()


def patience(found: int) -> int:
    """Draws in a row without a new run after which none is expected any more.

    Of equally likely runs so many draws miss one that is left once in e^20 times.

    Args:
        found: number of different runs so far.
    """
    return max(_FRUITLESS, 20 * found)


def size(parameters: Mapping[str, Parameter]) -> float:
    """How many different runs parameters allow, at most; infinite where their values are not counted."""
    return math.prod(one.distinct for path, one in parameters.items() if not path.startswith("machine."))
