"""The callbacks on a Lightning module of another kind, which shows nothing but a routing record."""

import csv
import math

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from callbacks import metrics
from callbacks.monitors import Coactivation, LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from moe.errors import UserError
from tests.callbacks.foreign import COUNT, EXPERTS, Foreign, chosen, logged, routing, run

NAMES = ["ant", "bee", "cat"]


def tables(seed):
    return [chosen(seed), chosen(seed + 100), chosen(seed + 200)]


def epochs(seed):
    return [[chosen(seed + 10 * epoch), chosen(seed + 10 * epoch + 1)] for epoch in range(2)]


def read(path):
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return header, rows


def size(path):
    with Image.open(path) as picture:
        return picture.size


def announced(caplog):
    return [record.message for record in caplog.records if record.name == "callbacks.monitors"]


def test_logged_numbers_are_those_of_the_metrics(tmp_path):
    a, b, clean = tables(0)
    logits = torch.randn(COUNT, EXPERTS, generator=torch.Generator().manual_seed(0))
    trainer = run(Foreign([a, b, clean], logits=logits), [LoadBalanceMonitor(), ViewAgreementMonitor()], tmp_path)
    balance = metrics.load_balance(routing(clean).gates().numpy())
    expected = {
        "balance/cv2": balance.cv2,
        "balance/entropy": balance.entropy,
        "balance/dead": 0.0,
        "gate/entropy": metrics.gate_entropy(logits.numpy()),
        "agreement/top_k": metrics.view_agreement(a, b),
        "agreement/chance_uniform": 1 / 6,
        "agreement/chance_observed": metrics.observed_chance(a, b),
    }
    for expert in range(EXPERTS):
        expected[f"balance/importance_{expert}"] = balance.importance[expert] / COUNT
        expected[f"balance/load_{expert}"] = balance.load[expert] / COUNT
    assert logged(trainer) == pytest.approx(expected, rel=1e-5)


def test_training_numbers_are_those_of_the_last_epochs_views(tmp_path):
    training = epochs(5)
    training[1][0][:, :] = [0, 1]  # no image of the first view goes to 2 or 3, nor of the second to 3
    training[1][1][:, :] = np.where(np.arange(COUNT)[:, None] % 4 == 0, [1, 0], [1, 2])
    trainer = run(Foreign(tables(0), training), [LoadBalanceMonitor(), ViewAgreementMonitor()], tmp_path, train=True)
    values = {key: value for key, value in logged(trainer).items() if "_train/" in key}
    # gates by hand: first view 28 to 0, 12 to 1; second 28 to 1, 3 to 0, 9 to 2
    importance = np.array([31, 40, 9, 0])
    share = importance[:3] / 80
    assert values == pytest.approx(
        {
            "balance_train/cv2": (np.mean(importance**2) - 400) / 400,
            "balance_train/entropy": -(share * np.log(share)).sum() / math.log(4),
            "balance_train/dead": 1.0,
            "agreement_train/top_k": 0.25,
            "agreement_train/chance_observed": 0.25,
        },
        rel=1e-5,
    )


def test_a_step_without_routing_leaves_training_unwatched(tmp_path):
    trainer = run(Foreign(tables(0)), [LoadBalanceMonitor(), ViewAgreementMonitor()], tmp_path, train=True)
    assert "balance/cv2" in logged(trainer)
    assert not [key for key in logged(trainer) if "_train/" in key]


def test_a_gate_collapsed_to_one_expert_is_reported_exactly_and_announced_once(tmp_path, caplog):
    one = np.full((COUNT, 1), 2)
    logits = torch.tensor([-1e4, 0.0, 1e4, -1e4]).repeat(COUNT, 1)
    module = Foreign([one] * 3, [[one, one]] * 2, weights=(1.0,), logits=logits)
    callbacks = [LoadBalanceMonitor(), ViewAgreementMonitor(), Coactivation(tmp_path), RoutingHeatmap(tmp_path, NAMES)]
    trainer = run(module, callbacks, tmp_path, train=True)
    assert announced(caplog) == ["no validation image is routed to experts 0, 1, 3 after epoch 1"]
    by_expert = {f"balance/{kind}_{e}": float(e == 2) for kind in ("importance", "load") for e in range(EXPERTS)}
    assert logged(trainer) == by_expert | {
        "balance/cv2": EXPERTS - 1,
        "balance/entropy": 0.0,
        "balance/dead": EXPERTS - 1,
        "balance_train/cv2": EXPERTS - 1,
        "balance_train/entropy": 0.0,
        "balance_train/dead": EXPERTS - 1,
        "gate/entropy": 0.0,
        "agreement/top_k": 1.0,  # all agree, and the honest baseline says that this means nothing
        "agreement/chance_observed": 1.0,
        "agreement/chance_uniform": 0.25,
        "agreement_train/top_k": 1.0,
        "agreement_train/chance_observed": 1.0,
        "routing/class_information": 0.0,
    }


