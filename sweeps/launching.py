"""Sweeps launched, resumed and stopped from Python.

    from sweeps.launching import launch, resume, stop

    sweep = launch("quickstart.yaml", {"train.epochs": 2}, agents=2)

A launch is `register` (the file is checked, the sweep written down) followed by `run` (agents on this machine) or
`submit` (agents as jobs of a cluster). All of them bring the queue up to date first, so that what is done is not
repeated.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol

from moe.config import RunConfig, from_flat
from moe.errors import UserError
from moe.wording import counted
from sweeps.agents import cluster, cluster_status
from sweeps.agents.crew import Agents, Crew
from sweeps.plan.collapse import collapsed
from sweeps.plan.spec import Cell, Sweep, expand, load_sweep, renamed, samples, with_overrides
from sweeps.queue.base import Queue
from sweeps.queue.launched import LOCAL, LaunchedSweep, check_goes_on
from sweeps.queue.opening import (
    AUTO,
    QUEUES,
    choose_queue,
    launched_before,
    open_queue,
    open_sweep,
    storage_of,
    write_down,
)
from sweeps.queue.status import SweepStatus, status
from sweeps.runs.endings import Ending
from sweeps.runs.folders import HomeFolder, home
from sweeps.runs.lock import LockedError, locked
from sweeps.runs.store import RunStore
from sweeps.tracking.connection import connection

_PAUSE = 0.5  # seconds between looks at the agents
_PATIENCE = 60.0  # seconds that another launch may take to write itself down
_OF_IMAGES = ("data.name", "data.validation", "train.batch_size", "loss.objective", "gate.kind")


class InterruptedLaunchError(KeyboardInterrupt):
    """Ctrl-C came; agents have handed back their cells and ended. `status` has how the sweep stands.

    It is a KeyboardInterrupt, so that a script that does not ask for it ends as it would.
    """

    def __init__(self, status: SweepStatus) -> None:
        super().__init__(f"sweep {status.name} was interrupted")
        self.status = status


class Reporter(Protocol):
    """What is told of a launch while it goes on."""

    def note(self, line: str) -> None:
        """Something that happened once: what was chosen, how many cells are done, where agents run."""

    def look(self, read: Callable[[], SweepStatus], agents: int) -> None:
        """Twice a second while agents are at work.

        Args:
            read: asks how the sweep stands, which takes a while for many cells.
            agents: how many there are.
        """


class Silence:
    """The Reporter that keeps everything to itself."""

    def note(self, line: str) -> None:
        """Say nothing."""

    def look(self, read: Callable[[], SweepStatus], agents: int) -> None:
        """Show nothing, and ask for nothing."""


SILENT = Silence()


def launch(
    spec: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    backend: str = AUTO,
    storage: str | None = None,
    name: str | None = None,
    agents: int | None = None,
    per_device: int = 1,
    minutes: float | None = None,
    reporter: Reporter = SILENT,
) -> SweepStatus:
    """Run every cell of a sweep that is not finished yet, with agents on this machine; returns when none is at work.

    Args:
        spec: a sweep file, or the name of a shipped one.
        overrides: parameters to fix, by dotted path.
        backend: name of the queue that hands the cells out; `auto` takes the first that can.
        storage: database URL of the queue; None: `MOE_STORAGE`, else SQLite in `MOE_HOME`.
        name: what to call the sweep; None: as its file says. A name stands for one sweep, which can only grow.
        agents: trials that run at the same time; None: one for each slot of each GPU, one without a GPU.
        per_device: runs that share a GPU.
        minutes: after which a trial counts as failed; None: never.
        reporter: told how it goes.

    Raises:
        UserError: a mistake in the file, the overrides or the options, or images are missing.
        InterruptedLaunchError: Ctrl-C came; `resume` goes on.
    """
    sweep = register(spec, overrides, backend=backend, storage=storage, name=name, reporter=reporter)
    return run(sweep, Crew(agents, per_device, minutes, sweep.devices), reporter)


def resume(
    name: str,
    *,
    storage: str | None = None,
    agents: int | None = None,
    per_device: int = 1,
    minutes: float | None = None,
    stopped: bool = False,
    reporter: Reporter = SILENT,
) -> SweepStatus:
    """Finish what is missing of a launched sweep: interrupted trials from their last checkpoint, failed ones too.

    Args:
        name: of the sweep, or its address on a W&B server.
        storage: as for `launch`, like all that follow.
        agents: trials that run at the same time.
        per_device: runs that share a GPU.
        minutes: after which a trial counts as failed.
        stopped: go on with runs too that a person stopped in the tracker.
        reporter: told how it goes.

    Raises:
        UserError: there is no such sweep.
        InterruptedLaunchError: Ctrl-C came; `resume` goes on.
    """
    sweep = open_sweep(name, storage)
    return run(sweep, Crew(agents, per_device, minutes, sweep.devices), reporter, failed=True, stopped=stopped)


def stop(name: str, *, storage: str | None = None) -> list[str]:
    """Let running trials of a sweep write a checkpoint and end, wherever they run; returns at once.

    Returns:
        Ids of the jobs of a cluster that were taken back before they began.

    Raises:
        UserError: there is no such sweep.
    """
    sweep = open_sweep(name, storage)
    with closing(open_queue(sweep)) as queue:
        queue.request_stop(stop=True)
    return cluster_status.cancel(sweep.name, sweep.root)


# --- the steps of a launch ------------------------------------------------------------------------------------------


def plan(spec: str, overrides: Mapping[str, Any] | None = None, name: str | None = None) -> tuple[Sweep, list[Cell]]:
    """Read and expand a sweep file; everything in it is checked. A bayes sweep has no cells yet.

    Args:
        spec: a sweep file, or the name of a shipped one.
        overrides: parameters to fix, by dotted path.
        name: what to call the sweep; None: as its file says, or by the file's own name.

    Raises:
        UserError: a mistake in the file or the overrides.
    """
    sweep = with_overrides(load_sweep(spec), overrides or {})
    if name is not None:
        sweep = renamed(sweep, name)
    return sweep, expand(sweep)


def register(
    spec: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    backend: str = AUTO,
    storage: str | None = None,
    name: str | None = None,
    reporter: Reporter = SILENT,
) -> LaunchedSweep:
    """Check a sweep's file and images, choose its queue, and write it down; nothing runs yet.

    Raises:
        UserError: as for `launch`.
    """
    from moe.data.datasets import check_available

    sweep, cells = plan(spec, overrides, name)
    chosen, why = choose_queue(backend, sweep)
    more = growth(sweep, cells, storage)
    for data in {config.data for config in _ways_with_images(sweep, cells)}:
        check_available(data)
    check_suitable(sweep, cells)
    launched = register_planned(sweep, cells, chosen, storage)
    reporter.note(f"backend {chosen}: {why}")
    for line in (more, collapsed(sweep, cells)):
        if line:
            reporter.note(line)
    return launched


def register_planned(
    sweep: Sweep, cells: Sequence[Cell], queue: str = LOCAL, storage: str | None = None
) -> LaunchedSweep:
    """Write a planned sweep down; in the queue's own service too, unless the same one is there already.

    Raises:
        UserError: another sweep was launched under its name.
    """
    planned = LaunchedSweep.of(
        sweep, cells, home(), queue, None, storage_of(storage), blanks=QUEUES[queue].draws(sweep)
    )
    with _one_at_a_time():  # another launch may take the name meanwhile
        known, address = launched_before(sweep.name, storage), None
        if known is not None:
            more = check_goes_on(known, planned)
            if more and known.address and known.drawn:
                way = "raise run_cap there, or take another name with --name"
                raise UserError(f"{more}; a service draws them, so {way}")
            address = known.address if (known.queue, known.cells) == (queue, planned.cells) else None
        return write_down(dataclasses.replace(planned, address=address or QUEUES[queue].create(sweep)))


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep other launches into this `MOE_HOME` from taking names.

    Raises:
        UserError: another one does for long.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(HomeFolder().launching, _PATIENCE))
        except LockedError:
            raise UserError(f"another launch into {home()} does not come to an end; end it, or try again") from None
        yield


def growth(sweep: Sweep, cells: Sequence[Cell], storage: str | None = None) -> str | None:
    """In words, how a planned sweep asks for more than it did when it was launched under its name; None if not.

    Raises:
        UserError: it asks for something else.
    """
    known = launched_before(sweep.name, storage)
    if known is None:
        return None
    return check_goes_on(known, LaunchedSweep.of(sweep, cells, home(), blanks=QUEUES[known.queue].draws(sweep)))


def run(
    sweep: LaunchedSweep, crew: Crew, reporter: Reporter = SILENT, *, failed: bool = False, stopped: bool = False
) -> SweepStatus:
    """Run what is missing of a launched sweep with agents on this machine, and look after them until they end.

    Args:
        sweep: the sweep.
        crew: how many agents, and on what.
        reporter: told how it goes.
        failed: run failed cells again too, and those that a service leaves over.
        stopped: run those again too that a person stopped in the tracker.

    Raises:
        InterruptedLaunchError: Ctrl-C came; trials have written a checkpoint and were handed back.
    """
    with closing(open_queue(sweep)) as queue:
        unfinished, going = _refresh(sweep, queue, reporter, failed=failed, stopped=stopped), True
        if unfinished:
            agents = Agents(sweep, crew, unfinished)
            reporter.note(_who(agents, queue))
            going = _look_after(agents, queue, reporter)
        left = queue.left_over() if failed and going and _all_known(sweep, queue, reporter) else []
        if left:
            reporter.note(f"not done, though {queue.place} counts them so: {counted(len(left), 'cell')}; run now")
            _look_after(Agents(sweep, crew, len(left), left_over=True), queue, reporter)
        return status(sweep, queue)


def submit(
    sweep: LaunchedSweep,
    resources: cluster.Resources,
    on: cluster.Where,
    reporter: Reporter = SILENT,
    *,
    minutes: float | None = None,
) -> list[cluster.Submitted]:
    """Submit agents as jobs that run what is missing of a launched sweep; none if nothing is.

    Args:
        sweep: the sweep.
        resources: what each agent's job asks for, and how many there are.
        on: the scheduler.
        reporter: told how it goes.
        minutes: after which a trial counts as failed.

    Raises:
        UserError: the scheduler is missing or refuses.
    """
    with closing(open_queue(sweep)) as queue:
        unfinished = _refresh(sweep, queue, reporter, failed=True)
    if not unfinished:
        return []
    options = [] if minutes is None else ["--timeout", str(minutes)]
    return cluster.submit(sweep.name, sweep.root, resources, on, options=options, storage=sweep.storage)


def check_suitable(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Refuse runs that are yet to be trained and that cannot be trained on their images, where these are prepared here.

    Raises:
        UserError: names the line, the images and what they lack.
    """
    from moe.data.suitable import UnsuitableError, check_images

    done = RunStore().finished_ids()
    missing = [cell for cell in cells if cell.run_id not in done]
    for config in _ways_with_images(sweep, missing) if missing or not cells else ():
        try:
            check_images(config)
        except UnsuitableError as error:
            raise sweep.source.error(("parameters", error.setting), str(error)) from None


