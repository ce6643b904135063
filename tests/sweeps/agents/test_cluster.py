"""Agents as cluster jobs: what is asked of the scheduler, preemption, requeue, on this machine and on Slurm."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe.errors import UserError
from sweeps.agents import cluster
from sweeps.agents.cluster import Resources
from sweeps.agents.cluster_job import AgentJob
from sweeps.agents.cluster_status import _local_state, cancel, status
from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue
from sweeps.queue.status import status as how_it_stands
from sweeps.runs.folders import home
from tests.conftest import TINY, tiny_store
from tests.holding import Held
from tests.sweeps.agents import fake_slurm, slurm_cluster
from tests.sweeps.test_sweep_cli import epochs_of

submitit = pytest.importorskip("submitit", reason='submitit is missing: pip install "moe-experts[slurm]"')
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")

DEADLINE = 300


def queued(tmp_path, epochs, seeds, storage=None):
    """A sweep whose cells wait for agents."""
    tiny_store()
    spec = tmp_path / "little.yaml"
    lines = ["name: little", "method: grid", "parameters:", f"  seed: {{values: {list(range(seeds))}}}"]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in (TINY | {"train.epochs": epochs}).items()]
    spec.write_text("\n".join(lines) + "\n")
    sweep = register_planned(*plan(str(spec), {}), storage=storage)
    queue = open_queue(sweep)
    queue.publish(sweep.cells)
    queue.close()
    return sweep


def states(sweep):
    return [cell.state for cell in how_it_stands(sweep).cells]


def runs(sweep):
    return [sweep.store.run(cell.run_id) for cell in sweep.cells]


def wait_until(holds, pause=0.3):
    """Wait for something that other processes do."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(pause)


def in_the_middle(sweep):
    return any(len(epochs_of(run)) > 2 for run in runs(sweep))


def over(sweep):
    return not any(job.unfinished for job in status(sweep.name, sweep.root))


def finished_once(sweep, epochs):
    assert set(states(sweep)) == {"finished"}
    for run in runs(sweep):
        assert epochs_of(run) == list(range(epochs + 1))


def log(job):
    return job.log.read_text() + job.log.with_suffix(".err").read_text()


def handed_back(sweep, job):
    """Whether the agent itself gave a trial back: a killed one says nothing, and its trial is found out later."""
    return any(f"{run.id} handed back" in log(job) for run in runs(sweep))


# --- what is asked of the scheduler ---------------------------------------------------------------------------------


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    with fake_slurm.installed(tmp_path / "slurm") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield tmp_path / "slurm"


def test_resources_in_the_words_of_sbatch(pretended, tmp_path):
    asked = Resources(agents=3, gpus=2, cpus=4, memory_gb=1.5, minutes=90, partition="gpu", account="lab", qos="low",
                      constraint="h100", extra={"exclude": "node7", "exclusive": True})  # fmt: skip
    executor = cluster._executor(submitit, tmp_path / "jobs", asked.parameters("moe-little"), "slurm")
    assert executor.parameters == {
        "job_name": "moe-little", "nodes": 1, "ntasks_per_node": 1, "time": 90, "cpus_per_task": 4, "mem": "1536MB",
        "gpus_per_node": 2, "partition": "gpu", "account": "lab", "qos": "low", "constraint": "h100",
        "signal_delay_s": 120, "array_parallelism": 3, "srun_args": ["--cpus-per-task=4"],
        "additional_parameters": {"requeue": True, "exclude": "node7", "exclusive": True},
    }  # fmt: skip


def test_what_is_not_asked_for_is_left_to_the_cluster(pretended, tmp_path):
    executor = cluster._executor(submitit, tmp_path / "jobs", Resources().parameters("moe-little"), "slurm")
    assert not {"mem", "gpus_per_node", "cpus_per_task", "partition"} & set(executor.parameters)
    assert executor.parameters["time"] == 240


def test_no_time_limit_on_this_machine_unless_asked_for(tmp_path):
    for asked, given in ((None, 365 * 24 * 60), (30, 30)):
        parameters = Resources(minutes=asked).parameters("moe-little")
        assert cluster._executor(submitit, tmp_path / "jobs", parameters, "local").parameters["timeout_min"] == given


