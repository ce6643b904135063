"""Keys of what a run logs each epoch, as far as the model itself logs it. `callbacks.keys` adds those of the callbacks.

Each key is spelled here once; units stand behind.
"""

from typing import Final


def train(name: str) -> str:
    """The key of a mean over an epoch's training steps."""
    return f"train/{name}"


def val(name: str) -> str:
    """The key of a mean over the validation images."""
    return f"val/{name}"


class Keys:
    """Keys of the Lightning module."""

    EPOCH: Final = "epoch"  # epochs of training done, 0 for the untrained model
    LR: Final = "lr"  # learning rate of the epoch

    TRAIN_LOSS: Final = train("loss")  # nats: objective and weighted importance loss
    TRAIN_OBJECTIVE: Final = train("objective")  # nats
    TRAIN_IMPORTANCE_CV2: Final = train("importance_cv2")  # 0 (even) to E - 1, Equation 4 without its weight
    TRAIN_ACCURACY: Final = train("accuracy")  # fraction of views; supervised runs only

    VAL_LOSS: Final = val("loss")
    VAL_OBJECTIVE: Final = val("objective")
    VAL_IMPORTANCE_CV2: Final = val("importance_cv2")
    VAL_ACCURACY: Final = val("accuracy")
