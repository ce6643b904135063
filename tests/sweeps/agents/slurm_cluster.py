"""A real Slurm cluster of one node for a test: its daemons run from a temporary folder and end with the test."""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
STARTS, ENDS = 30.0, 40.0  # seconds
SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its old credential has expired
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PlugStackConfig={folder}/plugstack.conf
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing():
    """Why there can be no real cluster here; None if there can."""
    absent = [name for name in (*DAEMONS, "sbatch", "srun", "squeue") if _found(name) is None]
    if absent:
        return f"no {', '.join(absent)} (apt-get install slurmctld slurmd munge slurm-client): only the pretended Slurm"
    return None


def _found(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextlib.contextmanager
def running():
    """Variables that point Slurm's commands to a cluster of this machine alone, which ends afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: the path of a socket has at most 108 characters
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    started = []
    try:
        folder.chmod(0o755)
        _write_settings(folder)
        started.extend(_start(folder, command, environment) for command in _commands(folder))
        _wait_until_idle(folder, started, environment)
        yield environment
    finally:
        _end_jobs(environment)
        _stop(started)
        _end_steps(folder)
        shutil.rmtree(folder)


def _write_settings(folder):
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    (folder / "munge" / "key").touch(mode=0o600)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "plugstack.conf").touch()
    controller, node = _free_ports()
    host = socket.gethostname().split(".")[0]
    text = SETTINGS.format(host=host, controller=controller, node=node, user=getpass.getuser(), folder=folder)
    (folder / "slurm.conf").write_text(text)


def _free_ports():
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _commands(folder):
    munge, settings = folder / "munge", str(folder / "slurm.conf")
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return [
        [
            "munged",
            "--foreground",
            "--num-threads=2",
            *(f"--{option}={munge / name}" for option, name in files.items()),
        ],
        ["slurmctld", "-D", "-f", settings],
        ["slurmd", "-D", "-f", settings],
    ]


def _start(folder, command, environment):
    with (folder / f"{command[0]}.out").open("ab") as out:
        process = subprocess.Popen(
            [_found(command[0]), *command[1:]],
            env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    if command[0] == "munged":
        _wait((folder / "munge" / "socket").exists, process, folder)
    return process


def _wait_until_idle(folder, started, environment):
    ask = ["sinfo", "--noheader", "--format=%T", "--partition=main"]
    _wait(lambda: _asked(ask, environment) == "idle", started[-1], folder)


def _asked(command, environment):
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=STARTS
    ).stdout.strip()


def _wait(holds, process, folder):
    end = time.monotonic() + STARTS
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            said = "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in folder.glob("*.[ol]*"))
            raise RuntimeError(f"the cluster does not start:\n{said}")
        time.sleep(0.05)


def _end_jobs(environment):
    """What a failed test left behind."""
    if _asked(["squeue", "--noheader", "--format=%i"], environment):
        _asked(["scancel", "--me"], environment)
        end = time.monotonic() + ENDS
        while _asked(["squeue", "--noheader", "--format=%i"], environment) and time.monotonic() < end:
            time.sleep(0.1)


def _stop(started):
    """The daemons that we started, last one first; munge last, which the others need to part."""
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(ENDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_steps(folder):
    """Jobs outlive slurmd, each in the care of a slurmstepd; ours are those whose environment names our settings."""
    ours = f"SLURM_CONF={folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and ours in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
