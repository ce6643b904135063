"""The body of a cluster job: one agent, told in time to make room, and queued again afterwards.

Slurm signals every process of a job step, not the first alone. So the agent and its workers are started with the
preemption signal blocked (it would kill them), and the body tells the agent in the way that agents understand: SIGTERM.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeps.runs.signals import noted

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

PATIENCE = 75.0  # an agent gives its worker 60 seconds to write a checkpoint
_POLL = 0.1


class AgentFailedError(Exception):
    """The agent ended with an error of its own; the job's log says which."""


@dataclass(frozen=True)
class AgentJob:
    """What submitit keeps in a file and calls in the job. Holds no secrets: those stay in the environment.

    The agent begins by asking the sweep's queue what waits; a job that comes back to a finished sweep ends at once.

    Attributes:
        sweep: name of the sweep.
        root: `MOE_HOME`, absolute.
        options: further words for `moe sweep agent`.
        environment: variables set for the agent; None removes one.
    """

    sweep: str
    root: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)

    def __call__(self) -> int:
        """Run the agent; if told to make room, let it hand back its trial and queue this job again.

        Raises:
            AgentFailedError: the agent ended with an error of its own.
        """
        preempted = preemption_signal()
        with noted(preempted, signal.SIGTERM) as told:
            code = self._work(told)
        if preempted in told or (told and _runs_on()):
            _say(f"the agent ended with code {code}; queueing this job again")
            signal.raise_signal(preempted)  # submitit's handler: writes `checkpoint()`, requeues, ends this process
        if code and not told:
            raise AgentFailedError(f"the agent of sweep {self.sweep} ended with code {code}; see this job's log")
        return code

    def checkpoint(self) -> "DelayedSubmission":
        """What the requeued job runs: the same, because all progress is in the queue and in the runs' checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _work(self, told: list[int]) -> int:
        environment = self._environment()
        command = [sys.executable, "-P", "-m", "moe_command", "sweep", "agent", self.sweep, *self.options]
        if gpus := environment.get("CUDA_VISIBLE_DEVICES"):  # those that the job was given, for one trial at a time
            command += ["--device", gpus]
        # the agent ends when the other end of its standard input closes: with this process, however that ends
        with _blocked(preemption_signal()):
            agent = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        with agent:
            return _attend(agent, told)

    def _environment(self) -> dict[str, str]:
        result = os.environ | {"MOE_HOME": self.root, "MOE_FOLLOW_STDIN": "1", "PYTHONUNBUFFERED": "1"}
        if cores := result.get("SLURM_CPUS_ON_NODE"):
            result.setdefault("OMP_NUM_THREADS", cores)
        for name, value in self.environment.items():
            result.pop(name, None)
            if value is not None:
                result[name] = value
        return result


def preemption_signal() -> signal.Signals:
    """The signal by which submitit lets a job be told that it must make room."""
    from submitit import JobEnvironment

    return signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]


def _attend(agent: subprocess.Popen[bytes], told: list[int]) -> int:
    """Wait for the agent's end; once told to make room, ask it to end, and end it when patience runs out."""
    asked = None
    while agent.poll() is None:
        time.sleep(_POLL)
        if told and asked is None:
            asked = time.monotonic()
            _say(f"told by {signal.Signals(told[0]).name} to make room; the agent writes a checkpoint")
            agent.terminate()
        if asked is not None and time.monotonic() - asked > PATIENCE:
            agent.kill()
    return agent.returncode


def _runs_on() -> bool:
    """Whether Slurm still calls this job running: then SIGTERM announced its preemption, not `scancel` or its end."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.cluster != "slurm":
        return False
    try:
        state = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job.job_id}", "--format=%T"],
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"squeue does not answer ({error}); not queueing this job again")
        return False
    return state == "RUNNING"


def _say(line: str) -> None:
    sys.stderr.write(f"moe: {line}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _blocked(number: int) -> Iterator[None]:
    """Processes started meanwhile never see this signal; here it arrives afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
