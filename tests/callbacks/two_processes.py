"""What test_two_processes.py lets two gloo processes do, and one: train under the callbacks.

    python -m tests.callbacks.two_processes FOLDER

Rank 0 has the first of every four images, rank 1 the other three, so that processes have different numbers of rows.
"""

import json
import sys
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from callbacks import records
from callbacks.embedding_monitor import EmbeddingMonitor
from callbacks.files import RoutingFolder
from callbacks.monitors import Coactivation, LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from callbacks.saturation import RoutingSaturation
from moe.routing import RoutingRecord
from tests.callbacks.foreign import COUNT, Embedding, Foreign, chosen, logged, routing

STEPS = 4
EMBEDDING = Embedding(shown=torch.arange(COUNT) % 3 != 0)


class Shared(Foreign):
    """Every process routes its part of the batch."""

    def rows(self, batch, batch_idx):  # by the batch's number: a resumed loader begins anew
        return self.mine(torch.arange(batch_idx, COUNT, STEPS))

    def mine(self, rows):
        if self.trainer.world_size == 1:
            return rows
        first = torch.arange(len(rows)) % 4 == 0
        return rows[first if self.trainer.global_rank == 0 else ~first]

    def on_train_start(self):
        """A process without any rows, as all but the first are when a run resumes, takes part."""
        if self.trainer.world_size > 1:
            view = routing(chosen(7))
            whole = records.share(RoutingRecord(view, view) if self.trainer.global_rank == 1 else None, self.device)
            assert torch.equal(whole.view_b.indices, view.indices)
            assert whole.clean is whole.labels_B is None
            assert records.share(None, self.device) is None

    def validation_step(self, batch, batch_idx):
        rows = self.mine(batch)
        return super().validation_step(rows, batch_idx) | {"embedding": EMBEDDING.embedding(rows.long())}


class Break(L.Callback):
    """Saves after the second step of the second epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            trainer.save_checkpoint(self.path)


def train(folder, devices, checkpoint=None):
    """Numbers of the last epoch; files in the folder."""
    training = [[chosen(seed), chosen(seed + 1)] for seed in (0, 10)]
    module = Shared([chosen(20), chosen(21), chosen(22)], training, weights=(0.6, 0.4))
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", max_epochs=2, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, callbacks=[
            LoadBalanceMonitor(), ViewAgreementMonitor(), Coactivation(folder), RoutingHeatmap(folder, ["a", "b", "c"]),
            RoutingSaturation(RoutingFolder(folder)), EmbeddingMonitor(RoutingFolder(folder)),
            Break(folder / "checkpoint") if checkpoint is None else L.Callback(),
        ],
    )  # fmt: skip
    batches = DataLoader(torch.arange(COUNT).float(), batch_size=COUNT // STEPS)
    trainer.fit(module, batches, batches, ckpt_path=checkpoint, weights_only=True)
    return logged(trainer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    (Path(sys.argv[1]) / "logged.json").write_text(json.dumps(train(Path(sys.argv[1]), devices=2)))
