"""One run from configuration to exported model; skipped if done, resumed if broken off."""

import contextlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from callbacks.embedding_monitor import EmbeddingMonitor
from callbacks.monitors import Coactivation, FewestViews, LoadBalanceMonitor, RoutingHeatmap, ViewAgreementMonitor
from callbacks.saturation import RoutingSaturation, write_saturation
from moe.config import RunConfig
from moe.data.datasets import check_available
from moe.data.loading import RunData, Share, load_run_data
from moe.data.suitable import check_images, prepared
from moe.embedded import watched
from moe.errors import UserError
from moe.files import clear_partials
from moe.hardware import device_type, precision_plugin
from moe.lightning_module import MoEModule
from moe.memory import check_memory, place
from sweeps.runs.endings import (
    InterruptedRunError,
    LackOfMemoryError,
    StoppedRunError,
    is_out_of_memory,
    lack_of_memory,
)
from sweeps.runs.files import write_json
from sweeps.runs.lock import LockedError, locked
from sweeps.runs.run import Run, by_epoch
from sweeps.runs.state import now
from sweeps.runs.store import RunStore
from sweeps.tracking.holdings import adopt, ask_what_arrived
from sweeps.tracking.mirror import publish
from sweeps.tracking.session import tracked
from sweeps.training import provenance
from sweeps.training.checkpoints import UnusableError, best_first, complete, confirm, load, newest, prune
from sweeps.training.cores import LeaveCores, may_change_threads
from sweeps.training.history import HistoryLogger, Mirror, Progress
from sweeps.training.keeping import KeepModels, export
from sweeps.training.saving import DurableCheckpointIO, Saving, StopRequest

# a worker whose agent was killed needs a while to write its checkpoint and end
_PATIENCE = 90.0
_ANEW = "give the new ones a name of their own (data.name), or move {} away to train anew"
_FIRST = "MOE_FIRST_PROCESS"  # pid of a run's first process, for the others, which Lightning starts


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
        UserError: images or labels are missing, or another process trains this run.
        InterruptedRunError: SIGTERM or Ctrl-C came; or the run was stopped in the tracker (StoppedRunError).
    """
    store = store or RunStore()
    run = store.run(config.identity())
    if _rank(config):
        _follow(run, config)
        return run
    if run.finished:
        report(f"run {run.id} is finished already: {run.path}")
        if stores := prepared(config.data):
            *training, validation = (store.digest() for store in stores)
            if _on_others(run, provenance.digests("+".join(training), validation)):
                report(f"it was trained on other images than {config.data.name} has now; {_ANEW.format(run.path)}")
        adopt(run, group)
        return run
    check_available(config.data)
    device = device_type(config.machine)
    check_images(config)
    check_memory(config, device)  # what cannot be trained here leaves no run behind
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
        with StopRequest().listening() as stop:
            _lead(run, config, group, report, stop)
    except StoppedRunError as stopped:
        run.set_state(state="waiting", error=str(stopped), ended=now(), seconds=seconds())
        raise
    except (InterruptedRunError, KeyboardInterrupt, SystemExit) as error:  # Lightning turns Ctrl-C into an exit
        run.set_state(state="waiting", error="interrupted", ended=now(), seconds=seconds())
        raise InterruptedRunError(f"run {run.id} was told to stop") from error
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            said = lack_of_memory(config, place(config, device_type(config.machine)))
        run.set_state(state="failed", error=said, ended=now(), seconds=seconds())
        if is_out_of_memory(error):
            raise LackOfMemoryError(said) from error
        raise
    run.set_state(state="finished", ended=now(), seconds=seconds())


def _rank(config: RunConfig) -> int:
    """Which of a run's processes this is; Lightning starts the others by this same command."""
    return int(os.environ.get("LOCAL_RANK", "0")) if config.machine.devices > 1 else 0


def _lead(run: Run, config: RunConfig, group: str | None, report: Callable[[str], None], stop: StopRequest) -> None:
    """The run's first process: trains, writes its files and talks to the tracker."""
    if config.machine.devices > 1:
        os.environ[_FIRST] = str(os.getpid())
    data, module = _prepare(config)
    _check_same_images(run, config, data)
    clear_partials(run.routing)
    stop.obey()
    history = HistoryLogger(run.history_file)
    with _quiet_lightning(), tracked(run, group=group) as session:
        cores = [LeaveCores(report)] if may_change_threads(config.machine) else []
        trainer = _trainer(run, config, data, history, report, stop, [*cores, Mirror(run, session)])
        facts = provenance.collect(config, data, trainer.strategy.root_device, str(trainer.precision))
        write_json(run.provenance_file, facts)
        report(f"run {run.id}: {_headline(config, data, module)} on {facts['device']}")
        _fit(trainer, module, data, run, history, report)
        if cores:
            write_json(run.provenance_file, facts | {"steps_by_threads": cores[0].steps})
        _finish(run, config, module, data, history, report)
        publish(run, session)
    ask_what_arrived(run, session)
    report(f"finished: {run.path}")


def _on_others(run: Run, images: Mapping[str, str]) -> bool:
    """Whether a run was begun on other images than these, under the same names."""
    return bool(run.provenance.get("data", images) != images)


