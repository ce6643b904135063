"""One run from configuration to exported model; skipped if done, resumed if broken off."""

import contextlib
import logging
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger

from callbacks.monitors import LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from moe.config import RunConfig
from moe.data.datasets import check_available
from moe.data.loading import RunData, load_run_data
from moe.errors import UserError
from moe.export import export_model
from moe.lightning_module import MoEModule
from sweeps import provenance, tracker
from sweeps.exit_codes import InterruptedRunError
from sweeps.history import HistoryLogger, Progress
from sweeps.runs import LockedError, Run, RunStore, locked, now, write_json

# a worker whose agent was killed needs a while to write its checkpoint and end
_PATIENCE = 90.0


def train(
    config: RunConfig,
    store: RunStore | None = None,
    *,
    group: str | None = None,
    report: Callable[[str], None] = print,
) -> Run:
    """Train one run, unless it is finished already; continue it if it was interrupted.

    Args:
        config: the run.
        store: where runs live; default `MOE_HOME`.
        group: the sweep it belongs to, for the tracker.
        report: takes one line of text an epoch.

    Raises:
        UserError: images are missing, or another process trains this run.
        InterruptedRunError: SIGTERM or Ctrl-C came.
    """
    store = store or RunStore()
    run = store.run(config.identity())
    if run.finished:
        report(f"run {run.id} is finished already: {run.path}")
        return run
    check_available(config.data)
    store.create(config)
    try:
        with locked(run.lock_file, _PATIENCE if group else 0.0):
            if not run.finished:  # by the process that held the lock until now
                _attempt(run, config, group, report)
    except LockedError:
        if group:  # an agent hands the cell back and comes again
            raise InterruptedRunError(f"run {run.id} is still held by another process") from None
        raise UserError(f"run {run.id} is being trained by another process") from None
    return run


def _attempt(run: Run, config: RunConfig, group: str | None, report: Callable[[str], None]) -> None:
    before = run.state
    run.set_state(
        state="running", attempts=before.attempts + 1, error=None, started=before.started or now(), ended=None
    )
    started = time.monotonic()

    def seconds() -> float:
        return round(before.seconds + time.monotonic() - started, 1)

    try:
        _train(run, config, group, report)
    except (InterruptedRunError, KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C into an exit
        run.set_state(state="waiting", error="interrupted", ended=now(), seconds=seconds())
        raise InterruptedRunError(f"run {run.id} was told to stop") from error
    except BaseException as error:
        run.set_state(state="failed", error=f"{type(error).__name__}: {error}", ended=now(), seconds=seconds())
        raise
    run.set_state(state="finished", ended=now(), seconds=seconds())


def _train(run: Run, config: RunConfig, group: str | None, report: Callable[[str], None]) -> None:
    if config.machine.threads:
        torch.set_num_threads(config.machine.threads)
    data = load_run_data(config)
    module = MoEModule(config, data.train.mean, data.train.sd)
    history = HistoryLogger(run.history_file)
    with _quiet_lightning(), tracker.tracked(run, job="train", group=group) as tracked:
        loggers: list[Logger] = [history]
        if tracker.mode()[0] != "disabled":
            loggers.append(WandbLogger(experiment=tracked))
        trainer = _trainer(run, config, data, loggers, report)
        facts = provenance.collect(config, data, trainer.strategy.root_device, str(trainer.precision))
        write_json(run.provenance_file, facts)
        report(f"run {run.id}: {_headline(config, data, module)} on {facts['device']}")
        _fit(trainer, module, data, run, history, report)
        _finish(run, config, module, data, tracked)
    report(f"finished: {run.path}")


def _headline(config: RunConfig, data: RunData, module: MoEModule) -> str:
    parameters = sum(p.numel() for p in module.parameters()) / 1e6
    return (
        f"{config.data.name}, {len(data.train.images_NCSS)} images at {config.data.image_size} px, "
        f"E = {config.model.experts}, k = {config.model.top_k}, seed {config.seed}, {parameters:.2f}M parameters"
    )


def _trainer(
    run: Run, config: RunConfig, data: RunData, loggers: list[Logger], report: Callable[[str], None]
) -> L.Trainer:
    accelerator = {"cuda": "gpu"}.get(config.machine.device, config.machine.device)
    return L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=config.train.precision,
        max_epochs=config.train.epochs,
        gradient_clip_val=config.train.clip_norm,
        logger=loggers,
        callbacks=[
            LoadBalanceMonitor(),
            ViewAgreementMonitor(),
            RoutingHeatmap(run.routing, data.validation.classes),
            ModelCheckpoint(
                dirpath=run.checkpoints,
                filename="epoch{epoch:04d}",
                auto_insert_metric_name=False,
                monitor="val/loss",
                save_top_k=3,
                save_last=True,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
            Progress(run, report),
        ],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )


def _fit(
    trainer: L.Trainer,
    module: MoEModule,
    data: RunData,
    run: Run,
    history: HistoryLogger,
    report: Callable[[str], None],
) -> None:
    train_loader, validation_loader = data.loaders(module.config)
    checkpoint = _usable_checkpoint(run, report)
    history.rewind(checkpoint["epoch"] + 1 if checkpoint else -1)
    if checkpoint:
        report(f"resuming after epoch {checkpoint['epoch'] + 1}")
    else:
        trainer.validate(module, validation_loader, verbose=False)
    trainer.fit(
        module,
        train_loader,
        validation_loader,
        ckpt_path=checkpoint["path"] if checkpoint else None,
        weights_only=False,  # our own file, written by this run on this machine
    )
    if trainer.interrupted or trainer.current_epoch < module.config.train.epochs:
        raise InterruptedRunError(f"run {run.id} was told to stop")


def _usable_checkpoint(run: Run, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; a process killed while writing one leaves it cut off."""
    for file in run.checkpoint_files():
        try:
            epoch = torch.load(file, map_location="cpu", weights_only=False)["epoch"]
        except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
            report(f"{file.name} cannot be read ({type(error).__name__}); trying the one before")
            continue
        return {"path": file, "epoch": epoch}
    return None


def _finish(run: Run, config: RunConfig, module: MoEModule, data: RunData, tracked: Any) -> None:
    export_model(
        module.model,
        run.model,
        run_id=run.id,
        seed=config.seed,
        epoch=config.train.epochs,
        data=config.data,
        mean=data.train.mean,
        sd=data.train.sd,
        data_digest=data.train.digest,
    )
    rows = run.history()
    trained = rows[1:]
    best = min(trained, key=lambda row: float("inf") if row["val/loss"] is None else row["val/loss"])
    write_json(run.summary_file, {"untrained": rows[0], "last": trained[-1], "best": best})
    if tracker.mode()[0] != "disabled":
        tracker.log_model(tracked, run)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice that does not apply here, such as worker processes for images in memory."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for text in (
            ".*does not have many workers.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*The dirpath has changed.*",
            ".*lr_scheduler.step\\(\\).*",
            ".*treespec.*",
            ".*LeafSpec.*",
            ".*batch_size.*could not.*",
        ):
            warnings.filterwarnings("ignore", message=text)
        yield
