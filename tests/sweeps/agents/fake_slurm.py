"""A pretended Slurm: sbatch, srun, scontrol, squeue, scancel and sacct, which run jobs on this machine at once.

It does what the real one does to a job: a signal reaches every process of the step but not the batch shell, a requeued
or cancelled job gets SIGTERM and later SIGKILL, and a requeued one starts anew under the same number. Run as a script
it is each of the commands; `installed` puts them on the PATH.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "squeue", "scancel", "sacct")
KILL_WAIT = 30.0
POLL = 0.02


@contextlib.contextmanager
def installed(folder):
    """Variables that make the pretended commands the ones that are found; at the end every job is ended."""
    (folder / "bin").mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(__file__)} {name} "$@"\n')
        command.chmod(0o755)
    try:
        yield {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(folder / "jobs")}
    finally:
        _end_all(folder / "jobs")


def _end_all(jobs):
    for file in jobs.glob("*.json"):
        file.with_suffix(".cancel").touch()
    end = time.monotonic() + KILL_WAIT + 5
    for file in jobs.glob("*.json"):
        while json.loads(file.read_text())["state"] in {"PENDING", "RUNNING"} and time.monotonic() < end:
            time.sleep(POLL)


def _jobs():
    return Path(os.environ["FAKE_SLURM"])


def _read(job):
    return json.loads((_jobs() / f"{job}.json").read_text())


def _write(job, **values):
    partial = _jobs() / f"{job}.partial"
    partial.write_text(json.dumps(values))
    partial.replace(_jobs() / f"{job}.json")


def _named(pattern, job):
    array, _, task = job.partition("_")
    return pattern.replace("%A", array).replace("%a", task).replace("%j", array).replace("%t", "0")


def _options(script):
    lines = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    return {key: "".join(shlex.split(value)) for key, _, value in (line.partition("=") for line in lines)}


def sbatch(script):
    options = _options(Path(script))
    if options.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere\nsbatch: error: Batch job submission failed")
    first = max((int(file.stem.partition("_")[0]) for file in _jobs().glob("*.json")), default=0) + 1
    text = _jobs() / f"{first}.sh"
    text.write_text(Path(script).read_text())
    last = int(options["array"].split("%")[0].split("-")[1]) if "array" in options else None
    for job in [str(first)] if last is None else [f"{first}_{task}" for task in range(last + 1)]:
        _write(job, state="PENDING", restarts=0, script=str(text))
        subprocess.Popen(
            [sys.executable, "-S", __file__, "run", job],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    sys.stdout.write(f"Submitted batch job {first}\n")


def run(job):
    """Look after one job until it is over."""
    restarts = 0
    while True:
        batch = _start(job, restarts)
        _write(job, state="RUNNING", restarts=restarts, script=_read(job)["script"], pid=batch.pid)
        _attend(job, batch)
        cancelled, again = _jobs() / f"{job}.cancel", _jobs() / f"{job}.requeue"
        if cancelled.exists() or not again.exists():
            break
        again.unlink()
        restarts += 1
        _write(job, **_read(job) | {"state": "PENDING", "restarts": restarts})
    state = "CANCELLED" if cancelled.exists() else "FAILED" if batch.returncode else "COMPLETED"
    _write(job, **_read(job) | {"state": state})


def _start(job, restarts):
    script = Path(_read(job)["script"])
    options = _options(script)
    array, _, task = job.partition("_")
    environment = os.environ | {
        "SLURM_JOB_ID": array,
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_CPUS_ON_NODE": options.get("cpus-per-task", "1"),
    }
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
    if restarts:
        environment["SLURM_RESTART_COUNT"] = str(restarts)
    with open(_named(options["output"], job), "ab") as out, open(_named(options["error"], job), "ab") as err:  # noqa: PTH123
        return subprocess.Popen(
            ["bash", str(script)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )


def _attend(job, batch):
    doomed = None
    while batch.poll() is None:
        time.sleep(POLL)
        if doomed is None and any((_jobs() / f"{job}.{mark}").exists() for mark in ("cancel", "requeue")):
            doomed = time.monotonic()
            _signal(batch.pid, signal.SIGCONT)
            _signal(batch.pid, signal.SIGTERM)
        if doomed is not None and time.monotonic() - doomed > KILL_WAIT:
            _signal(batch.pid, signal.SIGKILL)
            batch.kill()
    batch.wait()


def _signal(batch, number):
    """To every process of the step: those below srun, which itself stays."""
    for process in below(batch):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def below(process):
    """Every process that it started, or they did."""
    children = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{process}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    return [each for child in children for each in (child, *below(child))]


def srun(*words):
    words = list(words)
    job = os.environ["SLURM_JOB_ID"]
    job += f"_{os.environ['SLURM_ARRAY_TASK_ID']}" if "SLURM_ARRAY_TASK_ID" in os.environ else ""
    redirected = {"--output": 1, "--error": 2}
    while words[0].startswith("--"):
        option = words.pop(0)
        if option in redirected:
            file = os.open(_named(words.pop(0), job), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(file, redirected[option])
    os.execvp(words[0], words)  # noqa: S606


def scontrol(verb, job):
    if verb != "requeue" or _read(job)["state"] != "RUNNING" or "requeue" not in _options(Path(_read(job)["script"])):
        sys.exit("Requested operation is presently disabled")
    (_jobs() / f"{job}.requeue").touch()


def scancel(*words):
    number = next((word.partition("=")[2] for word in words if word.startswith("--signal=")), None)
    state = next((word.partition("=")[2] for word in words if word.startswith("--state=")), None)
    for job in (word for word in words if not word.startswith("--")):
        known = _read(job)
        if state and known["state"] != state:
            continue
        if number:
            _signal(known["pid"], signal.Signals[f"SIG{number}"])
        else:
            (_jobs() / f"{job}.cancel").touch()


def squeue(*words):
    wanted = next((word.partition("=")[2] for word in words if word.startswith("--jobs=")), None)
    form = next(word.partition("=")[2] for word in words if word.startswith("--format="))
    for file in sorted(_jobs().glob("*.json")):
        state = _read(file.stem)["state"]
        if state == "RUNNING" and (file.with_suffix(".cancel").exists() or file.with_suffix(".requeue").exists()):
            state = "COMPLETING"
        if wanted in (None, file.stem):
            sys.stdout.write(form.replace("%i", file.stem).replace("%T", state).replace("%r", "None") + "\n")


def sacct(*_words):
    sys.exit("Slurm accounting storage is disabled")


if __name__ == "__main__":
    {function.__name__: function for function in (sbatch, srun, scontrol, squeue, scancel, sacct, run)}[sys.argv[1]](
        *sys.argv[2:]
    )