def test_each_agent_on_this_machine_has_its_own_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    both = Resources(agents=2, gpus=2)
    given = [cluster._local_environment(both, number)["CUDA_VISIBLE_DEVICES"] for number in range(2)]
    assert given == ["4,5", "6,7"]
    assert cluster._local_environment(Resources(gpus=0), 0)["CUDA_VISIBLE_DEVICES"] == ""
    with pytest.raises(UserError, match="3 agents with 2 GPUs each need 6; this machine shows 4"):
        cluster._local_environment(Resources(agents=3, gpus=2), 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert cluster._local_environment(Resources(), 0)["CUDA_VISIBLE_DEVICES"] is None


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(agents=0), "agents must be positive"),
        (Resources(memory_gb=float("nan")), "memory_gb must be positive"),
        (Resources(gpus=-1), "gpus must not be negative"),
        (Resources(minutes=2), "no time to train"),
        (Resources(extra={"array": "0-3"}), "array is set by moe itself"),
    ],
)
def test_what_cannot_work_is_refused(resources, message):
    with pytest.raises(UserError, match=message):
        resources.check()


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("30:01", 31), ("2:30:00", 150), ("1-12", 2160), ("1-0:30", 1470)]
)
def test_time_limits_are_read_as_slurm_reads_them(text, expected):
    assert cluster.minutes(text) == expected


def test_a_time_limit_that_is_none_is_refused():
    with pytest.raises(UserError, match='not "4h"'):
        cluster.minutes("4h")


def test_further_options_are_read():
    assert cluster.extra_options(["gres=gpu:a100:1", "--exclusive"]) == {"gres": "gpu:a100:1", "exclusive": True}


def test_a_scheduler_is_known_by_its_name():
    assert cluster.check_where("slurm") == "slurm"
    with pytest.raises(UserError, match="did you mean"):
        cluster.check_where("slrm")


def test_the_job_survives_its_file_and_comes_back_the_same():
    job = AgentJob("little", "/runs", ("--quiet",), {"CUDA_VISIBLE_DEVICES": None})
    assert pickle.loads(pickle.dumps(job)) == job
    assert job.checkpoint().function == job


def test_the_agent_is_told_of_its_gpus_and_cores(monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: started.append((command, options["env"])))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    monkeypatch.delenv("OMP_NUM_THREADS")
    for changes in ({}, {"CUDA_VISIBLE_DEVICES": None, "OMP_NUM_THREADS": "3"}):
        with contextlib.suppress(TypeError):  # what was started is no process
            AgentJob("little", "/runs", (), changes)()
    (on_slurm, slurm), (here, local) = started
    assert on_slurm[-3:] == ["little", "--device", "0,1"]
    assert (slurm["OMP_NUM_THREADS"], slurm["MOE_HOME"], slurm["MOE_FOLLOW_STDIN"]) == ("6", "/runs", "1")
    assert here[-1] == "little"
    assert "CUDA_VISIBLE_DEVICES" not in local
    assert local["OMP_NUM_THREADS"] == "3"


def test_without_submitit_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"moe-experts\[slurm\]"):
        cluster.submit("little", tmp_path, Resources(), "local")