def _ways_with_images(sweep: Sweep, cells: Sequence[Cell]) -> Collection[RunConfig]:
    """One configuration for each combination of the settings that images must suit.

    Of the cells; of a search, which has none yet, of the combinations that were tried when its file was checked.
    """
    if cells:
        settings = ((cell.config.data, cell.config.train.batch_size, cell.config.loss.named(), cell.config.gate.named())
                    for cell in cells)  # fmt: skip
        return {key: cell.config for key, cell in zip(settings, cells, strict=True)}.values()
    combinations = ({path: value for path, value in values.items() if path in _OF_IMAGES} for values in samples(sweep))
    return [from_flat(values) for values in {repr(values): values for values in combinations}.values()]


def _refresh(sweep: LaunchedSweep, queue: Queue, reporter: Reporter, *, failed: bool, stopped: bool = False) -> int:
    """Bring the queue up to date; returns the number of cells that are not finished."""
    queue.request_stop(stop=False)
    queue.update(sweep.store.finished_ids(), failed=failed)
    if stopped:
        states = queue.states()
        queue.publish_again([cell for cell in sweep.cells if states[cell.run_id].ending is Ending.STOPPED])
    now = status(sweep, queue)
    reporter.note(f"sweep {sweep.name}: {now.count('finished')} of {len(now.cells)} already finished")
    return len(now.unfinished)


