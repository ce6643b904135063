"""The fewest views that an expert had in a step, by hand and over a break."""

import dataclasses

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from callbacks.monitors import FewestViews
from tests.callbacks.foreign import EXPERTS, Foreign, chosen, logged, run, trainer_of

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")

# four steps an epoch, views of each of four experts
VIEWS = [
    [[9, 5, 6, 0], [8, 4, 7, 1], [7, 9, 3, 1], [6, 6, 6, 2]],
    [[9, 5, 5, 1], [4, 8, 7, 1], [7, 8, 3, 2], [7, 6, 6, 1]],
]


class Counted(Foreign):
    """Shows how many views each expert had, as a table says."""

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        views = VIEWS[self.current_epoch][batch_idx]
        return outputs | {"routing": dataclasses.replace(outputs["routing"], views_E=views)}


def module(kind=Counted):
    tables = [chosen(1), chosen(2), chosen(3)]
    return kind(tables, [[chosen(4), chosen(5)], [chosen(6), chosen(7)]])


def loaded():
    return DataLoader(torch.arange(40).float(), batch_size=10)


def numbers(trainer):
    return {key.removeprefix("balance_train/fewest_views"): value for key, value in logged(trainer).items()}


def test_they_are_the_smallest_of_the_last_epochs_steps(tmp_path):
    trainer = run(module(), [FewestViews()], tmp_path, train=True)
    assert numbers(trainer) == {"_0": 4.0, "_1": 5.0, "_2": 3.0, "_3": 1.0, "": 1.0}


def test_a_module_that_does_not_count_logs_none(tmp_path):
    trainer = run(module(Foreign), [FewestViews()], tmp_path, train=True)
    assert numbers(trainer) == {}


def test_a_break_within_an_epoch_changes_nothing(tmp_path):
    """Saved after the third step of the first epoch; the counts of its first steps are the smallest."""
    path = tmp_path / "checkpoint"

    class Break(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (0, 2):
                trainer.save_checkpoint(path)

    run(module(), [FewestViews(), Break()], tmp_path, train=True, epochs=1)
    trainer = trainer_of([FewestViews()], tmp_path / "again", epochs=1)
    trainer.fit(module(), loaded(), loaded(), ckpt_path=path, weights_only=True)
    assert numbers(trainer) == {"_0": 6.0, "_1": 4.0, "_2": 3.0, "_3": 0.0, "": 0.0}
    assert EXPERTS == 4
