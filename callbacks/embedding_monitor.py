"""What the embedding is good for, each epoch: validation images in eval mode.

The callback reads `EmbeddingRecord`s under the key ``"embedding"`` of a step's output, so it watches any Lightning
module that returns them, with any logger.

Axes: B images, W of them watched, C channels, D embedding, E experts.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from callbacks import embeddings, heatmaps, records
from callbacks.files import RoutingFolder, View
from callbacks.gathering import log, show_picture
from callbacks.keys import Keys, expert_knn, expert_linear
from callbacks.tables import write_csv
from moe.embedded import EmbeddingRecord, watched
from moe.lightning_module import epochs_done

# a mean cosine of two images above about 0.99, and fewer than two directions
_ONE_POINT, _ONE_LINE = -0.04, 1.5
_MOST = 10_000  # images that are compared pair by pair

_log = logging.getLogger(__name__)


class EmbeddingMonitor(L.Callback):
    """What z, the shared features and each expert's readout tell of an image's class, and how z fills its space.

    Logged after validation, over the images without augmentation, in eval mode; accuracies are fractions of the
    labelled images (of 10,000, where there are more), each told without itself, and left out where these have fewer
    than two classes:

    - ``embedding/knn``, ``shared/knn``: accuracy of the 20 nearest neighbours (`embeddings.knn_accuracy`) in z and in
      the shared features.
    - ``embedding/linear``, ``shared/linear``: accuracy of a linear map in held-out folds
      (`embeddings.linear_accuracy`).
    - ``embedding/rank``: effective rank of z, 1 to D (`embeddings.effective_rank`).
    - ``embedding/alignment``: squared distance of two views on the unit sphere, 0 to 4.
    - ``embedding/uniformity``: log of the mean Gaussian potential of pairs of images, about -4 (even) to 0 (one point).

    Over the images that every expert was shown:

    - ``experts/knn_<e>``, ``experts/linear_<e>``: accuracies of expert e's readout; ``experts/knn``,
      ``experts/linear``: their means over experts.
    - ``experts/cka``: mean linear CKA of two experts' readouts, 0 to 1; left out for fewer than two experts that tell
      images apart.

    Writes into `folder`:

    - ``expert_similarity_<epoch>.csv`` and ``.png``: linear CKA of each pair of experts, 0 to 1; NaN for an expert that
      answers all images alike. Loggers that have `log_image` are given the picture under ``routing/expert_similarity``.

    An embedding that has collapsed to a point or a line is announced by a warning once, when it first appears.

    Several processes: all observe the images of all of them, in the order of their places.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: RoutingFolder) -> None:
        super().__init__()
        self.folder = folder
        self._steps: list[dict[str, Tensor]] = []
        self._announced = False
        self._device = torch.device("cpu")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the device on which records of all steps are joined."""
        self._device = trainer.strategy.root_device

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh."""
        self._steps = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the step's record."""
        record = outputs.get("embedding") if isinstance(outputs, Mapping) else None
        if isinstance(record, EmbeddingRecord):
            self._steps.append({name: getattr(record, name).detach() for name in records.EMBEDDING})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Observe the epoch's embeddings."""
        steps, self._steps = self._steps, []
        if trainer.sanity_checking:
            return
        own = records.join_tensors(steps, self._device)
        tensors = records.share_tensors(own, records.EMBEDDING, self._device)
        if tensors is not None:
            self._observe(_in_order(EmbeddingRecord(**tensors)), trainer, pl_module)

    def _observe(self, record: EmbeddingRecord, trainer: L.Trainer, module: L.LightningModule) -> None:
        values = _of_all(record)
        watched_B = record.watched_B.bool()
        if watched_B.any():
            similarity_EE = embeddings.linear_cka(record.readouts_WED.unbind(dim=1))
            values |= _of_experts(record, record.labels_B[watched_B])
            values[Keys.EXPERTS_CKA] = embeddings.mean_between(similarity_EE)
            if trainer.is_global_zero and len(similarity_EE) > 1:
                self._show(similarity_EE.numpy(), trainer)
        log({key: value for key, value in values.items() if math.isfinite(value)}, trainer, module)
        if epochs_done(trainer) > 0:
            self._announce(values, trainer)

    def _show(self, similarity_EE: np.ndarray[Any, np.dtype[np.float64]], trainer: L.Trainer) -> None:
        names, epoch = [str(expert) for expert in range(len(similarity_EE))], epochs_done(trainer)
        rows = ([name, *row] for name, row in zip(names, similarity_EE.tolist(), strict=True))
        write_csv(self.folder.table(View.SIMILARITY, epoch), ["expert", *names], rows)
        picture = heatmaps.heatmap(
            similarity_EE, names, names,
            title=f"Similarity of experts after epoch {epoch}", label="linear CKA of their readouts", limits=(0.0, 1.0),
        )  # fmt: skip
        show_picture(View.SIMILARITY.key, heatmaps.save(picture, self.folder.picture(View.SIMILARITY, epoch)), trainer)

    def _announce(self, values: Mapping[str, float], trainer: L.Trainer) -> None:
        point = values[Keys.EMBEDDING_UNIFORMITY] > _ONE_POINT
        if self._announced or not (point or values[Keys.EMBEDDING_RANK] < _ONE_LINE):
            return
        self._announced = True
        if trainer.is_global_zero:
            shape = "nearly one point of the unit sphere" if point else "nearly a line"
            _log.warning("the embedding has collapsed to %s after epoch %d", shape, epochs_done(trainer))

    def state_dict(self) -> dict[str, Any]:
        """Whether a collapse was announced."""
        return {"announced": self._announced}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there: what was announced is not announced again."""
        self._announced = bool(state_dict.get("announced"))


def _in_order(record: EmbeddingRecord) -> EmbeddingRecord:
    """The images in the order of their places, whichever process had them."""
    order_B = record.places_B.argsort()
    order_W = record.places_B[record.watched_B.bool()].argsort()
    tensors = {name: getattr(record, name) for name in records.EMBEDDING}
    readouts = tensors.pop("readouts_WED")[order_W]
    return EmbeddingRecord(**{name: tensor[order_B] for name, tensor in tensors.items()}, readouts_WED=readouts)


def _of_all(record: EmbeddingRecord) -> dict[str, float]:
    """Numbers of z and of the shared features."""
    some_B = watched(len(record.z_BD), _MOST).to(record.z_BD.device)
    z_BD, shared_BC, labels_B = record.z_BD[some_B], record.shared_BC[some_B], record.labels_B[some_B]
    return {
        Keys.EMBEDDING_KNN: embeddings.knn_accuracy(z_BD, labels_B),
        Keys.EMBEDDING_LINEAR: float(embeddings.linear_accuracy(z_BD, labels_B)),
        Keys.EMBEDDING_RANK: embeddings.effective_rank(z_BD),
        Keys.EMBEDDING_ALIGNMENT: embeddings.alignment(record.view_a_BD, record.view_b_BD),
        Keys.EMBEDDING_UNIFORMITY: embeddings.uniformity(z_BD),
        Keys.SHARED_KNN: embeddings.knn_accuracy(shared_BC, labels_B),
        Keys.SHARED_LINEAR: float(embeddings.linear_accuracy(shared_BC, labels_B)),
    }


def _of_experts(record: EmbeddingRecord, labels_W: Tensor) -> dict[str, float]:
    """Accuracies of each expert's readout, and their means."""
    readouts_EWD = record.readouts_WED.transpose(0, 1)
    knn_E = [embeddings.knn_accuracy(readout_WD, labels_W) for readout_WD in readouts_EWD]
    linear_E = embeddings.linear_accuracy(readouts_EWD, labels_W).tolist()
    values = {Keys.EXPERTS_KNN: float(np.mean(knn_E)), Keys.EXPERTS_LINEAR: float(np.mean(linear_E))}
    for expert, (knn, linear) in enumerate(zip(knn_E, linear_E, strict=True)):
        values |= {expert_knn(expert): knn, expert_linear(expert): linear}
    return values
