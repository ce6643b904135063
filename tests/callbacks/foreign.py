"""A Lightning module of another kind, which shows nothing but a routing record; and loggers that take everything."""

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from moe.embedded import EmbeddingRecord
from moe.routing import NONE, Routing, RoutingRecord

EXPERTS, COUNT, BATCH, CLASSES = 4, 40, 10, 3


def routing(indices, weights=(0.7, 0.3), logits=None):
    """Experts by a table, all images with the same gates; none in empty slots."""
    indices = torch.as_tensor(indices)
    weights = torch.tensor(weights).expand(len(indices), len(weights)).masked_fill(indices == NONE, 0.0)
    return Routing(torch.zeros(len(indices), EXPERTS) if logits is None else logits, indices, weights)


def chosen(seed, top_k=2, count=COUNT):
    """(count, top_k) different experts."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(EXPERTS)[:top_k] for _ in range(count)])


class Foreign(L.LightningModule):
    """Routes validation and training images by tables, training by another one each epoch.

    Args:
        validation: chosen experts of both views and of the clean images, (COUNT, K) each.
        training: those of both views for each epoch; none: training steps show no routing.
        weights: gates of the chosen experts.
        logits: of the clean images, (COUNT, EXPERTS).
    """

    def __init__(self, validation, training=(), weights=(0.7, 0.3), logits=None):
        super().__init__()
        self.validation, self.training_tables = validation, training
        self.gates, self.logits = weights, logits
        self.labels = torch.arange(COUNT) % CLASSES
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        loss = self.weight.sum() * batch.sum() * 0
        if not len(self.training_tables):
            return loss
        rows = self.rows(batch, batch_idx)
        views = (routing(table[rows], self.gates) for table in self.training_tables[self.current_epoch])
        # as in a model that trains its gate: what callbacks are shown hangs on the graph
        views = [Routing(view.logits + self.weight, view.indices, view.weights + 0 * self.weight) for view in views]
        return {"loss": loss, "routing": RoutingRecord(*views)}

    def rows(self, batch, batch_idx):
        return batch.long()

    def validation_step(self, batch, batch_idx):
        rows = batch.long()
        a, b, clean = (routing(table[rows], self.gates) for table in self.validation)
        if self.logits is not None:
            clean = clean._replace(logits=self.logits[rows])
        return {"routing": RoutingRecord(a, b, clean, self.labels[rows], places_B=rows)}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Embedding(Foreign):
    """Shows embeddings of three experts, which know the class a little.

    Args:
        labels: classes, default three in turn.
        shown: (COUNT,) bool, the images that every expert is shown; default all.
        order: in which the images come.
        count: images that there are.
    """

    def __init__(self, labels=None, shown=None, order=None, count=COUNT):
        super().__init__([chosen(1)] * 3)
        generator = torch.Generator().manual_seed(0)
        classes = torch.arange(COUNT) % CLASSES
        self.labels = classes if labels is None else labels
        self.shown = torch.ones(COUNT, dtype=torch.bool) if shown is None else shown
        self.order = torch.arange(COUNT) if order is None else order

        def drawn(*shape):
            tensor = torch.randn(COUNT, *shape, generator=generator)
            tensor[range(COUNT), ..., classes] += 1
            return tensor

        self.z, self.view_a, self.view_b, self.features, self.readouts = (
            drawn(*shape)[:count] for shape in ((6,), (6,), (6,), (9,), (3, 6))
        )

    def rows(self, batch, batch_idx):
        rows = self.order[batch.long()]
        return rows[rows < len(self.z)]

    def validation_step(self, batch, batch_idx):
        return {"embedding": self.embedding(self.rows(batch, batch_idx))}

    def embedding(self, rows):
        parts = (self.z, self.features, self.view_a, self.view_b, self.labels)
        shown = self.shown[rows]
        return EmbeddingRecord(*(part[rows] for part in parts), rows, shown, self.readouts[rows[shown]])


class Media(CSVLogger):
    """A logger that takes pictures and tables, as W&B's does."""

    def __init__(self, *args):
        super().__init__(*args)
        self.pictures, self.tables = [], []

    def log_image(self, key, images, caption):
        self.pictures.append((key, images, caption))

    def log_table(self, key, columns, data):
        self.tables.append((key, columns, data))


def loader():
    return DataLoader(torch.arange(COUNT).float(), batch_size=BATCH)


def trainer_of(callbacks, tmp_path, *, epochs=2, logger=None, **options):
    logger = Media(tmp_path / "logs") if logger is None else logger
    return L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=logger, callbacks=callbacks,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
        log_every_n_steps=1, **options,
    )  # fmt: skip


def run(module, callbacks, tmp_path, *, train=False, **options):
    """The trainer after a validation or a training of two epochs."""
    trainer = trainer_of(callbacks, tmp_path, **options)
    if train:
        trainer.fit(module, loader(), loader())
    else:
        trainer.validate(module, loader(), verbose=False)
    return trainer


def logged(trainer):
    return {key: float(value) for key, value in trainer.callback_metrics.items()}
