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
    "buffered": [stream.write_through for stream in (sys.stdout, sys.stderr)],
}))
print(sys.stdin.read(), file=sys.stderr)
sys.exit(7)
"""
END = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
def forked(monkeypatch):
    """Whatever a test starts is forked, by a new server: another may have begun in another environment."""
    forking.uninstall()
    forking.install(dict(os.environ))
    monkeypatch.setattr(forking, "_COMMANDS", [["-c", STATE], ["-c", END]])


def state(**options):
    command = [sys.executable, "-P", "-c", STATE, "some", "words"]
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
    here = state(**given)
    monkeypatch.setattr(subprocess, "_fork_exec", forking._execute)
    there = state(**given)
    assert (here.pop("torch"), there.pop("torch")) == (True, False)
    assert here["parent"] == os.getpid()
    assert here == there


def test_another_environment_of_libraries_is_executed(forked, tmp_path):
    assert not state(env=os.environ | {"OMP_NUM_THREADS": "5"})["torch"]
    (tmp_path / "numpy.py").touch()
    assert not state(env=os.environ | {"PYTHONPATH": str(tmp_path)})["torch"]


def test_it_is_killed_as_any_child(forked):
    with subprocess.Popen([sys.executable, "-c", END], stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
