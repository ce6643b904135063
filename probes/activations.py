"""Gate logits, and the readouts of every image forced through every expert; computed once, then cached.

Axes: n images, E experts, K = top-k slots, D embedding.
"""

import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from moe.data.augment import as_float, normalise
from moe.data.loading import resized
from moe.data.store import ImageStore
from moe.errors import UserError
from moe.export import load_model
from sweeps.runs import Run

_BATCH = 256


@dataclass(frozen=True)
class Activations:
    """What a model does with a set of images, in eval mode, without augmentation.

    Attributes:
        logits_nE: float32, deterministic gate logits (Equation 3).
        indices_nK: int64, chosen experts.
        readouts_EnD: float32, readout of each image forced through each expert, the router bypassed (Section 4).
    """

    logits_nE: NDArray[np.float32]
    indices_nK: NDArray[np.int64]
    readouts_EnD: NDArray[np.float32]

    @property
    def norms_nE(self) -> NDArray[np.float32]:
        """Response magnitude: the L2 norm of the readout, float32."""
        return np.asarray(np.linalg.norm(self.readouts_EnD, axis=2).T)

    def rows(self, rows: NDArray[np.intp]) -> "Activations":
        """The activations of some of the images."""
        return Activations(self.logits_nE[rows], self.indices_nK[rows], self.readouts_EnD[:, rows])


def activations(run: Run, store: ImageStore, progress: Callable[[int, int], None]) -> tuple[Activations, bool]:
    """A run's activations for a store, and whether they came from the cache.

    The cache is keyed by the checksums of the model's weights and of the images.

    Args:
        run: a finished run.
        store: the images.
        progress: called with (done, total) images while computing.

    Raises:
        UserError: the run has no usable model, or an activation is not finite.
    """
    model, card = load_model(run.model)
    key = f"{card.sha256}:{store.digest()}"
    path = run.activations(store.name)
    cached = _cached(path, key)
    if cached is not None:
        return cached, True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).to(memory_format=torch.channels_last)
    images = resized(store, card.data.image_size)
    logits, indices, readouts = [], [], []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            x = normalise(as_float(images[start : start + _BATCH].to(device)), card.mean, card.sd)
            routing, readouts_EBD = model.route_and_readouts(x.contiguous(memory_format=torch.channels_last))
            logits.append(routing.logits.cpu())
            indices.append(routing.indices.cpu())
            readouts.append(readouts_EBD.cpu())
            progress(min(start + _BATCH, len(images)), len(images))
    result = Activations(torch.cat(logits).numpy(), torch.cat(indices).numpy(), torch.cat(readouts, dim=1).numpy())
    _check_finite(result, run, store)
    _save(path, key, result)
    return result, False


def _cached(path: Path, key: str) -> Activations | None:
    try:
        # opened here because numpy leaves a file open that turns out not to be an archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Activations(stored["logits_nE"], stored["indices_nK"], stored["readouts_EnD"])
    except (FileNotFoundError, zipfile.BadZipFile, EOFError, KeyError, ValueError):  # absent, or cut off by a crash
        return None


def _save(path: Path, key: str, result: Activations) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    with partial.open("wb") as file:
        np.savez(
            file,
            key=np.array(key),
            logits_nE=result.logits_nE,
            indices_nK=result.indices_nK,
            readouts_EnD=result.readouts_EnD,
        )
    partial.replace(path)


def _check_finite(result: Activations, run: Run, store: ImageStore) -> None:
    for expert, readout_nD in enumerate(result.readouts_EnD):
        bad = np.flatnonzero(~np.isfinite(readout_nD).all(axis=1) | ~np.isfinite(result.logits_nE[:, expert]))
        if len(bad):
            raise UserError(
                f"run {run.id}, expert {expert}: activations are not finite for {len(bad)} images of {store.name}, "
                f"first {store.ids[bad[0]]}; the model diverged, train it again with a lower train.lr"
            )
