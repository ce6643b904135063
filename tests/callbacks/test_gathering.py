"""The base of the monitors: what it gathers, and that a checkpoint within an epoch carries it."""

import lightning as L
import numpy as np
import pytest
import torch

from callbacks import metrics, records
from callbacks.gathering import RoutingMonitor
from callbacks.monitors import Coactivation, LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from moe.routing import RoutingRecord
from tests.callbacks.foreign import BATCH, COUNT, Foreign, chosen, loader, logged, routing, run, trainer_of


class Spy(RoutingMonitor):
    """Notes what it is shown."""

    stages = ("train", "val")

    def __init__(self):
        super().__init__()
        self.seen = []

    def observe(self, record, stage, trainer, module):
        self.seen.append((stage, trainer.current_epoch, record))


class Validation(Spy):
    stages = ("val",)


def module_of(seed=0, epochs=2):
    training = [[chosen(seed + 10 * epoch), chosen(seed + 10 * epoch + 1)] for epoch in range(epochs)]
    return Foreign([chosen(seed + 100), chosen(seed + 101), chosen(seed + 102)], training)


def test_an_epoch_is_handed_over_in_one_piece(tmp_path):
    module, spy = module_of(), Spy()
    run(module, [spy], tmp_path, train=True)
    assert [(stage, epoch) for stage, epoch, _ in spy.seen] == [("val", 0), ("train", 0), ("val", 1), ("train", 1)]
    for stage, epoch, record in spy.seen:
        tables = module.validation if stage == "val" else module.training_tables[epoch]
        np.testing.assert_array_equal(record.view_a.indices, tables[0])
        np.testing.assert_array_equal(record.view_b.indices, tables[1])
        assert (record.clean is None) == (record.labels_B is None) == (stage == "train")
    np.testing.assert_array_equal(spy.seen[0][2].labels_B, module.labels)
    assert spy._records == {"train": [], "val": []}


def test_a_monitor_sees_the_stages_it_asks_for(tmp_path):
    spy = Validation()
    run(module_of(), [spy], tmp_path, train=True)
    assert [stage for stage, _, _ in spy.seen] == ["val", "val"]
    assert spy.state_dict() == {}
    fill(spy, module_of(), 1)
    assert spy._records["train"] == []


def test_the_sanity_check_is_not_observed(tmp_path):
    module, spy = module_of(epochs=1), Spy()
    trainer = trainer_of([spy], tmp_path, epochs=1)
    trainer.num_sanity_val_steps = 2
    trainer.fit(module, loader(), loader())
    assert [len(record.view_a.logits) for stage, _, record in spy.seen if stage == "val"] == [COUNT]


def test_validation_within_an_epoch_leaves_the_training_records_alone(tmp_path):
    spy = Spy()
    run(module_of(epochs=1), [spy], tmp_path, train=True, epochs=1, val_check_interval=2)
    assert [(stage, len(record.view_a.logits)) for stage, _, record in spy.seen] == [
        ("val", COUNT), ("val", COUNT), ("train", COUNT)
    ]  # fmt: skip


@pytest.mark.parametrize("outputs", [None, torch.zeros(1), {}, {"routing": None}, {"routing": torch.zeros(3)}])
def test_steps_without_a_record_are_passed_over(outputs):
    spy = Spy()
    spy.on_train_batch_end(None, None, outputs, None, 0)
    assert spy._records["train"] == []


def test_records_are_kept_without_gradients_and_without_copies():
    spy, weights = Spy(), torch.rand(5, 2, requires_grad=True)
    view = routing(torch.zeros(5, 2, dtype=torch.int64))._replace(weights=weights * 1)
    spy.on_train_batch_end(None, None, {"routing": RoutingRecord(view, view)}, None, 0)
    (kept,) = spy._records["train"]
    assert not kept.view_a.weights.requires_grad
    assert kept.view_a.weights.data_ptr() == view.weights.data_ptr()


def fill(monitor, module, batches):
    for batch in range(batches):
        rows = slice(batch * BATCH, (batch + 1) * BATCH)
        views = (routing(table[rows]) for table in module.training_tables[0])
        monitor.on_train_batch_end(None, None, {"routing": RoutingRecord(*views)}, None, batch)


@pytest.mark.parametrize("kind", [LoadBalanceMonitor, ViewAgreementMonitor])
def test_the_state_holds_plain_tensors_of_the_running_epoch(tmp_path, kind):
    monitor, other, module = kind(), kind(), module_of()
    fill(monitor, module, 3)
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    kept = records.join(other._records["train"], torch.device("cpu"))
    np.testing.assert_array_equal(kept.view_a.indices, module.training_tables[0][0][: 3 * BATCH])
    np.testing.assert_array_equal(kept.view_b.indices, module.training_tables[0][1][: 3 * BATCH])
    monitor.on_train_epoch_start(None, None)
    other.load_state_dict(monitor.state_dict())
    assert other._records["train"] == []


def test_the_state_of_monitors_of_validation_is_empty(tmp_path):
    assert Coactivation(tmp_path).state_dict() == RoutingHeatmap(tmp_path, []).state_dict() == {}


class Break(L.Callback):
    """Saves after a step in the middle of an epoch."""

    def __init__(self, path, epoch, batch):
        self.path, self.at = path, (epoch, batch)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)


class ByBatch(Foreign):
    """A resumed loader begins anew, so that images are known by the batch's number."""

    def rows(self, batch, batch_idx):
        return torch.arange(batch_idx * BATCH, (batch_idx + 1) * BATCH)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
@pytest.mark.parametrize(("epoch", "batch"), [(0, 2), (1, 0), (1, 2)])
def test_a_run_resumed_within_an_epoch_logs_the_same_numbers(tmp_path, epoch, batch, caplog):
    def module():
        training = [[chosen(seed), chosen(seed + 1)] for seed in (0, 10, 20)]
        validation = np.tile([2, 3], (COUNT, 1))
        return ByBatch([validation] * 3, training, weights=(0.6, 0.4))

    def numbers(*more, **options):
        trainer = trainer_of([LoadBalanceMonitor(), ViewAgreementMonitor(), *more], tmp_path, epochs=epoch + 1)
        trainer.fit(module(), loader(), loader(), **options)
        return logged(trainer), len([record for record in caplog.records if record.name == "callbacks.monitors"])

    undisturbed, said = numbers(Break(tmp_path / "checkpoint", epoch, batch))
    resumed, said_in_all = numbers(ckpt_path=tmp_path / "checkpoint", weights_only=True)
    assert resumed == undisturbed
    expected = metrics.view_agreement(chosen(10 * epoch), chosen(10 * epoch + 1))
    assert resumed["agreement_train/top_k"] == pytest.approx(expected)
    assert said == 1
    assert said_in_all == (1 if epoch else 2)  # what was announced before the checkpoint is not announced again
