"""When routing settles: how many images keep their set of experts from epoch to epoch, and have that of the end.

Axes: B images, K = top-k slots.
"""

import io
import logging
from tokenize import TokenError
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from callbacks import metrics
from callbacks.files import RoutingFolder
from callbacks.gathering import RoutingMonitor, Stage, log
from callbacks.keys import Keys
from callbacks.tables import write_csv
from moe.files import content, replacing
from moe.lightning_module import epochs_done
from moe.routing import NONE, RoutingRecord
from moe.wording import reason

_log = logging.getLogger(__name__)


class RoutingSaturation(RoutingMonitor):
    """Router saturation (Muennighoff et al. 2024, "OLMoE", Section 5.1), for whole sets of experts.

    Over validation images without augmentation (first views where a record has no clean images), in eval mode. Logged
    after validation:

    - ``routing/saturation``: fraction of images whose set of experts is that of the epoch before, 0 to 1; from the
      first epoch on. Independent sets agree by chance, ``agreement/chance_observed``.

    Writes into `folder`:

    - ``sets_<epoch>.npy``: (B, K) int16, each image's experts, ascending, in the order of the images' places.

    `write_saturation` makes a table of them when the last epoch is known. Checkpoints carry the sets of the last
    validation.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: RoutingFolder) -> None:
        super().__init__()
        self.folder = folder
        self._before: NDArray[np.int16] | None = None

    def observe(self, record: RoutingRecord, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the saturation of this epoch and write its sets."""
        indices_BK = (record.view_a if record.clean is None else record.clean).indices
        if record.places_B is not None:
            indices_BK = indices_BK[record.places_B.argsort()]
        sets_BK = np.sort(indices_BK.cpu().numpy(), axis=1).astype(np.int16)
        before, self._before = self._before, sets_BK
        if before is not None and before.shape == sets_BK.shape:
            log({Keys.SATURATION: metrics.view_agreement(before, sets_BK)}, trainer, module)
        if trainer.is_global_zero:
            file = self.folder.sets(epochs_done(trainer))
            with replacing(file, durable=False) as partial, partial.open("wb") as opened:
                np.save(opened, sets_BK)

    def state_dict(self) -> dict[str, Any]:
        """The sets of the last validation; all processes have the same."""
        return {} if self._before is None else {"sets": torch.from_numpy(self._before)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        sets: Tensor | None = state_dict.get("sets")
        self._before = None if sets is None else sets.numpy()


def saturation(folder: RoutingFolder, last: int) -> list[tuple[int, float | None, float | None]]:
    """For every epoch its number, and the fractions of images whose set is that of the epoch before, and of the last.

    Args:
        folder: where the sets are.
        last: epoch; the first is 0, the untrained model.

    Returns:
        A row an epoch; None where sets were not kept.
    """
    kept = [_read(folder, epoch) for epoch in range(last + 1)]

    def same(sets: NDArray[np.int16] | None, others: NDArray[np.int16] | None) -> float | None:
        if sets is None or others is None or sets.shape != others.shape:
            return None
        return metrics.view_agreement(sets, others)

    befores = [None, *kept[:-1]]
    return [
        (epoch, same(sets, before), same(sets, kept[-1]))
        for epoch, (sets, before) in enumerate(zip(kept, befores, strict=True))
    ]


def write_saturation(folder: RoutingFolder, last: int) -> None:
    """Write `saturation` as ``saturation.csv``: ``epoch``, ``before``, ``end``; nothing if no sets were kept."""
    rows = saturation(folder, last)
    if rows[-1][2] is not None:
        write_csv(folder.saturation, ("epoch", "before", "end"), rows)


def _read(folder: RoutingFolder, epoch: int) -> NDArray[np.int16] | None:
    file = folder.sets(epoch)
    try:
        sets: NDArray[np.int16] = np.load(io.BytesIO(content(file)), allow_pickle=False)
    except FileNotFoundError:
        return None
    except (EOFError, OSError, SyntaxError, TokenError, ValueError) as error:  # its header is read as Python
        why = reason(error)
    else:
        if sets.ndim == 2 and sets.dtype.kind == "i" and sets.min(initial=0) >= NONE:
            return sets
        why = "it holds other things than sets of experts"
    _log.warning("%s cannot be read (%s); saturation of epoch %d is left out", file, why, epoch)
    return None
