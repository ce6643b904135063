"""The callbacks on a Lightning module of another kind, which shows nothing but a routing record."""

import csv

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from callbacks import metrics
from callbacks.monitors import LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from moe.routing import Routing, RoutingRecord

EXPERTS, COUNT, BATCH = 4, 40, 10


def routing(indices):
    indices = torch.as_tensor(indices)
    weights = torch.tensor([0.7, 0.3]).expand(len(indices), 2)
    return Routing(torch.zeros(len(indices), EXPERTS), indices, weights)


class Foreign(L.LightningModule):
    """Routes images by a given table."""

    def __init__(self, tables):
        super().__init__()
        self.tables = [torch.as_tensor(table) for table in tables]
        self.labels = torch.arange(COUNT) % 3
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum() * batch.sum() * 0

    def validation_step(self, batch, batch_idx):
        rows = batch.long()
        a, b, clean = (routing(table[rows]) for table in self.tables)
        return {"routing": RoutingRecord(a, b, clean, self.labels[rows])}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Pictures(CSVLogger):
    """A logger that takes pictures."""

    def __init__(self, *args):
        super().__init__(*args)
        self.pictures = []

    def log_image(self, key, images, caption):
        self.pictures.append((key, caption))


def tables(seed):
    rng = np.random.default_rng(seed)
    return [np.array([rng.permutation(EXPERTS)[:2] for _ in range(COUNT)]) for _ in range(3)]


def run(module, callbacks, tmp_path, *, train=False):
    loader = DataLoader(torch.arange(COUNT).float(), batch_size=BATCH)
    logger = Pictures(tmp_path / "logs")
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, logger=logger, callbacks=callbacks, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    if train:
        trainer.fit(module, loader, loader)
    else:
        trainer.validate(module, loader, verbose=False)
    return trainer, logger


def test_logged_numbers_are_those_of_the_metrics(tmp_path):
    a, b, clean = tables(0)
    trainer, _ = run(Foreign([a, b, clean]), [LoadBalanceMonitor(), ViewAgreementMonitor()], tmp_path)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    gates = routing(clean).gates().numpy()
    balance = metrics.load_balance(gates)
    assert logged["balance/cv2"] == pytest.approx(balance.cv2, rel=1e-5)
    assert logged["balance/entropy"] == pytest.approx(balance.entropy, rel=1e-5)
    for expert in range(EXPERTS):
        assert logged[f"balance/importance_{expert}"] == pytest.approx(balance.importance[expert] / COUNT, rel=1e-5)
        assert logged[f"balance/load_{expert}"] == pytest.approx(balance.load[expert] / COUNT, rel=1e-5)
    assert logged["agreement/top_k"] == pytest.approx(metrics.view_agreement(a, b), rel=1e-5)
    assert logged["agreement/chance_uniform"] == pytest.approx(1 / 6, rel=1e-5)
    assert logged["agreement/chance_observed"] == pytest.approx(metrics.observed_chance(a, b), rel=1e-5)


def test_a_collapsed_gate_is_reported_and_announced_once(tmp_path, caplog):
    collapsed = np.tile([2, 3], (COUNT, 1))
    trainer, _ = run(Foreign([collapsed] * 3), [LoadBalanceMonitor()], tmp_path, train=True)
    said = [record.message for record in caplog.records if record.name == "callbacks.monitors"]
    assert said == ["no validation image is routed to expert 0, 1 after epoch 1"]
    logged = trainer.callback_metrics
    assert float(logged["balance/dead"]) == 2
    # importances 0, 0, 28, 12: mean 10, variance (100 + 100 + 324 + 4) / 4 = 132
    assert float(logged["balance/cv2"]) == pytest.approx(1.32, rel=1e-5)
    expected = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3)) / np.log(4)
    assert float(logged["balance/entropy"]) == pytest.approx(expected, rel=1e-5)


def test_heatmap_files_and_pictures_of_every_epoch(tmp_path):
    a, b, clean = tables(1)
    classes = ["ant", "bee", "cat"]
    module = Foreign([a, b, clean])
    _, logger = run(module, [RoutingHeatmap(tmp_path / "routing", classes)], tmp_path, train=True)
    expected = metrics.routing_heatmap(clean, module.labels.numpy(), 3, EXPERTS)
    for epoch in (1, 2):
        with (tmp_path / "routing" / f"heatmap_{epoch:04d}.csv").open(newline="") as file:
            header, *rows = list(csv.reader(file))
        assert header == ["class", "0", "1", "2", "3"]
        assert [row[0] for row in rows] == classes
        np.testing.assert_allclose([[float(cell) for cell in row[1:]] for row in rows], expected)
        assert (tmp_path / "routing" / f"heatmap_{epoch:04d}.png").stat().st_size > 5000
    assert logger.pictures == [("routing/heatmap", ["epoch 1"]), ("routing/heatmap", ["epoch 2"])]


def test_without_labels_there_is_no_heatmap(tmp_path):
    module = Foreign(tables(2))
    module.labels = torch.full((COUNT,), -1)
    run(module, [RoutingHeatmap(tmp_path / "routing", ["ant"])], tmp_path)
    assert not (tmp_path / "routing").exists()