def test_dead_experts_are_announced_as_they_appear(tmp_path, caplog):
    alive, fewer = chosen(1), np.tile([2, 3], (COUNT, 1))

    class Dying(Foreign):
        def on_validation_epoch_start(self):
            self.validation = [[fewer, alive, fewer][self.current_epoch]] * 3

    run(Dying([alive] * 3), [LoadBalanceMonitor()], tmp_path, train=True, epochs=3)
    assert announced(caplog) == ["no validation image is routed to experts 0, 1 after epoch 1"]


def test_an_untrained_model_is_not_announced(tmp_path, caplog):
    trainer = run(Foreign([np.tile([2, 3], (COUNT, 1))] * 3), [LoadBalanceMonitor()], tmp_path)
    assert logged(trainer)["balance/dead"] == 2
    assert announced(caplog) == []


@pytest.mark.parametrize("stage", ["training", "validation"])
def test_a_gate_that_is_not_finite_stops_the_run(tmp_path, stage):
    module = Foreign(tables(0), epochs(0), weights=(math.nan, 0.3))
    if stage == "training":
        module.validation_step = lambda batch, batch_idx: None
    with pytest.raises(UserError, match=r"not finite.*train\.lr"):
        run(module, [LoadBalanceMonitor()], tmp_path, train=True)


