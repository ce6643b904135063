"""Keys of what a run logs each epoch: those of the Lightning module and those of the callbacks, each spelled once.

`docs/metrics.md` says what each is; units stand behind.
"""

from typing import Final

from moe.keys import Keys as ModelKeys


def importance(expert: int | str) -> str:
    """The key of an expert's share of all gate weight."""
    return f"balance/importance_{expert}"


def load(expert: int | str) -> str:
    """The key of the fraction of images routed to an expert."""
    return f"balance/load_{expert}"


def fewest_views(expert: int | str) -> str:
    """The key of the fewest views that an expert had in a training step of the epoch."""
    return f"balance_train/fewest_views_{expert}"


PER_EXPERT: Final = (importance, load, fewest_views)


class Keys(ModelKeys):
    """Every key of a run's history that is the same for all numbers of experts."""

    CV2: Final = "balance/cv2"  # 0 (even) to E - 1 (collapsed)
    ENTROPY: Final = "balance/entropy"  # 0 (collapsed) to 1 (even)
    DEAD: Final = "balance/dead"  # experts without any image
    TRAIN_CV2: Final = "balance_train/cv2"
    TRAIN_ENTROPY: Final = "balance_train/entropy"
    TRAIN_DEAD: Final = "balance_train/dead"
    TRAIN_FEWEST_VIEWS: Final = "balance_train/fewest_views"  # of any expert in any step
    GATE_ENTROPY: Final = "gate/entropy"  # 0 (decisive) to 1 (indifferent)

    AGREEMENT: Final = "agreement/top_k"  # fraction of images
    CHANCE_UNIFORM: Final = "agreement/chance_uniform"  # fraction of images
    CHANCE_OBSERVED: Final = "agreement/chance_observed"  # fraction of images
    TRAIN_AGREEMENT: Final = "agreement_train/top_k"
    TRAIN_CHANCE_OBSERVED: Final = "agreement_train/chance_observed"

    CLASS_INFORMATION: Final = "routing/class_information"  # 0 to 1


def metrics() -> tuple[str, ...]:
    """Every metric that runs log, with ``<e>`` for the number of an expert."""
    named = [value for base in (ModelKeys, Keys) for name, value in vars(base).items() if name.isupper()]
    return (*(key for key in named if "/" in key), importance("<e>"), load("<e>"), fewest_views("<e>"))
