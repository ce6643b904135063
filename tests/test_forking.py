"""A process that the tests fork is the one that would have been executed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forking

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or "MOE_TEST_EXEC" in os.environ, reason="processes are executed here"),
    pytest.mark.slow,
]

STATE = """
import json, os, signal, sys, threading
print(json.dumps({
    "torch": "torch" in sys.modules, "wandb": "wandb" in sys.modules, "parent": os.getppid(), "argv": sys.argv,
    "folder": os.getcwd(), "main": __name__,
    "environment": {name: value for name, value in os.environ.items() if name[:3] not in ("KMP", "TOR", "PYT")},
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()], "threads": threading.active_count(),
    "signals": [str(signal.getsignal(number)) for number in (2, 10, 12, 13, 15)], "path": sys.path,
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "streams": sorted(os.listdir("/proc/self/fd"))[:3],
    "comm": open("/proc/self/comm").read(), "mask": os.umask(0o22),
    "line": open("/proc/self/cmdline").read().rstrip("\\0"),
    "buffered": [stream.write_through for stream in (sys.stdout, sys.stderr)],
}))
print(sys.stdin.read(), file=sys.stderr)
sys.exit(7)
"""
END = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture(scope="module")
def server():
    """A new one, for all tests here: another may have begun in another environment."""
    forking.uninstall()
    forking.install(dict(os.environ))


@pytest.fixture
def forked(server, monkeypatch):
    """Whatever a test starts is forked."""
    monkeypatch.setattr(forking, "_COMMANDS", [["-c", STATE], ["-c", END]])


def state(*command, **options):
    command = [*(command or (sys.executable, "-P", "-c", STATE)), "some", "words"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input="said", **options)
    assert (done.returncode, done.stderr.strip()) == (7, "said")
    return json.loads(done.stdout)


@pytest.mark.parametrize(("session", "unbuffered", "name"), [(False, "", "python"), (True, "1", "python3")])
def test_it_has_all_that_it_was_given(session, unbuffered, name, forked, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(Path(sys.executable).with_name(name)))  # an environment has both
    (tmp_path / "more").mkdir()
    python = {"PYTHONPATH": str(tmp_path / "more"), "PYTHONUNBUFFERED": unbuffered}
    environment = os.environ | {"MOE_HOME": "there"} | python
    given = {"env": environment, "cwd": tmp_path, "start_new_session": session}
    same(lambda: state(**given), monkeypatch)


def test_a_script_that_an_agent_finds_by_its_name_is_forked_too(forked, tmp_path, monkeypatch):
    """In a process group of its own, as W&B's agent starts `moe`."""
    script = tmp_path / "bin" / "moe"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\n{STATE}")
    script.chmod(0o755)
    monkeypatch.setattr(forking, "_SCRIPT", script)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    found = same(lambda: state("/usr/bin/env", "moe", process_group=0, cwd=tmp_path, env=dict(os.environ)), monkeypatch)
    assert (found["comm"], found["leads"]) == ("moe\n", [False, True])


def same(start, monkeypatch):
    """The state of a process that is forked is that of one that is executed, but for what it has imported."""
    here = start()
    monkeypatch.setattr(subprocess, "_fork_exec", forking._execute)
    there = start()
    for name in ("torch", "wandb"):
        assert (here.pop(name), there.pop(name)) == (True, False)
    assert here["parent"] == os.getpid()
    assert here == there
    return here


def test_signals_that_are_blocked_stay_blocked(forked):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        assert state()["blocked"] == len(before) + 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_another_environment_of_libraries_is_executed(forked, tmp_path):
    assert not state(env=os.environ | {"OMP_NUM_THREADS": "5"})["torch"]
    (tmp_path / "numpy.py").touch()
    assert not state(env=os.environ | {"PYTHONPATH": str(tmp_path)})["torch"]


def test_what_moe_adds_to_its_own_environment_makes_no_other_one(forked, moe):
    """So its agents are forked, and their workers."""
    assert moe("--help")[0] == 0
    assert state()["torch"]


def test_it_is_killed_as_any_child(forked):
    with subprocess.Popen([sys.executable, "-c", END], stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_processes_of_a_parallel_run_are_forked(request):
    """And are known to be by what the tests import here."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("this run is not parallel")
    assert forking._forked
    assert forking._channel