def test_first_views_stand_in_for_clean_images(tmp_path):
    class Bare(Foreign):
        def validation_step(self, batch, batch_idx):
            record = super().validation_step(batch, batch_idx)["routing"]
            return {"routing": type(record)(record.view_a, record.view_b)}

    a, b, clean = tables(3)
    folder = tmp_path / "routing"
    callbacks = [LoadBalanceMonitor(), Coactivation(folder), RoutingHeatmap(folder, NAMES)]
    trainer = run(Bare([a, b, clean]), callbacks, tmp_path)
    expected = metrics.load_balance(routing(a).gates().numpy()).cv2
    assert logged(trainer)["balance/cv2"] == pytest.approx(expected, rel=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == ["coactivation_0000.csv", "coactivation_0000.png"]


def test_coactivation_files_and_pictures_of_every_epoch(tmp_path):
    a, b, clean = tables(4)
    trainer = run(Foreign([a, b, clean]), [Coactivation(tmp_path / "routing")], tmp_path, train=True)
    for epoch in (1, 2):
        header, rows = read(tmp_path / "routing" / f"coactivation_{epoch:04d}.csv")
        assert header == ["expert", "0", "1", "2", "3"]
        assert [row[0] for row in rows] == ["0", "1", "2", "3"]
        values = np.array([[float(cell) for cell in row[1:]] for row in rows])
        np.testing.assert_allclose(values, metrics.coactivation(clean, EXPERTS))
    files = [str(tmp_path / "routing" / f"coactivation_{epoch:04d}.png") for epoch in (1, 2)]
    assert trainer.logger.pictures == [
        ("routing/coactivation", [file], [f"epoch {epoch}"]) for epoch, file in zip((1, 2), files, strict=True)
    ]
    assert min(size(files[0])) > 200


@pytest.mark.parametrize("top_k", [1, EXPERTS])
def test_coactivation_without_any_pair_or_with_all(tmp_path, top_k):
    module = Foreign([chosen(4, top_k)] * 3, weights=(1 / top_k,) * top_k)
    run(module, [Coactivation(tmp_path)], tmp_path)
    assert (tmp_path / "coactivation_0000.png").exists()


def test_heatmap_files_and_pictures_of_every_epoch(tmp_path):
    a, b, clean = tables(1)
    module = Foreign([a, b, clean])
    trainer = run(module, [RoutingHeatmap(tmp_path / "routing", NAMES)], tmp_path, train=True)
    expected = metrics.routing_heatmap(clean, module.labels.numpy(), 3, EXPERTS)
    for epoch in (1, 2):
        header, rows = read(tmp_path / "routing" / f"heatmap_{epoch:04d}.csv")
        assert header == ["class", "0", "1", "2", "3"]
        assert [row[0] for row in rows] == NAMES
        np.testing.assert_allclose([[float(cell) for cell in row[1:]] for row in rows], expected)
        assert min(size(tmp_path / "routing" / f"heatmap_{epoch:04d}.png")) > 200
    shown = [(key, caption) for key, _, caption in trainer.logger.pictures]
    assert shown == [("routing/heatmap", ["epoch 1"]), ("routing/heatmap", ["epoch 2"])]
    information = metrics.class_information(clean, module.labels.numpy(), 3, EXPERTS)
    assert logged(trainer) == pytest.approx({"routing/class_information": information}, rel=1e-5)


def test_the_table_of_classes(tmp_path):
    a, b, clean = tables(2)
    module = Foreign([a, b, clean])
    module.labels = torch.arange(COUNT) % 4
    module.labels[module.labels == 3] = -1  # unknown; and no image at all of class "none"
    trainer = run(module, [RoutingHeatmap(tmp_path / "routing", [*NAMES, "none"])], tmp_path)
    header, rows = read(tmp_path / "routing" / "classes_0000.csv")
    experts = range(EXPERTS)
    loads, weights = [f"load_{expert}" for expert in experts], [f"weight_{expert}" for expert in experts]
    assert header == ["class", "images", "entropy", "top_experts", "top_share", *loads, *weights]
    expected = metrics.class_routing(clean, routing(clean).weights.numpy(), module.labels.numpy(), 4, EXPERTS)
    for number, name in enumerate(NAMES):
        row = dict(zip(header, rows[number], strict=True))
        assert (row["class"], row["images"]) == (name, "10")
        assert row["top_experts"] == "+".join(map(str, expected.top_set[number]))
        assert float(row["top_share"]) == expected.top_share[number]
        assert float(row["entropy"]) == expected.entropy[number]
        assert [float(row[name]) for name in loads] == expected.load[number].tolist()
        assert [float(row[name]) for name in weights] == expected.weight[number].tolist()
    assert rows[3] == ["none", "0", "nan", "", "nan", *["nan"] * 8]
    ((key, columns, data),) = trainer.logger.tables
    assert (key, columns) == ("routing/classes", header)
    assert [[str(cell) for cell in row] for row in data] == rows


def test_one_class_has_no_information(tmp_path):
    module = Foreign(tables(2))
    module.labels = torch.zeros(COUNT, dtype=torch.int64)
    trainer = run(module, [RoutingHeatmap(tmp_path / "routing", NAMES)], tmp_path)
    assert logged(trainer) == {}
    assert (tmp_path / "routing" / "classes_0000.csv").exists()


def test_without_labels_there_is_no_heatmap(tmp_path):
    module = Foreign(tables(2))
    module.labels = torch.full((COUNT,), -1)
    run(module, [RoutingHeatmap(tmp_path / "routing", ["ant"])], tmp_path)
    assert not (tmp_path / "routing").exists()


def test_only_the_first_process_writes_files_and_warns(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(L.Trainer, "is_global_zero", property(lambda trainer: False))
    callbacks = [Coactivation(tmp_path / "r"), RoutingHeatmap(tmp_path / "r", NAMES), LoadBalanceMonitor()]
    trainer = run(Foreign([np.tile([2, 3], (COUNT, 1))] * 3), callbacks, tmp_path, train=True)
    assert not (tmp_path / "r").exists()
    assert announced(caplog) == []
    assert {"routing/class_information", "balance/dead"} < set(logged(trainer))


def test_another_logger_gets_the_numbers_of_both_stages(tmp_path):
    callbacks = [LoadBalanceMonitor(), ViewAgreementMonitor(), Coactivation(tmp_path), RoutingHeatmap(tmp_path, NAMES)]
    logger = CSVLogger(tmp_path, name="csv", version=0)
    trainer = run(Foreign(tables(6), epochs(6)), callbacks, tmp_path, train=True, logger=logger)
    header, rows = read(tmp_path / "csv" / "version_0" / "metrics.csv")
    columns = {name: [float(cell) for cell in column if cell] for name, *column in zip(header, *rows, strict=True)}
    for key, value in logged(trainer).items():
        assert len(columns[key]) == 2  # epochs
        assert columns[key][-1] == pytest.approx(value)
    assert columns["agreement_train/top_k"] == pytest.approx([metrics.view_agreement(*tables) for tables in epochs(6)])


def test_without_any_logger_files_are_written(tmp_path):
    run(Foreign(tables(6)), [Coactivation(tmp_path), RoutingHeatmap(tmp_path, NAMES)], tmp_path, logger=False)
    assert len(list(tmp_path.glob("*_0000.*"))) == 5