def test_without_slurm_the_message_says_where_to_launch(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on this machine"):
        cluster.submit("little", tmp_path, Resources(), "slurm")


def test_the_refusal_of_sbatch_is_passed_on(pretended, tmp_path, capfd):
    with pytest.raises(UserError, match="sbatch refuses: invalid partition specified: nowhere"):
        cluster.submit("little", tmp_path, Resources(partition="nowhere"), "slurm")
    assert capfd.readouterr() == ("", "")
    assert status("little", tmp_path) == []
    assert list((tmp_path / "sweeps" / "little" / "jobs").iterdir()) == []


def test_no_secret_is_written_into_a_file(pretended, tmp_path, monkeypatch):
    names = ("MOE_STORAGE", "WANDB_API_KEY", "SLURM_JOB_NAME")
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    monkeypatch.setenv("SLURM_JOB_NAME", "the-job-we-run-in")
    monkeypatch.setattr(cluster, "AgentJob", lambda *_words: lambda: [name in os.environ for name in names])
    (job,) = cluster.submit("little", tmp_path, Resources(), "slurm", storage="postgresql://me:s3cret@db/moe")
    wait_until(lambda: not status("little", tmp_path)[0].unfinished)
    assert job.handle.result() == [True, True, False]
    assert "MOE_STORAGE" not in os.environ
    assert os.environ["SLURM_JOB_NAME"] == "the-job-we-run-in"
    files = [file for file in (tmp_path / "sweeps").rglob("*") if file.is_file()]
    assert len(files) > 3
    assert not any(b"s3cret" in file.read_bytes() for file in files)


# --- this machine, through submitit ---------------------------------------------------------------------------------


@contextlib.contextmanager
def local_jobs(sweep, resources):
    """Agents on this machine; whatever happens they end with the test."""
    jobs = cluster.submit(sweep.name, sweep.root, resources, "local")
    try:
        yield jobs
    finally:
        for job in jobs:
            job.handle._process.terminate()
            job.handle._process.wait(DEADLINE)


@linux
def test_a_job_is_seen_from_its_first_moment_to_its_last(tmp_path):
    """Between fork and exec's end a process has no command line, after its end neither: the first is no end."""
    for _ in range(100):
        process = subprocess.Popen(["/bin/sh", "-c", "read line", str(tmp_path)], stdin=subprocess.PIPE)
        assert _local_state(str(process.pid), tmp_path) == "RUNNING"
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert _local_state(str(process.pid), tmp_path) == "ENDED"
        process.wait()
        assert _local_state(str(process.pid), tmp_path) == "ENDED"
    assert _local_state(str(os.getpid()), tmp_path / "another") == "ENDED"


@pytest.mark.slow
def test_jobs_on_this_machine_finish_every_cell(tmp_path):
    sweep = queued(tmp_path, epochs=2, seeds=3)
    with local_jobs(sweep, Resources(agents=2)) as jobs:
        assert [job.state for job in status("little", home())] == ["RUNNING", "RUNNING"]
        wait_until(lambda: over(sweep))
        assert [job.handle.result() for job in jobs] == [0, 0]
    finished_once(sweep, epochs=2)
    assert [job.state for job in status("little", home())] == ["ENDED", "ENDED"]


@linux
@pytest.mark.slow
def test_preempted_on_this_machine_it_writes_a_checkpoint_and_goes_on(tmp_path):
    """The signal goes to every process of the job, as Slurm sends it."""
    sweep = queued(tmp_path, epochs=5, seeds=2)
    with local_jobs(sweep, Resources()) as (job,):
        held = Held.first_of(runs(sweep))
        for process in fake_slurm.below(int(job.id)):
            os.kill(process, signal.SIGUSR2)
        held.go_on()
        wait_until(lambda: "Requeued job" in log(job))
        assert "waiting" in states(sweep)
        assert any(0 < len(epochs_of(run)) < 6 for run in runs(sweep))
        wait_until(lambda: over(sweep))
        assert job.handle.result() == 0
    finished_once(sweep, epochs=5)
    assert handed_back(sweep, job)


@linux
@pytest.mark.slow
def test_ended_on_this_machine_it_hands_back_and_stays_ended(tmp_path):
    sweep = queued(tmp_path, epochs=40, seeds=1)
    with local_jobs(sweep, Resources()) as (job,):
        wait_until(lambda: in_the_middle(sweep), pause=0.05)
        os.kill(int(job.id), signal.SIGTERM)
        wait_until(lambda: over(sweep))
    assert states(sweep) == ["waiting"]
    assert "Requeued job" not in log(job)
    (run,) = runs(sweep)
    assert list(run.checkpoints.glob("step*.ckpt")) or len(epochs_of(run)) > 2


# --- Slurm ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_cluster():
    """One real node for all tests of this file."""
    if why := slurm_cluster.missing():
        pytest.skip(why)
    with slurm_cluster.running() as environment:
        yield environment


@pytest.fixture
def slurm(request, monkeypatch):
    """The real Slurm where it is installed, else the pretended one."""
    if slurm_cluster.missing() or getattr(request, "param", "") == "pretended":
        request.getfixturevalue("pretended")
        return
    for name, value in request.getfixturevalue("real_cluster").items():
        monkeypatch.setenv(name, value)


def test_the_tests_below_run_on_a_real_cluster():
    """Skipped where they do not, so that the report says so."""
    if why := slurm_cluster.missing():
        pytest.skip(why)


SIGNAL, REQUEUE = ("scancel", "--signal=USR2"), ("scontrol", "requeue")
PREEMPTIONS = [pytest.param("best", SIGNAL, id="signal"), pytest.param("best", REQUEUE, id="requeue")]
if not slurm_cluster.missing():  # else the best is the pretended one
    PREEMPTIONS.append(pytest.param("pretended", SIGNAL, id="pretended-signal"))


def slurm_says(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_an_array_of_agents_finishes_every_cell(tmp_path, storage):
    sweep = queued(tmp_path, epochs=2, seeds=4, storage=storage)
    jobs = cluster.submit("little", home(), Resources(agents=2, cpus=1, minutes=10), "slurm", storage=storage)
    array = jobs[0].id.partition("_")[0]
    assert [job.id for job in jobs] == [f"{array}_0", f"{array}_1"]
    wait_until(lambda: over(sweep))
    finished_once(sweep, epochs=2)
    assert [job.state for job in status("little", home())] == ["COMPLETED", "COMPLETED"]
    assert sum(log(job).count("started") for job in jobs) == 4


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("slurm", "order"), PREEMPTIONS, indirect=["slurm"])
def test_a_preempted_job_comes_back_and_every_epoch_is_run_once(tmp_path, slurm, order):
    """The signal that submitit asks Slurm for before the time limit, and a requeue by the scheduler itself."""
    sweep = queued(tmp_path, epochs=5, seeds=2)
    (job,) = cluster.submit("little", home(), Resources(cpus=1, minutes=10), "slurm")
    held = Held.first_of(runs(sweep))
    slurm_says(*order, job.id)
    held.go_on()
    wait_until(lambda: log(job).count("Starting with JobEnvironment") == 2)
    assert any(0 < len(epochs_of(run)) < 6 for run in runs(sweep))
    wait_until(lambda: over(sweep))
    finished_once(sweep, epochs=5)
    assert [known.state for known in status("little", home())] == ["COMPLETED"]
    assert handed_back(sweep, job)


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_cancelled_job_hands_back_and_stays_cancelled(tmp_path):
    sweep = queued(tmp_path, epochs=40, seeds=1)
    (job,) = cluster.submit("little", home(), Resources(cpus=1, minutes=10), "slurm")
    wait_until(lambda: in_the_middle(sweep), pause=0.05)
    slurm_says("scancel", job.id)
    wait_until(lambda: over(sweep))
    assert [known.state for known in status("little", home())] == ["CANCELLED"]
    assert states(sweep) == ["waiting"]
    assert log(job).count("Starting with JobEnvironment") == 1


@linux
@pytest.mark.slow
def test_room_is_made_for_a_more_urgent_job(tmp_path, real_cluster, monkeypatch):
    """Slurm announces preemption by SIGTERM and leaves a minute; the job does not wait for its end."""
    monkeypatch.setenv("SLURM_CONF", real_cluster["SLURM_CONF"])
    sweep = queued(tmp_path, epochs=10, seeds=2)
    (job,) = cluster.submit("little", home(), Resources(cpus=2, minutes=10), "slurm")
    wait_until(lambda: in_the_middle(sweep), pause=0.05)
    asked = time.monotonic()
    options = ("--partition=urgent", "--cpus-per-task=2", f"--output={os.devnull}")
    urgent = slurm_says("sbatch", "--parsable", *options, "--wrap", "true").strip()
    wait_until(
        lambda: "COMPLETED" in slurm_says("squeue", "--noheader", "--states=all", f"--jobs={urgent}", "--format=%T")
    )
    assert time.monotonic() - asked < 60
    wait_until(lambda: over(sweep))
    finished_once(sweep, epochs=10)
    assert handed_back(sweep, job)


@pytest.mark.slow
def test_jobs_that_wait_are_taken_back(tmp_path, real_cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", real_cluster["SLURM_CONF"])
    cluster.submit("little", tmp_path, Resources(agents=2, minutes=10, extra={"begin": "now+1hour"}), "slurm")
    wait_until(lambda: [job.reason for job in status("little", tmp_path)] == ["BeginTime"] * 2)
    assert [job.state for job in status("little", tmp_path)] == ["PENDING"] * 2
    assert len(cancel("little", tmp_path)) == 2
    assert [job.state for job in status("little", tmp_path)] == ["CANCELLED"] * 2
    assert cancel("little", tmp_path) == []