def _who(agents: Agents, queue: Queue) -> str:
    """Who works where, in one line."""
    wandb = connection()
    plural = "s" if len(agents.devices) > 1 else ""
    devices = ", ".join(sorted({device.name for device in agents.devices}))
    return f"queue {queue.place}, {len(agents.devices)} agent{plural} on {devices}; W&B {wandb.mode}: {wandb.why}"


def _all_known(sweep: LaunchedSweep, queue: Queue, reporter: Reporter) -> bool:
    """Wait until it is known which cells are still at work; False if the sweep was told to stop meanwhile."""
    said = False
    try:
        while why := queue.held():
            if not said:
                reporter.note(f"{why}; Ctrl-C leaves it")
            said = True
            if queue.stop_requested():
                return False
            time.sleep(_PAUSE)
    except KeyboardInterrupt:
        raise InterruptedLaunchError(status(sweep, queue)) from None
    return True


def _look_after(agents: Agents, queue: Queue, reporter: Reporter) -> bool:
    """Replace agents that die, until all have ended; False if they were told to stop."""
    read = partial(status, agents.sweep, queue)
    try:
        going = True
        while going:
            agents.tend(queue)
            going = agents.running()
            reporter.look(read, len(agents.devices))
            time.sleep(_PAUSE if going else 0)
    except KeyboardInterrupt:
        reporter.note("stopping: running trials write a checkpoint and end")
        agents.stop()
        raise InterruptedLaunchError(read()) from None
    finally:
        agents.stop()
    return not queue.stop_requested()
