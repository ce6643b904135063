"""The balancing losses that a run asks for."""

from typing import NamedTuple

from moe.balancing.base import BalancingLoss
from moe.balancing.options import BalancingConfig
from moe.objectives.options import LossConfig

WATCHED = "importance"  # logged by every run, with or without weight: the paper's measure of balance


class Weighted(NamedTuple):
    """A balancing loss, its options and its weight."""

    loss: BalancingLoss
    config: BalancingConfig
    weight: float


def weighted_losses(config: LossConfig) -> list[Weighted]:
    """Every balancing loss with a weight, in the registry's order, and the one that is watched all the same."""
    found = []
    for name, weight in config.weights().items():
        if weight or name == WATCHED:
            options = config.options_of(name)
            found.append(Weighted(options.load()(options), options, weight))
    return found
