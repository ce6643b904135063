"""Agents as jobs: submitted through submitit to Slurm, or by the same path to this machine.

MOE_HOME/sweeps/<name>/jobs/<n>/    one submission: what was asked for (jobs.json), submitit's files, the jobs' logs
"""

import contextlib
import io
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from moe.errors import UserError, unknown
from sweeps.agents.cluster_job import AgentJob
from sweeps.runs.files import write_json
from sweeps.runs.folders import SweepFolder
from sweeps.runs.state import now

Where = Literal["slurm", "local"]

SIGNAL_SECONDS = 120  # before the time limit: longer than an agent takes to hand back its trial
SHORTEST = 5  # minutes: Slurm may send that signal a minute early
USUAL_MINUTES = 240
_ENDLESS = 365 * 24 * 60
_REQUEUES = 1000  # submitit counts time limits; what ends a sweep is that nothing waits in its queue
_RESERVED = {"array", "error", "open-mode", "output", "signal"}
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
_OF_THE_SITE = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class Resources:
    """What the job of each agent asks for. None leaves it to the cluster.

    Attributes:
        agents: jobs; each is one agent, which runs trial after trial.
        gpus: per agent. None: none from Slurm; on this machine those that are visible.
        cpus: processor cores per agent.
        memory_gb: per agent.
        minutes: time limit of a job, which queues itself again when it comes near. None: USUAL_MINUTES on Slurm, no
            limit on this machine.
        partition: as for `sbatch`, like all that follow.
        account: who pays.
        qos: quality of service.
        constraint: features that the node must have.
        extra: further options of `sbatch` without the dashes; True for one without a value.
    """

    agents: int = 1
    gpus: int | None = None
    cpus: int | None = None
    memory_gb: float | None = None
    minutes: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    extra: Mapping[str, str | bool] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UserError: a value that no scheduler could grant, or an option that is ours to set.
        """
        for name in ("agents", "cpus", "memory_gb"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be positive, not {value:g}")
        if self.gpus is not None and self.gpus < 0:
            raise UserError(f"gpus must not be negative, not {self.gpus}")
        if self.minutes is not None and self.minutes < SHORTEST:
            raise UserError(f"a time limit of {self.minutes} min leaves no time to train; give {SHORTEST} or more")
        if taken := sorted(_RESERVED & set(self.extra)):
            raise UserError(f"sbatch option {taken[0]} is set by moe itself; leave it out")

    def parameters(self, name: str) -> dict[str, Any]:
        """The same in submitit's words: those for Slurm alone begin with `slurm_`."""
        return {
            "name": name,
            "nodes": 1,
            "tasks_per_node": 1,
            "timeout_min": self.minutes or USUAL_MINUTES,
            "local_timeout_min": self.minutes or _ENDLESS,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb,
            "gpus_per_node": self.gpus or None,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "slurm_signal_delay_s": SIGNAL_SECONDS,
            "slurm_array_parallelism": self.agents,
            # since Slurm 22.05 the step inside does not inherit the number of cores
            "slurm_srun_args": None if self.cpus is None else [f"--cpus-per-task={self.cpus}"],
            "slurm_additional_parameters": {"requeue": True} | dict(self.extra),
        }


@dataclass(frozen=True)
class Submitted:
    """A job that was handed to a scheduler.

    Attributes:
        id: the scheduler's; on this machine the number of the process that looks after it.
        log: what the job prints; its errors are beside it in `.err`.
        handle: submitit's own object, which on this machine keeps the process.
    """

    id: str
    log: Path
    handle: Any = field(repr=False, compare=False)


def submit(
    sweep: str,
    root: Path,
    resources: Resources,
    on: Where,
    *,
    options: Sequence[str] = (),
    storage: str | None = None,
) -> list[Submitted]:
    """Submit agents as one array of jobs. They run until nothing waits in the sweep's queue.

    Args:
        sweep: name of a registered sweep whose cells are published.
        root: `MOE_HOME`.
        resources: what each agent needs, and how many agents.
        on: the scheduler.
        options: further words for `moe sweep agent`.
        storage: URL of the sweep's queue. It travels in the environment as `MOE_STORAGE`, never in a file.

    Raises:
        UserError: submitit or Slurm is missing, or Slurm refuses.
    """
    resources.check()
    submitit = _submitit(on)
    environments = [_local_environment(resources, n) if on == "local" else {} for n in range(resources.agents)]
    bodies = [AgentJob(sweep, str(root.absolute()), tuple(options), changes) for changes in environments]
    folder = _new_folder(SweepFolder(root.absolute(), sweep).jobs)
    try:
        with _environment(storage), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            jobs = _executor(submitit, folder, resources.parameters(f"moe-{sweep}"), on).submit_array(bodies)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        shutil.rmtree(folder)
        raise UserError(f"sbatch refuses: {_plain(str(error))}") from None
    record = {"on": on, "ids": [job.job_id for job in jobs], "submitted": now(), "resources": asdict(resources)}
    write_json(SweepFolder.submission(folder), record)
    return [Submitted(job.job_id, Path(job.paths.stdout), job) for job in jobs]


