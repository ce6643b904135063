"""What the gate does with the validation images, each epoch, in eval mode.

The callbacks read `RoutingRecord`s under the key ``"routing"`` of a validation step's output, so they watch any
Lightning module that returns them, with any logger. Scalars go through the module's `log_dict`; matrices go to
plain files and, where a logger can take pictures, to it too.

Axes: B images, E experts, K = top-k slots.
"""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from callbacks import figures, metrics
from moe.errors import UserError
from moe.lightning_module import epochs_done
from moe.routing import Routing, RoutingRecord

_log = logging.getLogger(__name__)


def _join(parts: Sequence[Routing]) -> Routing:
    return Routing(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class RoutingMonitor(L.Callback):
    """Collects the routing of one validation epoch and hands it over in one piece.

    Subclasses implement `observe`.
    """

    def __init__(self) -> None:
        self._records: list[RoutingRecord] = []

    def observe(self, record: RoutingRecord, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compute and log; `record` covers all validation images."""
        raise NotImplementedError

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Start afresh."""
        self._records = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,  # noqa: ARG002
        pl_module: L.LightningModule,  # noqa: ARG002
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep the step's record on the CPU."""
        if isinstance(outputs, Mapping) and isinstance(outputs.get("routing"), RoutingRecord):
            self._records.append(outputs["routing"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Join the records and observe them."""
        if trainer.sanity_checking or not self._records:
            return
        records, self._records = self._records, []
        clean = [record.clean for record in records if record.clean is not None]
        labels = [record.labels_B for record in records if record.labels_B is not None]
        joined = RoutingRecord(
            _join([record.view_a for record in records]),
            _join([record.view_b for record in records]),
            _join(clean) if len(clean) == len(records) else None,
            torch.cat(labels) if len(labels) == len(records) else None,
        )
        self.observe(joined, trainer, pl_module)


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()


class LoadBalanceMonitor(RoutingMonitor):
    """Balance over the validation images as they are (without views where a record has them clean).

    Logged: ``balance/cv2`` (squared coefficient of variation of the importances, 0 to E - 1), ``balance/entropy``
    (normalised, 0 to 1), ``balance/dead`` (count of experts without any image), ``balance/importance_<e>`` (share of
    all gate weight, sums to 1) and ``balance/load_<e>`` (fraction of images routed to expert e, sums to K).
    A dead expert is announced once, when it first appears.
    """

    def __init__(self) -> None:
        super().__init__()
        self._announced: set[int] = set()

    def observe(self, record: RoutingRecord, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the balance of this epoch."""
        routing = record.clean if record.clean is not None else record.view_a
        gates = _numpy(routing.gates())
        if not np.isfinite(gates).all():
            raise UserError("the gate's output is not finite: training diverged; lower train.lr")
        balance = metrics.load_balance(gates)
        values = {
            "balance/cv2": balance.cv2,
            "balance/entropy": balance.entropy,
            "balance/dead": float(balance.dead),
        }
        total = balance.importance.sum()
        for expert, (importance, load) in enumerate(zip(balance.importance, balance.load, strict=True)):
            values[f"balance/importance_{expert}"] = float(importance / total)
            values[f"balance/load_{expert}"] = float(load / len(gates))
        module.log_dict(values)
        new = set(np.flatnonzero(balance.load == 0).tolist()) - self._announced
        if new and epochs_done(trainer) > 0 and trainer.is_global_zero:
            self._announced |= new
            names = ", ".join(str(expert) for expert in sorted(new))
            _log.warning("no validation image is routed to expert %s after epoch %d", names, epochs_done(trainer))


class ViewAgreementMonitor(RoutingMonitor):
    """Whether two views of an image go to the same experts (Appendix B.1).

    Logged, each a fraction of images: ``agreement/top_k``, and the chance levels ``agreement/chance_uniform``
    (1 / C(E, k)) and ``agreement/chance_observed`` (independent views with the observed frequencies of sets; the
    honest one).
    """

    def observe(self, record: RoutingRecord, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002
        """Log the agreement of this epoch."""
        idx_a, idx_b = _numpy(record.view_a.indices), _numpy(record.view_b.indices)
        experts, top_k = record.view_a.logits.shape[1], idx_a.shape[1]
        module.log_dict(
            {
                "agreement/top_k": metrics.view_agreement(idx_a, idx_b),
                "agreement/chance_uniform": metrics.uniform_chance(experts, top_k),
                "agreement/chance_observed": metrics.observed_chance(idx_a, idx_b),
            }
        )


class RoutingHeatmap(RoutingMonitor):
    """Class x expert heatmap of the clean validation images (Figure 2b), each epoch.

    Writes ``heatmap_<epoch>.csv`` and ``.png`` into `folder`, values being the proportion of a class's images that
    is routed to an expert (rows sum to K), and gives the picture to loggers that have `log_image`, under
    ``routing/heatmap``. Does nothing without labels.

    Args:
        folder: where the files go.
        classes: class names in index order.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__()
        self.folder = folder
        self.classes = list(classes)

    def observe(self, record: RoutingRecord, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002
        """Write and log the heatmap of this epoch."""
        if record.clean is None or record.labels_B is None or not self.classes or not trainer.is_global_zero:
            return
        experts = record.clean.logits.shape[1]
        labels = _numpy(record.labels_B)
        if (labels < 0).all():
            return
        values = metrics.routing_heatmap(_numpy(record.clean.indices), labels, len(self.classes), experts)
        epoch = epochs_done(trainer)
        names = [str(expert) for expert in range(experts)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"heatmap_{epoch:04d}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class", *names])
            writer.writerows([name, *row] for name, row in zip(self.classes, values.tolist(), strict=True))
        figure = figures.heatmap(
            values, self.classes, names,
            title=f"Routing after epoch {epoch}", label="proportion of the class's images", limits=(0.0, 1.0),
        )  # fmt: skip
        picture = figures.save(figure, self.folder / f"heatmap_{epoch:04d}.png")
        for logger in trainer.loggers:
            log_image = getattr(logger, "log_image", None)
            if log_image is not None:
                log_image(key="routing/heatmap", images=[str(picture)], caption=[f"epoch {epoch}"])
