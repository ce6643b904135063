"""What a model does with a set of images: gate logits, gates, and the readouts of every image through every expert.

Computed once for a model and a set of images, chunk by chunk onto the disk, and read from there by all probes.

Axes: n images, B images of a chunk, E experts, K = top-k slots, D embedding.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from moe.data.readers import Progress
from moe.data.store import ImageStore
from moe.errors import UserError
from moe.export import read_card
from moe.files import remove
from moe.gates.told import Known, check_known, of_images
from moe.precision import full_float32
from moe.threads import SpareCores
from probes.chunked import ChunkedArrays, Layout
from probes.snapshots import Snapshot, digest
from sweeps.runs.lock import LockedError, locked
from sweeps.runs.run import Run

# Images of a chunk, and of a batch: at the paper's width the stem alone holds 0.3 GB for them at 96 px.
_CHUNK = 128
_CLOSE = 1e-3  # by which results may differ between processors, relative to the largest
_T = TypeVar("_T", np.float32, np.bool_)
_PATIENCE = 3600.0  # seconds to wait for another process that computes the same


@dataclass(frozen=True)
class Activations:
    """What a model does with a set of images, in eval mode, without augmentation.

    Attributes:
        logits_nE: float32, deterministic gate logits (Equation 3).
        indices_nK: int64, chosen experts, largest gate first; `moe.routing.NONE` in empty slots.
        weights_nK: float32, gates of the chosen experts; a row sums to 1, or to less where slots are empty.
        readouts_EnD: float32, readout of each image forced through each expert, the router bypassed (Section 4).
            Usually a memory map.
    """

    logits_nE: NDArray[np.float32]
    indices_nK: NDArray[np.int64]
    weights_nK: NDArray[np.float32]
    readouts_EnD: NDArray[np.float32]

    @cached_property
    def norms_nE(self) -> NDArray[np.float32]:
        """Response magnitude: the L2 norm of the readout, float32."""
        return np.stack([np.linalg.norm(readout_nD, axis=1) for readout_nD in self.readouts_EnD], axis=1)

    @property
    def gates_nE(self) -> NDArray[np.float32]:
        """G(h) of Equation 3, zero for experts that were not chosen."""
        return self._by_expert(self.weights_nK)

    @property
    def chosen_nE(self) -> NDArray[np.bool_]:
        """Whether each image is routed to each expert."""
        return self._by_expert(np.ones(self.indices_nK.shape, np.bool_))

    def _by_expert(self, of_slots_nK: NDArray[_T]) -> NDArray[_T]:
        """(n, E) what the slots of each image hold, at the experts that fill them; zeros elsewhere."""
        images, experts = self.logits_nE.shape
        by_expert = np.zeros((images, experts + 1), of_slots_nK.dtype)
        np.put_along_axis(by_expert, self.indices_nK, of_slots_nK, axis=1)  # NONE is the column after the experts'
        return np.ascontiguousarray(by_expert[:, :experts])

    def rows(self, rows: NDArray[np.intp]) -> "Activations":
        """The activations of some of the images."""
        return Activations(
            self.logits_nE[rows], self.indices_nK[rows], self.weights_nK[rows], self.readouts_EnD[:, rows]
        )


def activations(snapshot: Snapshot, store: ImageStore, progress: Progress) -> tuple[Activations, bool]:
    """A model's activations for a store, and whether all of them came from the cache.

    The cache is keyed by what its numbers depend on: the checksums of the model and of the images, the kind of device
    and torch's version. (Between devices they differ by the rounding of float32 alone; an interrupted computation is
    not continued on another.) Computing goes on after an interruption, and holds one chunk of images in memory. Of a
    model that was trained elsewhere no checksum covers all code: one chunk is computed in any case, and what the cache
    holds counts if it agrees.

    Args:
        snapshot: the model.
        store: the images.
        progress: called with (done, total) images while computing.

    Raises:
        UserError: an activation is not finite (names run, expert and image), or another process computes the same
            and does not come to an end.
    """
    folder, device = snapshot.folder(store), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    key = f"{snapshot.digest}:{store.digest()}:{device.type}:torch {torch.__version__}"
    try:
        with locked(folder.with_name(f".{folder.name}.lock"), _PATIENCE):
            arrays = _resumed(snapshot, store, folder, key, device)
            missing = list(arrays.missing())
            if missing:
                _compute(snapshot, store, arrays, missing, progress, device)
    except LockedError:
        raise UserError(f"another process has been computing {folder} for an hour; end it or try again") from None
    return _as_activations(arrays.open()), not missing


def cached(run: Run, store: ImageStore) -> Activations | None:
    """A finished run's activations to a store, if all of them are on the disk; nothing is computed.

    Whatever kind of device and version of torch computed them: they differ by the rounding of float32.
    """
    try:
        card = read_card(run.model)
    except UserError:
        return None
    found = ChunkedArrays.whole(run.activations(store.name), f"{digest(card.sha256, card)}:{store.digest()}:")
    return None if found is None else _as_activations(found)


def _as_activations(found: Mapping[str, NDArray[Any]]) -> Activations:
    return Activations(*(found[name] for name in ("logits_nE", "indices_nK", "weights_nK", "readouts_EnD")))


def _resumed(snapshot: Snapshot, store: ImageStore, folder: Path, key: str, device: torch.device) -> ChunkedArrays:
    """What the cache holds; nothing, if code that no checksum covers gives something else by now."""
    layouts = _layouts(snapshot, len(store))
    arrays = ChunkedArrays.resume(folder, key, layouts, _CHUNK)
    if snapshot.card is None and arrays.done:
        start, held = min(arrays.done), arrays.open()
        stop = min(start + _CHUNK, len(store))
        with _computing(snapshot, device):
            now = _blocks(snapshot, store, start, stop, device)
        pairs = [(held["logits_nE"][start:stop], now["logits_nE"]),
                 (held["readouts_EnD"][:, start:stop], now["readouts_EnD"])]  # fmt: skip
        if not all(np.allclose(old, new, rtol=_CLOSE, atol=_CLOSE * float(np.abs(new).max())) for old, new in pairs):
            remove(folder)
            arrays = ChunkedArrays.resume(folder, key, layouts, _CHUNK)
    return arrays


def _layouts(snapshot: Snapshot, n: int) -> dict[str, Layout]:
    experts, slots, size = snapshot.model.sizes
    return {
        "logits_nE": Layout((n, experts), "<f4"),
        "indices_nK": Layout((n, slots), "<i8"),
        "weights_nK": Layout((n, slots), "<f4"),
        "readouts_EnD": Layout((experts, n, size), "<f4", axis=1),
    }


@contextlib.contextmanager
def _computing(snapshot: Snapshot, device: torch.device) -> Iterator[None]:
    snapshot.model.to(device).to(memory_format=torch.channels_last)
    with torch.inference_mode(), full_float32(device.type):
        yield


def _compute(
    snapshot: Snapshot,
    store: ImageStore,
    arrays: ChunkedArrays,
    missing: list[tuple[int, int]],
    progress: Progress,
    device: torch.device,
) -> None:
    if snapshot.card is not None:
        check_known(snapshot.model.told, torch.from_numpy(store.labels_N), store.name, snapshot.card.gate.kind)
    done = len(store) - sum(stop - start for start, stop in missing)
    progress(done, len(store))
    spare = SpareCores()
    with contextlib.closing(spare), _computing(snapshot, device):
        for start, stop in missing:
            spare.look()
            blocks = _blocks(snapshot, store, start, stop, device)
            _check_finite(blocks["logits_nE"], blocks["readouts_EnD"], snapshot, store, start)
            arrays.write(start, blocks)
            done += stop - start
            progress(done, len(store))


def _blocks(
    snapshot: Snapshot, store: ImageStore, start: int, stop: int, device: torch.device
) -> dict[str, NDArray[Any]]:
    """The arrays' parts for a chunk of images."""
    # Every chunk has the same shape: kernels are chosen by it, and an image's result must not depend on how many images
    # come with it.
    rows, count = np.minimum(np.arange(start, start + _CHUNK), len(store) - 1), stop - start
    x_BCSS = snapshot.preparation(store.images_NHWC[rows[0] : rows[-1] + 1], device)[rows - start]
    routing, readouts_EBD = snapshot.model.route_and_readouts(
        x_BCSS.contiguous(memory_format=torch.channels_last), _told(snapshot, store, rows, device)
    )
    return {
        "logits_nE": routing.logits[:count].cpu().numpy(),
        "indices_nK": routing.indices[:count].cpu().numpy(),
        "weights_nK": routing.weights[:count].cpu().numpy(),
        "readouts_EnD": readouts_EBD[:, :count].cpu().numpy(),
    }


def _told(snapshot: Snapshot, store: ImageStore, rows: NDArray[np.intp], device: torch.device) -> torch.Tensor | None:
    """What the gate is told of these images."""
    if snapshot.card is None:
        return None
    known, experts = Known(torch.from_numpy(rows), torch.from_numpy(store.labels_N[rows])), snapshot.model.sizes[0]
    return of_images(snapshot.model.told, known, seed=snapshot.card.seed, experts=experts, device=device)


def _check_finite(
    logits_BE: NDArray[np.float32], readouts_EBD: NDArray[np.float32], snapshot: Snapshot, store: ImageStore, start: int
) -> None:
    bad_EB = ~np.isfinite(readouts_EBD).all(axis=2) | ~np.isfinite(logits_BE).T
    if bad_EB.any():
        image, expert = np.argwhere(bad_EB.T)[0]
        raise UserError(
            f"{snapshot.run.title}, expert {expert}, image {store.ids[start + image]} of {store.name}: the activation "
            "is not finite; the model diverged" + (", train it again with a lower train.lr" if snapshot.card else "")
        )
