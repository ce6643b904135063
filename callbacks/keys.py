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


def expert_knn(expert: int | str) -> str:
    """The key of what nearest neighbours in an expert's readout tell of the class."""
    return f"experts/knn_{expert}"


def expert_linear(expert: int | str) -> str:
    """The key of what a linear map of an expert's readout tells of the class."""
    return f"experts/linear_{expert}"


# not logged each epoch, for only the end tells them
SATURATION_END: Final = "routing/saturation_end"  # fraction of images

PER_EXPERT: Final = (importance, load, fewest_views, expert_knn, expert_linear)


class Keys(ModelKeys):
    """Every key of a run's history that is the same for all numbers of experts."""

    CV2: Final = "balance/cv2"  # 0 (even) to E - 1 (collapsed)
    ENTROPY: Final = "balance/entropy"  # 0 (collapsed) to 1 (even)
    DEAD: Final = "balance/dead"  # experts without any image
    UNROUTED: Final = "balance/unrouted"  # fraction of images without any expert
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
    SATURATION: Final = "routing/saturation"  # fraction of images

    EMBEDDING_KNN: Final = "embedding/knn"  # fraction of images
    EMBEDDING_LINEAR: Final = "embedding/linear"  # fraction of images
    EMBEDDING_RANK: Final = "embedding/rank"  # 1 to D
    EMBEDDING_ALIGNMENT: Final = "embedding/alignment"  # 0 (equal) to 4
    EMBEDDING_UNIFORMITY: Final = "embedding/uniformity"  # about -4 (even) to 0 (one point)
    SHARED_KNN: Final = "shared/knn"  # fraction of images
    SHARED_LINEAR: Final = "shared/linear"  # fraction of images
    EXPERTS_KNN: Final = "experts/knn"  # mean over experts
    EXPERTS_LINEAR: Final = "experts/linear"  # mean over experts
    EXPERTS_CKA: Final = "experts/cka"  # 0 to 1, mean over pairs of experts


def metrics() -> tuple[str, ...]:
    """Every metric that runs log, with ``<e>`` for the number of an expert."""
    named = [value for base in (ModelKeys, Keys) for name, value in vars(base).items() if name.isupper()]
    return (*(key for key in named if "/" in key), *(key("<e>") for key in PER_EXPERT))
