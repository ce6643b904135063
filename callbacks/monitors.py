"""What the gate does with the images, each epoch: validation images in eval mode, training views with the gate's noise.

The callbacks read `RoutingRecord`s under the key ``"routing"`` of a step's output, so they watch any Lightning module
that returns them, with any logger. Scalars go through the module's `log_dict`; matrices go to plain files and, where
a logger can take pictures or tables, to it too. Keys of training views begin with ``balance_train/`` and
``agreement_train/``; all others are of validation.

Axes: B images, E experts, K = top-k slots, C classes.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from callbacks import heatmaps, metrics
from callbacks.files import RoutingFolder, View
from callbacks.gathering import RoutingMonitor, Stage, log, show_picture, show_table
from callbacks.keys import Keys
from callbacks.keys import fewest_views as fewest_views_key
from callbacks.keys import importance as importance_key
from callbacks.keys import load as load_key
from callbacks.tables import write_csv
from moe.errors import UserError
from moe.lightning_module import epochs_done
from moe.routing import NONE, Routing, RoutingRecord
from moe.wording import numbered

_BALANCE = (Keys.CV2, Keys.ENTROPY, Keys.DEAD)
_TRAIN_BALANCE = (Keys.TRAIN_CV2, Keys.TRAIN_ENTROPY, Keys.TRAIN_DEAD)
_AGREEMENT = (Keys.AGREEMENT, Keys.CHANCE_OBSERVED)
_TRAIN_AGREEMENT = (Keys.TRAIN_AGREEMENT, Keys.TRAIN_CHANCE_OBSERVED)

_log = logging.getLogger(__name__)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.cpu().numpy())


def _as_they_are(record: RoutingRecord) -> Routing:
    """The images without augmentation, or the first views where a record has no clean images."""
    return record.view_a if record.clean is None else record.clean


def _balance(*routings: Routing) -> metrics.LoadBalance:
    """Balance over all these images.

    Raises:
        UserError: a gate is not finite.
    """
    indices, weights = (
        _numpy(torch.cat(parts)) for parts in zip(*((one.indices, one.weights) for one in routings), strict=True)
    )
    if not np.isfinite(weights).all():
        raise UserError("the gate's output is not finite; lower train.lr, or train with train.precision=32-true")
    return metrics.routed_balance(indices, weights, routings[0].logits.shape[1])


class LoadBalanceMonitor(RoutingMonitor):
    """How evenly the experts are used, and how decided the gate is.

    Logged after validation, over the images without augmentation (over first views where a record has no clean
    images), in eval mode:

    - ``balance/cv2``: squared coefficient of variation of the importances, 0 (even) to E - 1 (collapsed), no unit.
    - ``balance/entropy``: entropy of the importances' shares over log E, 0 (collapsed) to 1 (even), no unit.
    - ``balance/dead``: experts without any image, a count, 0 to E - K (to E where images may have no expert).
    - ``balance/unrouted``: images without any expert, a fraction; only of a gate that leaves slots empty.
    - ``balance/importance_<e>``: expert e's share of all gate weight, 0 to 1; they sum to 1.
    - ``balance/load_<e>``: fraction of images routed to expert e, 0 to 1; they sum to an image's experts, K.
    - ``gate/entropy``: mean entropy of an image's softmax(logits) over log E, 0 (decisive) to 1 (indifferent), no unit.

    Logged after training, over both views of all images of the epoch, with the gate's noise, while the weights change:

    - ``balance_train/cv2``, ``balance_train/entropy``, ``balance_train/dead``: as above.

    A dead expert (no validation image) is announced by a warning once, when it first appears.
    """

    stages = ("train", "val")

    def __init__(self) -> None:
        super().__init__()
        self._announced: set[int] = set()

    def observe(self, record: RoutingRecord, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the balance of this epoch."""
        if stage == "train":
            log(_scalars(_TRAIN_BALANCE, _balance(record.view_a, record.view_b)), trainer, module)
            return
        routing = _as_they_are(record)
        balance, images = _balance(routing), len(routing.logits)
        values = _scalars(_BALANCE, balance) | {Keys.GATE_ENTROPY: metrics.gate_entropy(_numpy(routing.logits))}
        total = balance.importance.sum() or 1.0
        for expert, (importance, load) in enumerate(zip(balance.importance, balance.load, strict=True)):
            values[importance_key(expert)] = float(importance / total)
            values[load_key(expert)] = float(load / images)
        empty_BK = routing.indices == NONE
        if empty_BK.any():
            values[Keys.UNROUTED] = float(empty_BK.all(dim=1).double().mean())
        log(values, trainer, module)
        if epochs_done(trainer) > 0:
            self._announce(balance, trainer)

    def _announce(self, balance: metrics.LoadBalance, trainer: L.Trainer) -> None:
        new = set(np.flatnonzero(balance.load == 0).tolist()) - self._announced
        self._announced |= new
        if new and trainer.is_global_zero:
            names = numbered("expert", sorted(new))
            _log.warning("no validation image is routed to %s after epoch %d", names, epochs_done(trainer))

    def state_dict(self) -> dict[str, Any]:
        """What the base class keeps, and the experts that were announced as dead."""
        return super().state_dict() | {"announced": sorted(self._announced)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there: what was announced is not announced again."""
        super().load_state_dict(state_dict)
        self._announced = set(state_dict.get("announced", ()))


class FewestViews(L.Callback):
    """The fewest views that an expert had in one training step of the epoch, over all processes.

    Its batch norm normalises by the statistics of a step's views. Few of them make statistics that change from step to
    step, and running averages that describe none of them, so that in eval mode it answers otherwise than it learned.

    Logged after training, from records that count views (`RoutingRecord.views_E`):

    - ``balance_train/fewest_views_<e>``: of expert e, a count, 0 to the views of a batch.
    - ``balance_train/fewest_views``: of the expert with the fewest.

    Checkpoints within an epoch carry the counts so far.
    """

    def __init__(self) -> None:
        self._fewest_E: list[int] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start afresh. Not called when a run resumes within an epoch."""
        self._fewest_E = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the smaller counts; they are on the host already."""
        record = outputs.get("routing") if isinstance(outputs, Mapping) else None
        if isinstance(record, RoutingRecord) and record.views_E is not None:
            pairs = zip(self._fewest_E or record.views_E, record.views_E, strict=True)
            self._fewest_E = [min(pair) for pair in pairs]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the counts of the epoch."""
        if self._fewest_E:
            values = {fewest_views_key(expert): float(fewest) for expert, fewest in enumerate(self._fewest_E)}
            log(values | {Keys.TRAIN_FEWEST_VIEWS: float(min(self._fewest_E))}, trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The counts of the running epoch; all processes have the same."""
        return {"fewest": self._fewest_E}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's counts."""
        self._fewest_E = list(state_dict["fewest"])


def _scalars(keys: tuple[str, str, str], balance: metrics.LoadBalance) -> dict[str, float]:
    values = zip(keys, (balance.cv2, balance.entropy, float(balance.dead)), strict=True)
    return {key: value for key, value in values if math.isfinite(value)}  # two are not, if no image has an expert


class ViewAgreementMonitor(RoutingMonitor):
    """Whether two views of an image go to the same experts (Appendix B.1). All keys are fractions of images, 0 to 1.

    Logged after validation, in eval mode:

    - ``agreement/top_k``: images whose two views are routed to the same set of experts.
    - ``agreement/chance_uniform``: the same if sets were uniform and independent, 1 / C(E, k); of the observed sizes,
      where these differ.
    - ``agreement/chance_observed``: the same if the views were independent with the observed frequencies of sets; the
      honest baseline.

    Logged after training, over all images of the epoch, with the gate's noise (each view has its own), while the
    weights change:

    - ``agreement_train/top_k``, ``agreement_train/chance_observed``: as above; the uniform chance is the same.
    """

    stages = ("train", "val")

    def observe(self, record: RoutingRecord, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the agreement of this epoch."""
        idx_a, idx_b = _numpy(record.view_a.indices), _numpy(record.view_b.indices)
        agreement, chance = _AGREEMENT if stage == "val" else _TRAIN_AGREEMENT
        values = {agreement: metrics.view_agreement(idx_a, idx_b), chance: metrics.observed_chance(idx_a, idx_b)}
        if stage == "val":
            values[Keys.CHANCE_UNIFORM] = metrics.sized_chance(idx_a, idx_b, record.view_a.logits.shape[1])
        log(values, trainer, module)


class Coactivation(RoutingMonitor):
    """Which experts are chosen together, for the validation images without augmentation, in eval mode, each epoch.

    (For first views where a record has no clean images.) Writes into `folder`:

    - ``coactivation_<epoch>.csv``: rows and columns are experts, values the fraction of images routed to both, 0 to 1;
      on the diagonal the fraction routed to the expert at all, its load.
    - ``coactivation_<epoch>.png``: the same in percent; colours for the pairs alone, 0 to the largest of them.

    Loggers that have `log_image` are given the picture under ``routing/coactivation``.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = RoutingFolder(folder)

    def observe(self, record: RoutingRecord, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write and show the matrix of this epoch."""
        if not trainer.is_global_zero:
            return
        routing = _as_they_are(record)
        experts, epoch = routing.logits.shape[1], epochs_done(trainer)
        values = metrics.coactivation(_numpy(routing.indices), experts)
        names = [str(expert) for expert in range(experts)]
        write_csv(
            self.folder.table(View.COACTIVATION, epoch),
            ["expert", *names],
            ([name, *row] for name, row in zip(names, values.tolist(), strict=True)),
        )
        other = ~np.eye(experts, dtype=bool)
        most = 100 * float(values.max(where=other, initial=0.0)) or 100.0
        picture = heatmaps.heatmap(
            np.where(other, 100 * values, np.nan), names, names,
            title=f"Experts chosen together after epoch {epoch} (grey: load)", label="% of images routed to both",
            limits=(0.0, most), written=100 * values, digits=1,
        )  # fmt: skip
        show_picture(
            View.COACTIVATION.key, heatmaps.save(picture, self.folder.picture(View.COACTIVATION, epoch)), trainer
        )


class RoutingHeatmap(RoutingMonitor):
    """How the classes are routed: validation images without augmentation (Figure 2b), in eval mode, each epoch.

    Writes into `folder`, a row for each class:

    - ``heatmap_<epoch>.csv`` and ``.png``: proportion of the class's images routed to each expert, 0 to 1; rows sum
      to K.
    - ``classes_<epoch>.csv``: ``class``; ``images``, a count; ``entropy`` of the class's gate weight over log E, 0 (one
      expert) to 1 (even); ``top_experts``, its commonest set, as 3+7 (empty: no expert); ``top_share``, the fraction
      of its images routed to that set; ``load_<e>``, the fraction of its images routed to expert e (rows sum to K);
      ``weight_<e>``, the mean gate of expert e (rows sum to 1).

    Loggers that have `log_image` are given the picture under ``routing/heatmap``, those that have `log_table` the
    table of classes under ``routing/classes``. Logged:

    - ``routing/class_information``: mutual information of class and expert over the entropy of the class, 0 (routing
      says nothing about the class) to 1 (it determines it), no unit; biased upwards, see `metrics.class_information`.
      Left out if there is one class only.

    Does nothing without clean images, labels or class names.

    Args:
        folder: where the files go.
        classes: class names in index order.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__()
        self.folder = RoutingFolder(folder)
        self.classes = list(classes)

    def observe(self, record: RoutingRecord, stage: Stage, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Write and log the routing of this epoch's classes."""
        if record.clean is None or record.labels_B is None or not self.classes:
            return
        experts, labels = record.clean.logits.shape[1], _numpy(record.labels_B)
        if (labels < 0).all():
            return
        indices, weights = _numpy(record.clean.indices), _numpy(record.clean.weights)
        information = metrics.class_information(indices, labels, len(self.classes), experts)
        if math.isfinite(information):
            log({Keys.CLASS_INFORMATION: information}, trainer, module)
        if trainer.is_global_zero:
            routing = metrics.class_routing(indices, weights, labels, len(self.classes), experts)
            self._heatmap(routing.load, trainer)
            self._table(routing, trainer)

    def _heatmap(self, load_CE: NDArray[np.float64], trainer: L.Trainer) -> None:
        epoch = epochs_done(trainer)
        names = [str(expert) for expert in range(load_CE.shape[1])]
        write_csv(
            self.folder.table(View.HEATMAP, epoch),
            ["class", *names],
            ([name, *row] for name, row in zip(self.classes, load_CE.tolist(), strict=True)),
        )
        picture = heatmaps.heatmap(
            load_CE, self.classes, names,
            title=f"Routing after epoch {epoch}", label="proportion of the class's images", limits=(0.0, 1.0),
        )  # fmt: skip
        file = heatmaps.save(picture, self.folder.picture(View.HEATMAP, epoch))
        show_picture(View.HEATMAP.key, file, trainer)

    def _table(self, routing: metrics.ClassRouting, trainer: L.Trainer) -> None:
        experts = range(routing.load.shape[1])
        columns = ["class", "images", "entropy", "top_experts", "top_share"]
        columns += [f"load_{expert}" for expert in experts] + [f"weight_{expert}" for expert in experts]
        sets = ["+".join(str(expert) for expert in chosen if expert != NONE) for chosen in routing.top_set.tolist()]
        numbers = zip(routing.top_share.tolist(), routing.load.tolist(), routing.weight.tolist(), strict=True)
        rows = [
            [name, images, entropy, chosen, share, *load, *weight]
            for name, images, entropy, chosen, (share, load, weight) in zip(
                self.classes, routing.images.tolist(), routing.entropy.tolist(), sets, numbers, strict=True
            )
        ]
        write_csv(self.folder.table(View.CLASSES, epochs_done(trainer)), columns, rows)
        show_table(View.CLASSES.key, columns, rows, trainer)