def _check_same_images(run: Run, config: RunConfig, data: RunData) -> None:
    """Refuse to go on with a run on images that it was not begun on.

    Raises:
        UserError: they were prepared or imported anew since then.
    """
    images = provenance.digests(data.train.digest, data.validation.digest)
    if run.checkpoint_files() and _on_others(run, images):
        raise UserError(
            f"run {run.id} was begun on other images than {config.data.name} has now; import those again to go on, or "
            f"{_ANEW.format(run.path)}"
        )


def _follow(run: Run, config: RunConfig) -> None:
    """The other processes of a run on several devices: they train and leave everything else to the first."""
    _end_with_parent()

    def silent(_line: str) -> None: ...

    # told to stop: the first process says so, and takes any other exit code for a crash
    with _quiet_lightning(), StopRequest().listening() as stop, contextlib.suppress(InterruptedRunError):
        data, module = _prepare(config)
        _fit(_trainer(run, config, data, None, silent, stop), module, data, run, None, silent)


def _end_with_parent() -> None:
    """End this process soon after the first, which may be killed while we import, or wait for it in an exchange."""
    parent = int(os.environ.get(_FIRST, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepare(config: RunConfig) -> tuple[RunData, MoEModule]:
    if config.machine.threads:
        torch.set_num_threads(config.machine.threads)
    data = load_run_data(config)
    shown = watched(len(data.validation.images_NCSS))
    return data, MoEModule(config, data.train.mean, data.train.sd, len(data.train.classes), shown)


def _headline(config: RunConfig, data: RunData, module: MoEModule) -> str:
    parameters = sum(p.numel() for p in module.parameters()) / 1e6
    return (
        f"{config.data.name}, {len(data.train.images_NCSS)} images at {config.data.image_size} px, "
        f"E = {config.model.experts}, k = {config.model.top_k}, seed {config.seed}, {parameters:.2f}M parameters"
    )


def _trainer(
    run: Run,
    config: RunConfig,
    data: RunData,
    history: HistoryLogger | None,
    report: Callable[[str], None],
    stop: StopRequest,
    watchers: Sequence[L.Callback] = (),
) -> L.Trainer:
    machine = config.machine
    device = device_type(machine)
    # by which Lightning logs; it takes it from the variables of Slurm, whose tasks are not processes of this run
    rank_zero_only.rank = _rank(config)  # type: ignore[attr-defined]
    return L.Trainer(
        accelerator=device,
        devices=machine.devices,
        strategy="ddp" if machine.devices > 1 else "auto",
        plugins=[
            LightningEnvironment(),  # an agent under Slurm is one process a run, whatever Slurm's variables say
            DurableCheckpointIO(),
            precision_plugin(device, config.train),
        ],
        deterministic="warn" if machine.deterministic else None,  # some GPU operations have no such algorithm
        max_epochs=config.train.epochs,
        gradient_clip_val=config.train.clip_norm,
        logger=[history] if history else [],
        callbacks=[
            LoadBalanceMonitor(),
            FewestViews(),
            ViewAgreementMonitor(),
            Coactivation(run.routing),
            RoutingHeatmap(run.routing, data.validation.classes),
            RoutingSaturation(run.routing_files),
            EmbeddingMonitor(run.routing_files),
            Progress(run, report),
            KeepModels(run, config, data),
            Saving(run, stop, machine.checkpoint_minutes, history),
            *watchers,
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
    history: HistoryLogger | None,
    report: Callable[[str], None],
) -> None:
    config = module.config
    share = Share(_rank(config), config.machine.devices)
    steps = len(data.train.images_NCSS) // config.train.batch_size
    position = newest(run, module.state_dict(), steps, report)
    epoch, skip = divmod(position.steps, steps) if position else (0, 0)
    train_loader, validation_loader = data.loaders(config, trainer.strategy.root_device, share, skip)
    if history is not None:
        history.restore(position.history if position else [])
        if position and not position.confirmed:
            confirm(run, position.file, position.steps, position.history)
    if position:
        report(f"resuming after epoch {epoch}" + (f" and {skip} of {steps} steps" if skip else ""))
    else:
        trainer.validate(module, validation_loader, verbose=False)
    file = position.file if position else None
    trainer.fit(module, train_loader, validation_loader, ckpt_path=file, weights_only=True)


def _finish(
    run: Run,
    config: RunConfig,
    module: MoEModule,
    data: RunData,
    history: HistoryLogger,
    report: Callable[[str], None],
) -> None:
    """Export the models and sum up; every file is on the disk before the run is called finished."""
    epochs = config.train.epochs
    if not complete(history.rows, epochs):
        raise RuntimeError(f"the history of run {run.id} lacks rows of its {epochs} epochs; delete {run.path}")
    history.save_whole()
    prune(run, history.rows)
    write_saturation(run.routing_files, epochs)
    export(run.model, run, config, module, data, epochs)
    best = best_first(history.rows)[0]
    if best != epochs:
        checkpoint = run.epoch_checkpoint(best)
        try:
            module.load_state_dict(load(checkpoint)["state_dict"])
        except (UnusableError, RuntimeError) as error:
            report(f"{checkpoint.name} {error}; the model of the best epoch, {best}, is not exported")
        else:
            export(run.best_model, run, config, module, data, best)
    rows = by_epoch(history.rows)
    write_json(run.summary_file, {"untrained": rows[0], "last": rows[epochs], "best": rows[best]})


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
            ".*`srun` command is available.*",  # agents under Slurm are one process a run
            ".*dataloader is not resumable.*",  # EpochBatches skips what is done
        ):
            warnings.filterwarnings("ignore", message=text)
        yield
