"""How much of a response do several sets of predictors explain, alone, uniquely and together?

A response may follow categories since it follows what members of a category have in common: their ratings, their light
and texture. What a set explains uniquely is by how much the prediction of unseen images gets worse without it (variance
partitioning, also commonality analysis: Newton and Spurrell 1967).

Axes: n images, t targets, b permutations.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.statistics.held_out import Floats, HeldOutR2, held_out_r2
from probes.statistics.ridge import cross_ridge, fit_ridge

_TARGETS = 2000  # fitted at once
Sets = Mapping[str, NDArray[np.floating[Any]]]


class Partition(NamedTuple):
    """Held-out r2 of ridge regressions on sets of predictors.

    Attributes:
        together: of all sets at once.
        alone: of each set by itself.
        unique: by how much `together` is above the r2 of all other sets. It may be below 0, as a useless set costs.
    """

    together: HeldOutR2
    alone: dict[str, HeldOutR2]
    unique: dict[str, HeldOutR2]

    @property
    def shared_t(self) -> Floats:
        """What more than one set explains: together less all unique parts."""
        return np.asarray(self.together.value_t - sum(part.value_t for part in self.unique.values()))


def partition(sets: Sets, Y_nt: NDArray[np.floating[Any]], *, seed: int) -> Partition:
    """Partition the variance of every target.

    Args:
        sets: predictors (n, p) by name, at least one set; of images that are independent, so one a concept.
        Y_nt: responses.
        seed: of the five folds.
    """
    r2 = {names: _r2([sets[name] for name in names], Y_nt, seed) for names in _needed(tuple(sets))}
    together = r2[tuple(sets)]
    return Partition(
        together,
        {name: r2[(name,)] for name in sets},
        {name: _less(together, r2.get(_without(tuple(sets), name))) for name in sets},
    )


def unique_null(sets: Sets, name: str, Y_nt: NDArray[np.floating[Any]], *, draws: int, seed: int) -> Floats:
    """What a set explains uniquely (b, t) of responses that the other sets alone explain.

    What a ridge regression on the other sets leaves of the responses is exchanged between images at random, for all
    targets alike, and everything is repeated (Freedman and Lane 1983). The predictors stay as they are: to exchange
    the rows of a set that repeats another one would make of it a set of noise, which costs more than repetition, so
    that a useless set would do better than its null.

    Arguments are those of `partition`.
    """
    (n, t), others = Y_nt.shape, [sets[other] for other in _without(tuple(sets), name)]
    Y_nt, rng = Y_nt.astype(np.float64), np.random.default_rng(seed)
    X_np = np.column_stack([np.zeros((n, 1)), *others])
    fitted_nt = fit_ridge(X_np, Y_nt).predict(X_np)
    null = np.empty((draws, t))
    step = max(1, _TARGETS // t)
    for start in range(0, draws, step):
        orders = [rng.permutation(n) for _ in range(min(step, draws - start))]
        exchanged = np.hstack([fitted_nt + (Y_nt - fitted_nt)[order] for order in orders])
        lost = _r2([*others, sets[name]], exchanged, seed).value_t
        if others:
            lost = lost - _r2(others, exchanged, seed).value_t
        null[start : start + step] = lost.reshape(-1, t)
    return null


def _r2(parts: Sequence[NDArray[np.floating[Any]]], Y_nt: NDArray[np.floating[Any]], seed: int) -> HeldOutR2:
    return held_out_r2(Y_nt, cross_ridge(np.column_stack(parts), Y_nt, seed=seed))


def _needed(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    wanted = [names, *((name,) for name in names), *(_without(names, name) for name in names)]
    return [one for one in dict.fromkeys(wanted) if one]


def _without(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


def _less(a: HeldOutR2, b: HeldOutR2 | None) -> HeldOutR2:
    return a if b is None else HeldOutR2(a.value_t - b.value_t, a.influence_nt - b.influence_nt)
