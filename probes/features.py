"""What comes before the experts, of any images: the shared features that all of them read, and the pixels.

Axes: n images, B images of a chunk, C features.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from moe.data.store import ImageStore
from moe.precision import full_float32
from probes.snapshots import Snapshot

_CHUNK = 128  # images
_SIDE = 8  # of the pictures that pixels are averaged to: 192 numbers an image, about as many as a readout has

Rows = NDArray[np.intp] | None  # which images of the store; None: all


def pooled_shared(snapshot: Snapshot, store: ImageStore, rows: Rows = None) -> NDArray[np.float32]:
    """Shared features (n, C) before the gate, averaged over places: the gate and all experts get no others.

    A model that was trained elsewhere may lack them (`has_shared`).
    """
    return _features(snapshot, store, rows, snapshot.model.pooled_shared)


def small_pictures(snapshot: Snapshot, store: ImageStore, rows: Rows = None) -> NDArray[np.float32]:
    """Normalised pixels (n, 192) as the model gets them, averaged within squares to 8 x 8."""
    return _features(snapshot, store, rows, lambda x_BCHW: adaptive_avg_pool2d(x_BCHW, _SIDE).flatten(1))


def _features(
    snapshot: Snapshot, store: ImageStore, rows: Rows, of_chunk: Callable[[Tensor], Tensor]
) -> NDArray[np.float32]:
    """(n, C) of the images, prepared as the model has them."""
    device, parts = next(snapshot.model.parameters(), torch.empty(0)).device, []
    chosen = np.arange(len(store)) if rows is None else rows
    with torch.inference_mode(), full_float32(device.type):
        for start in range(0, len(chosen), _CHUNK):
            x_BCSS = snapshot.preparation(store.images_NHWC[chosen[start : start + _CHUNK]], device)
            parts.append(of_chunk(x_BCSS).cpu().numpy())
    return np.concatenate(parts)
