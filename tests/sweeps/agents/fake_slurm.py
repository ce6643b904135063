"""A pretended Slurm: sbatch, srun, scontrol, squeue, scancel and sacct, which run jobs on this machine at once.

It does what the real one does to a job: a signal reaches every process of the step but not the batch shell, a requeued
or cancelled job gets SIGTERM and later SIGKILL, and a requeued one starts anew under the same number. Jobs and their
steps are started by one process, as by Slurm's daemon: what it starts of Python is forked where the rest is
(tests/forking.py). Run as a script it is each of the commands; `installed` puts them on the PATH.
"""

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "squeue", "scancel", "sacct")
KILL_WAIT = 30.0
POLL = 0.02
OF_A_SHELL = ("_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL")  # variables that a shell sets by itself


@contextlib.contextmanager
def installed(folder):
    """Variables that make the pretended commands the ones that are found; at the end every job is ended."""
    (folder / "bin").mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(__file__)} {name} "$@"\n')
        command.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "MOE_TEST_SLURM": str(folder / "jobs")}
    daemon = subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.agents.fake_slurm", "daemon"],
        env=os.environ | environment, cwd=Path(__file__).parents[3], stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with daemon:
        try:
            yield environment
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
    return Path(os.environ["MOE_TEST_SLURM"])


def _read(job):
    return json.loads((_jobs() / f"{job}.json").read_text())


def _write(name, values):
    partial = _jobs() / f"{name}.partial"
    partial.write_text(json.dumps(values))
    partial.replace(_jobs() / name)


def _note(job, **values):
    _write(f"{job}.json", _read(job) | values)


def _take(name):
    """What stands in a file, which is gone then; None if there is no such file."""
    file = _jobs() / name
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    file.unlink()
    return content


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
    job = {
        "state": "PENDING",
        "restarts": 0,
        "script": str(text),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }
    for name in [str(first)] if last is None else [f"{first}_{task}" for task in range(last + 1)]:
        _write(f"{name}.json", job)
    sys.stdout.write(f"Submitted batch job {first}\n")


def daemon():
    """Run what is submitted, until standard input closes."""
    known = set()
    while not select.select([sys.stdin], [], [], POLL)[0]:
        for job in {file.stem for file in _jobs().glob("*.json")} - known:
            known.add(job)
            threading.Thread(target=run, args=(job,), daemon=True).start()


def run(job):
    """Look after one job until it is over."""
    restarts = 0
    while True:
        batch = _start(job, restarts)
        _note(job, state="RUNNING", restarts=restarts, pid=batch.pid, step=None)
        _attend(job, batch)
        cancelled = (_jobs() / f"{job}.cancel").exists()
        if cancelled or not (_jobs() / f"{job}.requeue").exists():
            break
        (_jobs() / f"{job}.requeue").unlink()
        restarts += 1
        _note(job, state="PENDING", restarts=restarts)
    _note(job, state="CANCELLED" if cancelled else "FAILED" if batch.returncode else "COMPLETED")


def _start(job, restarts):
    known = _read(job)
    options = _options(Path(known["script"]))
    array, _, task = job.partition("_")
    environment = known["environment"] | {
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
    _take(f"{job}.step")  # of a shell that was ended over it
    words = ["bash", known["script"]]
    return _popen(job, words, environment, known["folder"], options["output"], options["error"])


def _popen(job, words, environment, folder, output, error):
    with open(_named(output, job), "ab") as out, open(_named(error, job), "ab") as err:  # noqa: PTH123
        return subprocess.Popen(
            words, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )


def _attend(job, batch):
    step = doomed = None
    while batch.poll() is None:
        time.sleep(POLL)
        if step is None and (asked := _take(f"{job}.step")):
            kept = {name: os.environ[name] for name in OF_A_SHELL if name in os.environ}
            sent = {name: value for name, value in asked.pop("environment").items() if name not in OF_A_SHELL}
            step = _popen(job, environment=sent | kept, **asked)
            _note(job, step=step.pid)
        if step is not None and step.poll() is not None:
            _note(job, step=None)
            _write(f"{job}.ended", step.returncode if step.returncode >= 0 else 128 - step.returncode)
            step = None
        if doomed is None and any((_jobs() / f"{job}.{mark}").exists() for mark in ("cancel", "requeue")):
            doomed = time.monotonic()
            _signal(job, signal.SIGCONT)
            _signal(job, signal.SIGTERM)
        if doomed is not None and time.monotonic() - doomed > KILL_WAIT:
            _signal(job, signal.SIGKILL)
            batch.kill()


def _signal(job, number):
    """To every process of the step; before there is one, to what the batch shell has started."""
    known = _read(job)
    for process in below(known["pid"]) if known["step"] is None else (known["step"], *below(known["step"])):
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
    step = {"environment": dict(os.environ), "folder": str(Path.cwd())}
    while words[0].startswith("--"):
        option = words.pop(0).removeprefix("--")
        if option in ("output", "error"):
            step[option] = words.pop(0)
    _write(f"{job}.step", step | {"words": words})
    while (code := _take(f"{job}.ended")) is None:
        time.sleep(POLL)
    sys.exit(code)


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
            _signal(job, signal.Signals[f"SIG{number}"])
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
    {function.__name__: function for function in (sbatch, srun, scontrol, squeue, scancel, sacct, daemon)}[sys.argv[1]](
        *sys.argv[2:]
    )
