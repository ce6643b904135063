"""Models as they leave training: the last, the best, and those kept after chosen epochs."""

from pathlib import Path

import lightning as L

from moe.config import RunConfig
from moe.data.loading import RunData
from moe.export import export_model
from moe.files import remove
from moe.lightning_module import MoEModule, epochs_done
from sweeps.runs.run import Run


def export(folder: Path, run: Run, config: RunConfig, module: MoEModule, data: RunData, epoch: int) -> None:
    """Write the model into a folder, which appears by one rename and replaces what was there.

    Args:
        folder: of the model.
        run: whose.
        config: of the run.
        module: that holds the weights.
        data: that it was trained on.
        epoch: epochs of training behind them.
    """
    partial = folder.with_name(f".{folder.name}")
    remove(partial)  # what a killed process left
    export_model(
        module.model,
        partial,
        run_id=run.id,
        seed=config.seed,
        epoch=epoch,
        data=config.data,
        mean=data.train.mean,
        sd=data.train.sd,
        data_digest=data.train.digest,
    )
    remove(folder)
    partial.replace(folder)


class KeepModels(L.Callback):
    """Exports the model after the epochs of `machine.keep_epochs`, 0 being the untrained one.

    An epoch's checkpoint is written after its model: a run that is killed in between repeats the epoch and the export.
    A run that goes on from a checkpoint has the models of the epochs before only if it was to keep them then.

    Args:
        run: owner of the files.
        config: of the run.
        data: that it is trained on.
    """

    def __init__(self, run: Run, config: RunConfig, data: RunData) -> None:
        self.run, self.config, self.data = run, config, data
        self.epochs = config.machine.kept_of(config.train.epochs)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The untrained model is validated by itself."""
        if trainer.state.fn == "validate":
            self._keep(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning writes checkpoints after this."""
        self._keep(trainer, pl_module)

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        epoch = epochs_done(trainer)
        if epoch in self.epochs and trainer.is_global_zero and isinstance(module, MoEModule):
            export(self.run.kept_model(epoch), self.run, self.config, module, self.data, epoch)