def minutes(text: str) -> int:
    """A time limit as Slurm writes it: `90`, `2:30:00`, `1-12`, `1-12:00`; seconds are rounded up.

    Raises:
        UserError: it is not written so.
    """
    match = _TIME.fullmatch(text.strip())
    if not match:
        raise UserError(f'a time limit looks like 90 (minutes), 2:30:00 or 1-12 (days-hours), not "{text}"')
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"]:
        hours, mins, secs = (*parts, 0, 0)[:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, mins, secs = parts
    else:
        hours, mins, secs = (0, *parts, 0)[:3]
    return 60 * hours + mins + (secs > 0)


def extra_options(words: Sequence[str]) -> dict[str, str | bool]:
    """Options of `sbatch` given as KEY=VALUE, or KEY alone for one without a value."""
    pairs = (word.removeprefix("--").partition("=") for word in words)
    return {key: value if equals else True for key, equals, value in pairs}


def check_where(name: str) -> Where:
    """The scheduler of this name.

    Raises:
        UserError: there is none.
    """
    if name not in get_args(Where):
        raise unknown("scheduler", name, get_args(Where))
    return cast("Where", name)


# --- submission -----------------------------------------------------------------------------------------------------


def _submitit(on: Where) -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError(f'--on {on} needs submitit: pip install "moe-experts[slurm]"') from None
    if on == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UserError("no sbatch on this machine: launch from a login node of the cluster, or use --on local")
    return submitit


def _executor(submitit: Any, folder: Path, parameters: Mapping[str, Any], on: Where) -> Any:
    python = f"{shlex.quote(sys.executable)} -P"  # the folder that a job starts in is not searched for modules
    executor = submitit.AutoExecutor(
        folder, cluster=on, slurm_python=python, local_python=python,
        slurm_max_num_timeout=_REQUEUES, local_max_num_timeout=_REQUEUES,
    )  # fmt: skip
    executor.update_parameters(**parameters)
    return executor


def _local_environment(resources: Resources, number: int) -> dict[str, str | None]:
    """What Slurm would have done: cores and GPUs of its own for each agent."""
    result: dict[str, str | None] = {"CUDA_VISIBLE_DEVICES": _gpus(resources, number)}
    if resources.cpus or (resources.agents > 1 and "OMP_NUM_THREADS" not in os.environ):
        result["OMP_NUM_THREADS"] = str(resources.cpus or max(1, (os.cpu_count() or 1) // resources.agents))
    return result


def _gpus(resources: Resources, number: int) -> str | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if resources.gpus is None:
        return visible
    if resources.gpus == 0:
        return ""
    from torch.cuda import device_count

    names = visible.split(",") if visible else [str(gpu) for gpu in range(device_count())]
    if resources.agents * resources.gpus > len(names):
        raise UserError(
            f"{resources.agents} agents with {resources.gpus} GPUs each need {resources.agents * resources.gpus}; "
            f"this machine shows {len(names)}"
        )
    return ",".join(names[number * resources.gpus : (number + 1) * resources.gpus])


@contextlib.contextmanager
def _environment(storage: str | None) -> Iterator[None]:
    """What jobs inherit: the queue's address, and not the job in which we may run ourselves."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_OF_A_JOB) and name not in _OF_THE_SITE:
            del os.environ[name]
    if storage is not None:
        os.environ["MOE_STORAGE"] = storage
    try:
        yield
    finally:
        os.environ.pop("MOE_STORAGE", None)
        os.environ.update(before)


def _plain(text: str) -> str:
    """What sbatch says went wrong, on one line."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line) or "it does not say why"


def _new_folder(jobs: Path) -> Path:
    jobs.mkdir(parents=True, exist_ok=True)
    number = max((int(folder.name) for folder in jobs.iterdir() if folder.name.isdigit()), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            (jobs / str(number)).mkdir()
            return jobs / str(number)
