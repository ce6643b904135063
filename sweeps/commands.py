"""`moe sweep ...`: many runs. No logic of its own; heavy imports happen inside the commands."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from moe.errors import UserError
from sweeps.console import Json, Set, Storage, SweepName, err, out, print_json
from sweeps.runs.exit_codes import FAILURE

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.agents.cluster import Resources, Where
    from sweeps.agents.crew import Agents, Crew
    from sweeps.agents.devices import Device
    from sweeps.launching import LaunchedSweep, Trial
    from sweeps.queue.protocol import SweepBackend
    from sweeps.queue.server import Remote

_ROWS = 200  # of a plan, printed

app = typer.Typer(help="Many runs: launch, watch, resume.", no_args_is_help=True)

AgentCount = Annotated[
    int | None, typer.Option("--agents", min=1, help="Trials that run at the same time; default: one a GPU, else 1.")
]
PerDevice = Annotated[int, typer.Option(min=1, help="Runs that share one GPU.")]
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
    from sweeps.agents.crew import Crew

    sweep, cells = launching.plan(spec, parse_assignments(assignments or [], "--set: "))
    size = max((cell.config.machine.devices for cell in cells), default=1)
    crew = Crew(agents, per_device, timeout, size)
    chosen, why = launching.choose_backend("local" if dry_run and backend == "auto" else backend, sweep)
    if dry_run:
        _print_plan(launching.preview(sweep, cells, storage=storage), sweep.name, list(sweep.swept), crew, as_json)
        return
    from moe.data.datasets import check_available

    for data in {cell.config.data for cell in cells} or {launching.fixed_data(sweep)}:
        check_available(data)
    jobs = _jobs(on, agents, gpus, cpus, memory, time_limit, sbatch)
    launched = launching.register(sweep, cells, chosen, storage)
    err.print(f"backend {chosen}: {why}")
    if jobs:
        _submit(launched, *jobs, timeout, as_json)
    else:
        _run(launched, crew, as_json, quiet)


def _jobs(
    on: str | None,
    agents: int | None,
    gpus: int | None,
    cpus: int | None,
    memory: float | None,
    time_limit: str | None,
    sbatch: list[str] | None,
) -> "tuple[Where, Resources] | None":
    """Where to submit agents, and what each needs; None to run them here."""
    if on is None:
        if any(option is not None for option in (gpus, cpus, memory, time_limit, sbatch)):
            raise UserError("--gpus, --cpus, --memory, --time and --sbatch are for jobs; add --on slurm")
        return None
    from sweeps.agents import cluster

    limit = None if time_limit is None else cluster.minutes(time_limit)
    extra = cluster.extra_options(sbatch or [])
    resources = cluster.Resources(agents or 1, gpus, cpus, memory, limit, extra=extra)
    resources.check()
    return cluster.check_where(on), resources


def _submit(sweep: "LaunchedSweep", on: "Where", resources: "Resources", timeout: float | None, as_json: bool) -> None:
    from sweeps.agents import cluster

    backend = sweep.backend()
    unfinished = _publish(sweep, backend, failed=True)
    backend.close()
    submitted = []
    if unfinished:
        options = [] if timeout is None else ["--timeout", str(timeout)]
        submitted = cluster.submit(
            sweep.name, sweep.root, resources, on, options=options, storage=sweep.storage
        )  # fmt: skip
    if as_json:
        print_json({"sweep": sweep.name, "jobs": [{"id": job.id, "log": str(job.log)} for job in submitted]})
        return
    for job in submitted:
        out.print(f"job {job.id} submitted; it prints to {job.log}")
    out.print(f"next: moe sweep status {sweep.name}; moe sweep stop {sweep.name}")


def _publish(sweep: "LaunchedSweep", backend: "SweepBackend", *, failed: bool) -> int:
    """Bring the queue up to date; returns the number of cells that are not finished."""
    from sweeps.queue import server

    backend.request_stop(stop=False)
    if sweep.remote:
        server.resume(sweep.remote)
    else:
        backend.publish(sweep.jobs)
        backend.recover(failed=failed)
        sweep.requeue_missing(backend)
        sweep.link_finished(backend)
    trials = sweep.trials(backend)
    done = sum(trial.state == "finished" for trial in trials)
    err.print(f"sweep {sweep.name}: {done} of {len(trials)} already finished")
    return len(trials) - done


def _print_plan(trials: list[dict[str, Any]], name: str, swept: list[str], crew: "Crew", as_json: bool) -> None:
    from sweeps.runs.store import RunStore
    from sweeps.views import forecast

    missing = [(trial["config"], trial["epochs_left"]) for trial in trials if trial["state"] != "finished"]
    outlook = forecast.forecast(RunStore(), missing, len(crew.devices()))
    if as_json:
        print_json({"sweep": name, "trials": trials, "forecast": vars(outlook)})
        return
    kinds = [trial["kind"] for trial in trials]
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    table = Table(title=f"sweep {name}: {len(trials)} trials, {found}", title_justify="left")
    for column in ("run", *swept, "state"):
        table.add_column(column)
    for trial in trials[:_ROWS]:
        table.add_row(
            trial["run_id"], *(str(trial["values"].get(path, "to be found")) for path in swept), trial["kind"]
        )
    out.print(table)
    if len(trials) > _ROWS:
        out.print(f"... and {len(trials) - _ROWS:,} more; --json lists all")
    out.print(outlook.sentence())


def _run(sweep: "LaunchedSweep", crew: "Crew", as_json: bool, quiet: bool, failed: bool = False) -> None:
    from sweeps.agents.crew import Agents
    from sweeps.tracking.connection import connection

    backend = sweep.backend()
    unfinished = _publish(sweep, backend, failed=failed)
    console, going = None if quiet or as_json else err, True
    if unfinished:
        wandb = connection()
        agents = Agents(sweep, crew, unfinished)
        places = ", ".join(sorted({device.name for device in agents.devices}))
        plural = "s" if len(agents.devices) > 1 else ""
        who = f"W&B sweep {sweep.remote}" if sweep.remote else "queue"
        err.print(f"{who}, {len(agents.devices)} agent{plural} on {places}; W&B {wandb.mode}: {wandb.why}")
        going = _watched(sweep, backend, agents, console)
    left = sweep.left_over(backend) if going and failed else []
    if left:
        err.print(f"{len(left)} cells that the W&B server counts as done are not; they are run now")
        _watched(sweep, backend, Agents(sweep, crew, len(left), left_over=True), console)
    _report(sweep, backend, as_json)


def _watched(sweep: "LaunchedSweep", backend: "SweepBackend", agents: "Agents", console: "Console | None") -> bool:
    """Look after agents until they end; False if they were stopped."""
    from sweeps.views.live import watch

    try:
        watch(sweep, backend, agents, console)
    except KeyboardInterrupt:
        err.print("stopping: running trials write a checkpoint and end")
        return False
    finally:
        agents.stop()
    return not backend.stop_requested()


def _report(sweep: "LaunchedSweep", backend: "SweepBackend", as_json: bool) -> None:
    trials = sweep.trials(backend)
    backend.close()
    _print_status(sweep, trials, as_json)
    unfinished = [trial for trial in trials if trial.state != "finished"]
    if unfinished:
        running = sum(trial.state == "running" for trial in unfinished)
        elsewhere = f", {running} of them at work elsewhere" if running else ""
        err.print(
            f"{len(unfinished)} of {len(trials)} not finished{elsewhere}; `moe sweep resume {sweep.name}` goes on"
        )
        raise typer.Exit(FAILURE)
    if not as_json:
        out.print(f"next: moe probe --sweep {sweep.name}; moe compare {sweep.name}")


def _print_status(sweep: "LaunchedSweep", trials: "list[Trial]", as_json: bool) -> None:
    from sweeps.views.live import table

    if as_json:
        print_json({"sweep": sweep.name, "trials": [_trial_json(trial) for trial in trials]})
        return
    out.print(table(sweep, trials))
    for trial in trials:
        if trial.state == "failed":
            out.print(f"\n{trial.run.id} failed: {trial.error}", markup=False)
            if trial.note:
                out.print("\n".join(f"    {line}" for line in trial.note.splitlines()), markup=False)


def _trial_json(trial: "Trial") -> dict[str, Any]:
    from sweeps.runs.files import read_json

    return {
        "run_id": trial.run.id,
        "config": read_json(trial.run.config_file) or trial.job.values,
        "values": trial.job.values,
        "state": trial.state,
        "attempts": trial.attempts,
        "error": trial.error,
        "note": trial.note,
        "where": trial.where,
    }


@app.command("agent")
def agent_command(
    sweep: SweepName,
    storage: Storage = None,
    device: Annotated[str, typer.Option(help='GPUs by number, such as 0 or 0,1; or "cpu".')] = "",
    places: Annotated[int, typer.Option(min=1, help="Runs that share the device.")] = 1,
    timeout: Timeout = None,
    quiet: Quiet = False,
    left_over: Annotated[bool, typer.Option("--left-over", hidden=True)] = False,
) -> None:
    """Join a launched sweep, from this or another machine: run waiting trials until none is left."""
    from sweeps.agents.agent import Agent, Limits
    from sweeps.agents.devices import CPU, Device, visible
    from sweeps.agents.worker import follow_stdin
    from sweeps.launching import open_sweep

    if os.environ.pop("MOE_FOLLOW_STDIN", ""):
        follow_stdin()
    place = Device(device or ",".join(visible()[:1]) or CPU, places)
    launched = open_sweep(sweep, storage)
    if launched.remote and not left_over:
        _serve(launched, launched.remote, place)
        return
    agent = Agent(launched, (lambda _line: None) if quiet else out.print, place, Limits(timeout))
    if agent.backend.stop_requested():
        raise UserError(f"sweep {sweep} was told to stop; `moe sweep resume {sweep}` withdraws that and goes on")
    finished = agent.run()
    if not quiet:
        out.print(f"nothing waits any more; this agent finished {finished}")


def _serve(sweep: "LaunchedSweep", remote: "Remote", place: "Device") -> None:
    """Work for a W&B sweep until its server has nothing more to hand out."""
    from sweeps.agents.server_agent import serve

    backend = sweep.backend()
    code = serve(remote, sweep.name, sweep.root, place.environment(), backend.stop_requested)
    backend.close()
    if code:
        raise typer.Exit(FAILURE)


@app.command("status")
def status_command(sweep: SweepName, storage: Storage = None, as_json: Json = False) -> None:
    """Show every trial: waiting, running, finished or failed."""
    from sweeps.launching import open_sweep

    launched = open_sweep(sweep, storage)
    backend = launched.backend()
    trials = launched.trials(backend)
    backend.close()
    _print_status(launched, trials, as_json)
    if not as_json:
        from sweeps.agents import cluster_status

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
    jobs = _jobs(on, agents, gpus, cpus, memory, time_limit, sbatch)
    if jobs:
        from sweeps.launching import open_sweep

        _submit(open_sweep(sweep, storage), *jobs, timeout, as_json)
    else:
        _again(sweep, storage, (agents, per_device, timeout), as_json, quiet)


@app.command("retry")
def retry_command(
    sweep: SweepName,
    failed: Annotated[bool, typer.Option("--failed", help="Every trial that failed.")] = False,
    agents: AgentCount = None,
    per_device: PerDevice = 1,
    timeout: Timeout = None,
    storage: Storage = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Let failed trials wait again, from their last checkpoint, and run them."""
    if not failed:
        raise UserError("say what to retry: moe sweep retry SWEEP --failed")
    _again(sweep, storage, (agents, per_device, timeout), as_json, quiet)


