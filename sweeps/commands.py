"""`moe sweep ...`: many runs. No logic of its own; heavy imports happen inside the commands."""

import os
import signal
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from moe.errors import UserError
from moe.wording import counted
from sweeps.console import Json, Set, Storage, SweepName, err, out, print_json, print_table
from sweeps.runs.endings import FAILURE, Ending
from sweeps.runs.signals import handling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sweeps.agents.cluster import Resources, Submitted, Where
    from sweeps.launching import Reporter
    from sweeps.queue.status import SweepStatus

_ROWS = 200  # of a plan, printed
_MOST = 10_000  # processes of one kind

app = typer.Typer(help="Many runs: launch, watch, resume.", no_args_is_help=True)

AgentCount = Annotated[
    int | None,
    typer.Option("--agents", min=1, max=_MOST, help="Trials that run at the same time; default: one a GPU, else 1."),
]
PerDevice = Annotated[int, typer.Option(min=1, max=_MOST, help="Runs that share one GPU.")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Minutes after which an attempt counts as failed.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing while it runs.")]

On = Annotated[
    str | None,
    typer.Option("--on", help="Submit the agents as jobs: to slurm, or local for the same on this machine."),
]
Gpus = Annotated[int | None, typer.Option(help="GPUs of each agent's job.")]
Cpus = Annotated[int | None, typer.Option(help="Cores of each agent's job.")]
Memory = Annotated[float | None, typer.Option(help="GB of memory of each agent's job.")]
Time = Annotated[
    str | None,
    typer.Option("--time", help="Limit of a job, as Slurm writes it; it queues itself again."),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option("--sbatch", metavar="KEY=VALUE", help="Further options: partition=gpu, account=lab, ..."),
]


@app.command("launch")
def launch_command(
    spec: Annotated[str, typer.Argument(help="A sweep file, or a shipped one: paper.yaml, gating.yaml, ...")],
    backend: Annotated[str, typer.Option(help="auto, local or wandb: who hands out the cells")] = "auto",
    agents: AgentCount = None,
    per_device: PerDevice = 1,
    timeout: Timeout = None,
    storage: Storage = None,
    name: Annotated[str | None, typer.Option(help="What to call the sweep; default: as its file says.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials and start nothing.")] = False,
    assignments: Set = None,
    on: On = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    memory: Memory = None,
    time_limit: Time = None,
    sbatch: Sbatch = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every cell of a sweep that is not finished yet."""
    from moe.config import parse_assignments
    from sweeps import launching

    overrides = parse_assignments(assignments or [], "--set: ")
    if dry_run:
        _print_plan(spec, overrides, name, backend, storage, (agents, per_device), as_json)
        return
    jobs = _jobs(on, agents, gpus, cpus, memory, time_limit, sbatch)
    if jobs:
        sweep = launching.register(spec, overrides, backend=backend, storage=storage, name=name, reporter=_notes())
        _print_jobs(sweep.name, launching.submit(sweep, *jobs, _notes(), minutes=timeout), as_json)
        return
    _watched(
        lambda reporter: launching.launch(
            spec, overrides, backend=backend, storage=storage, name=name, agents=agents, per_device=per_device,
            minutes=timeout, reporter=reporter,
        ),
        quiet=quiet, as_json=as_json,
    )  # fmt: skip


def _jobs(
    on: str | None,
    agents: int | None,
    gpus: int | None,
    cpus: int | None,
    memory: float | None,
    time_limit: str | None,
    sbatch: list[str] | None,
) -> "tuple[Resources, Where] | None":
    """What each agent needs, and where to submit it; None to run agents here."""
    if on is None:
        if any(option is not None for option in (gpus, cpus, memory, time_limit, sbatch)):
            raise UserError("--gpus, --cpus, --memory, --time and --sbatch are for jobs; add --on slurm")
        return None
    from sweeps.agents import cluster

    limit = None if time_limit is None else cluster.minutes(time_limit)
    extra = cluster.extra_options(sbatch or [])
    resources = cluster.Resources(agents or 1, gpus, cpus, memory, limit, extra=extra)
    resources.check()
    return resources, cluster.check_where(on)


def _notes() -> "Reporter":
    """Prints what happens once."""
    from sweeps.views.live import Screen

    return Screen(err, quiet=True)


def _watched(work: "Callable[[Reporter], SweepStatus]", *, quiet: bool, as_json: bool) -> None:
    """Show a launch while it goes on, and how the sweep stands in the end; exit code 1 if it is not finished."""
    from sweeps.launching import InterruptedLaunchError
    from sweeps.views.live import Screen

    def interrupt(_number: int) -> None:
        raise KeyboardInterrupt

    try:
        with handling(interrupt, signal.SIGTERM, signal.SIGHUP), Screen(err, quiet=quiet or as_json) as screen:
            now = work(screen)
    except InterruptedLaunchError as interrupted:
        now = interrupted.status
    _print_status(now, as_json)
    if left := now.unfinished:
        running = now.count("running")
        elsewhere = f", {running} of them at work elsewhere" if running else ""
        err.print(
            f"{len(left)} of {len(now.cells)} not finished{elsewhere}; `moe sweep resume {quote(now.name)}` goes on"
        )
        raise typer.Exit(FAILURE)
    if not as_json:
        name = quote(now.name)
        out.print(f"next: moe probe --sweep {name}; moe report {name} --html report.html; moe compare {name}")


def _print_jobs(name: str, submitted: "Iterable[Submitted]", as_json: bool) -> None:
    if as_json:
        print_json({"sweep": name, "jobs": [{"id": job.id, "log": str(job.log)} for job in submitted]})
        return
    for job in submitted:
        out.print(f"job {job.id} submitted; it prints to {job.log}")
    out.print(f"next: moe sweep status {quote(name)}; moe sweep stop {quote(name)}")


def _print_plan(
    spec: str,
    overrides: dict[str, Any],
    name: str | None,
    backend: str,
    storage: str | None,
    crew: tuple[int | None, int],
    as_json: bool,
) -> None:
    """What a launch would do, and how long it would take."""
    from sweeps import launching
    from sweeps.agents.crew import Crew
    from sweeps.plan.collapse import collapsed
    from sweeps.queue.launched import LOCAL
    from sweeps.queue.opening import AUTO, QUEUES, check_storage, choose_queue
    from sweeps.runs.store import RunStore
    from sweeps.views.forecast import forecast
    from sweeps.views.preview import preview

    sweep, cells = launching.plan(spec, overrides, name)
    queue, _ = choose_queue(LOCAL if backend == AUTO else backend, sweep)  # a plan asks no server, unless it is named
    check_storage(queue, sweep.name, storage)
    launching.check_suitable(sweep, cells)
    for line in (launching.growth(sweep, cells, storage), collapsed(sweep, cells)):
        if line:
            err.print(line)
    rows = preview(sweep, cells, storage, QUEUES[queue].draws(sweep))
    size = max((cell.config.machine.devices for cell in cells), default=1)
    missing = [(row["config"], row["epochs_left"]) for row in rows if row["state"] != "finished"]
    outlook = forecast(RunStore(), missing, len(Crew(*crew, size=size).devices()))
    if as_json:
        print_json({"sweep": sweep.name, "trials": rows, "forecast": vars(outlook)})
        return
    kinds = [row["kind"] for row in rows]
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    out.print(f"sweep {sweep.name}: {counted(len(rows), 'trial')}, {found}")  # a title is wrapped to the table's width
    table = Table()
    for column in ("run", *sweep.swept, "state"):
        table.add_column(column)
    for row in rows[:_ROWS]:
        values = (str(row["values"].get(path, "to be found")) for path in sweep.swept)
        table.add_row(row["run_id"], *values, row["kind"])
    print_table(table)
    if len(rows) > _ROWS:
        out.print(f"... and {len(rows) - _ROWS:,} more; --json lists all")
    out.print(outlook.sentence())


def _print_status(now: "SweepStatus", as_json: bool) -> None:
    from sweeps.views.live import table

    if as_json:
        print_json(now.as_json())
        return
    print_table(table(now))
    if stopped := sum(cell.ending is Ending.STOPPED for cell in now.cells):
        again = f"`moe sweep retry {quote(now.name)} --stopped` goes on with them"
        out.print(f"{stopped} of {len(now.cells)} stopped by you in W&B; {again}")
    for cell in now.cells:
        if cell.state == "failed":
            out.print(f"\n{cell.run.id} failed: {cell.error}")
            if cell.note:
                out.print("\n".join(f"    {line}" for line in cell.note.splitlines()))


@app.command("agent")
def agent_command(
    sweep: SweepName,
    storage: Storage = None,
    device: Annotated[str, typer.Option(help='GPUs by number, such as 0 or 0,1; or "cpu".')] = "",
    slots: Annotated[int, typer.Option(min=1, max=_MOST, help="Runs that share the device.")] = 1,
    places: Annotated[
        int | None, typer.Option(min=1, max=_MOST, hidden=True, help="The former name of --slots.")
    ] = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
    left_over: Annotated[bool, typer.Option("--left-over", hidden=True)] = False,
) -> None:
    """Join a launched sweep, from this or another machine: run waiting trials until none is left."""
    from sweeps.agents.agent import Limits, work
    from sweeps.agents.devices import CPU, Device, visible
    from sweeps.agents.worker import follow_stdin
    from sweeps.queue.opening import open_sweep

    if os.environ.pop("MOE_FOLLOW_STDIN", ""):
        follow_stdin()
    held = Device(device or ",".join(visible()[:1]) or CPU, places or slots)
    say = (lambda _line: None) if quiet else out.print
    work(open_sweep(sweep, storage), held, say, Limits(timeout), left_over=left_over)


@app.command("status")
def status_command(sweep: SweepName, storage: Storage = None, as_json: Json = False) -> None:
    """Show every trial: waiting, running, finished or failed."""
    from sweeps.agents import cluster_status
    from sweeps.queue.opening import open_sweep
    from sweeps.queue.status import status

    launched = open_sweep(sweep, storage)
    _print_status(status(launched), as_json)
    if not as_json:
        for job in cluster_status.status(launched.name, launched.root):
            if job.unfinished:
                out.print(f"job {job.id} on {job.on}: {job.state} {job.reason}".rstrip())


@app.command("resume")
def resume_command(
    sweep: SweepName,
    agents: AgentCount = None,
    per_device: PerDevice = 1,
    timeout: Timeout = None,
    storage: Storage = None,
    on: On = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    memory: Memory = None,
    time_limit: Time = None,
    sbatch: Sbatch = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Finish what is missing: interrupted trials from their last checkpoint, failed ones anew."""
    from sweeps import launching
    from sweeps.queue.opening import open_sweep

    jobs = _jobs(on, agents, gpus, cpus, memory, time_limit, sbatch)
    if jobs:
        launched = open_sweep(sweep, storage)
        _print_jobs(launched.name, launching.submit(launched, *jobs, _notes(), minutes=timeout), as_json)
    else:
        _resume(sweep, storage, (agents, per_device, timeout), as_json, quiet)


@app.command("retry")
def retry_command(
    sweep: SweepName,
    failed: Annotated[bool, typer.Option("--failed", help="Every trial that failed.")] = False,
    stopped: Annotated[bool, typer.Option("--stopped", help="Every run that you stopped in W&B.")] = False,
    agents: AgentCount = None,
    per_device: PerDevice = 1,
    timeout: Timeout = None,
    storage: Storage = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Let trials wait again that failed or that you stopped, from their last checkpoint, and run them."""
    if not (failed or stopped):
        raise UserError("say what to retry: moe sweep retry SWEEP --failed, or --stopped")
    _resume(sweep, storage, (agents, per_device, timeout), as_json, quiet, stopped=stopped)


def _resume(
    name: str,
    storage: str | None,
    crew: tuple[int | None, int, float | None],
    as_json: bool,
    quiet: bool,
    *,
    stopped: bool = False,
) -> None:
    from sweeps import launching

    agents, per_device, minutes = crew
    _watched(
        lambda reporter: launching.resume(
            name, storage=storage, agents=agents, per_device=per_device, minutes=minutes, stopped=stopped,
            reporter=reporter,
        ),
        quiet=quiet, as_json=as_json,
    )  # fmt: skip


@app.command("stop")
def stop_command(sweep: SweepName, storage: Storage = None) -> None:
    """Let running trials write a checkpoint and end; `moe sweep resume` goes on."""
    from sweeps import launching

    for job in launching.stop(sweep, storage=storage):
        out.print(f"job {job} was taken back before it began")
    out.print(f"sweep {sweep}: running trials checkpoint and end; `moe sweep resume {quote(sweep)}` goes on")


@app.command("dashboard")
def dashboard_command(sweep: SweepName, storage: Storage = None, as_json: Json = False) -> None:
    """Lay out the sweep in the W&B dashboard: a workspace and a report."""
    from sweeps.queue.opening import open_sweep
    from sweeps.views import dashboard

    saved = dashboard.save(open_sweep(sweep, storage))
    if as_json:
        print_json({"sweep": sweep, **saved})
    for what, address in () if as_json else saved.items():
        out.print(f"{what}: {address}")


@app.command("ls")
def list_command(as_json: Json = False) -> None:
    """List the sweeps launched on this machine and how they stand."""
    from sweeps.views.listing import sweeps

    rows = sweeps()
    if as_json:
        print_json({"sweeps": rows})
        return
    states = ("finished", "running", "waiting", "failed")
    table = Table("sweep", "trials", *states, "swept", "queue")
    for row in rows:
        counts = [str(row[state] or "") for state in states]
        known = "problem" not in row
        table.add_row(row["sweep"], str(row["trials"] if known else "?"), *counts, " ".join(row["swept"]), row["queue"])
    print_table(table)
    for row in rows:
        if "problem" in row:
            err.print(f"{row['sweep']}: {row['problem']}")


@app.command("files")
def files_command(
    show: Annotated[str | None, typer.Option("--show", metavar="NAME", help="Print this one.")] = None,
    as_json: Json = False,
) -> None:
    """List the sweep files that come with moe, or print one to change."""
    from sweeps.plan.source import about, shipped, shipped_text

    if show is not None:
        text = shipped_text(show)
        if as_json:
            print_json({"name": show, "text": text})
        else:
            out.print(text, end="")
        return
    files = {name: about(shipped_text(name)) for name in shipped()}
    if as_json:
        print_json({"files": [{"name": name, "about": line} for name, line in files.items()]})
        return
    for name, line in files.items():
        out.print(f"{name}: {line}")