def _again(
    name: str, storage: str | None, crew: tuple[int | None, int, float | None], as_json: bool, quiet: bool
) -> None:
    from sweeps.agents.crew import Crew
    from sweeps.launching import open_sweep

    sweep = open_sweep(name, storage)
    size = max(int(job.values.get("machine.devices", 1)) for job in sweep.jobs)
    _run(sweep, Crew(*crew, size), as_json, quiet, failed=True)


@app.command("stop")
def stop_command(sweep: SweepName, storage: Storage = None) -> None:
    """Let running trials write a checkpoint and end; `moe sweep resume` goes on."""
    from sweeps.agents import cluster_status
    from sweeps.launching import open_sweep
    from sweeps.queue import server

    launched = open_sweep(sweep, storage)
    backend = launched.backend()
    backend.request_stop(stop=True)
    backend.close()
    if launched.remote:
        server.pause(launched.remote)
    for job in cluster_status.cancel(launched.name, launched.root):
        out.print(f"job {job} was taken back before it began")
    out.print(f"sweep {sweep}: running trials checkpoint and end; `moe sweep resume {sweep}` goes on")


@app.command("dashboard")
def dashboard_command(sweep: SweepName, storage: Storage = None, as_json: Json = False) -> None:
    """Lay out the sweep in the W&B dashboard: a workspace and a report."""
    from sweeps.launching import open_sweep
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
        table.add_row(row["sweep"], str(row["trials"]), *counts, " ".join(row["swept"]), row["queue"])
    out.print(table)
