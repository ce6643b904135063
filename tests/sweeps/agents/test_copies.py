"""Workers that are copies of one that waits: children of the agent, with the results of a new process."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from sweeps.agents.worker import Worker, _copied, _untouched, _written, environment
from sweeps.runs.folders import home
from sweeps.runs.store import RunStore
from tests import forking
from tests.conftest import tiny_config, tiny_store

DEADLINE = 300

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="processes cannot be copied here")]


def stat(pid):
    """Parent, process group and session of a process."""
    return tuple(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1:4]))


def test_a_copy_is_a_child_of_its_own_and_trains_as_a_new_process_does(tmp_path, monkeypatch):
    """With two threads, which a process that computed something would not hand on."""
    tiny_store()
    monkeypatch.setattr(subprocess, "_fork_exec", forking._execute)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # two threads beside other tests
    original, new = (Worker.start(environment(tmp_path / name, "little", {})) for name in ("copy", "new"))
    copy = original.another()
    another = copy.another()
    for one in (copy, another):
        assert stat(one.process.pid) == (os.getpid(), one.process.pid, one.process.pid)
    original.kill()
    by_new, by_copy = (
        RunStore(tmp_path / name).create(tiny_config(machine__threads=2, train__epochs=1)) for name in ("new", "copy")
    )
    new.train(by_new)
    copy.train(by_copy)
    assert [new.process.wait(DEADLINE), copy.process.wait(DEADLINE)] == [0, 0], by_copy.log_file.read_text()
    weights, wanted = (load_file(run.model / "model.safetensors") for run in (by_copy, by_new))
    assert all(wanted[name].equal(weights[name]) for name in wanted)
    assert by_copy.history() == by_new.history()
    said = [re.sub(r"[\d.]+ s\b", "", run.log_file.read_text().replace(str(run.path), "")) for run in (by_copy, by_new)]
    assert said[0] == said[1]
    assert by_copy.provenance["git"] == by_new.provenance["git"]
    for one in (new, copy, another):
        assert one.end() == 0  # the last waits: its agent has ended


def test_one_that_is_killed_takes_no_other_along(monkeypatch):
    original = Worker.start(environment(home(), "little", {}))
    copy = original.another()
    assert original.kill() == -signal.SIGKILL
    assert original.another() is None
    again = copy.another()
    os.kill(copy.process.pid, signal.SIGTERM)
    assert copy.process.wait(DEADLINE) == -signal.SIGTERM
    assert copy.another() is None
    assert copy.end() == -signal.SIGTERM
    assert again.process.poll() is None
    assert again.kill() == -signal.SIGKILL
    assert not Path(f"/proc/{again.process.pid}").exists()


def test_one_that_nobody_adopts_ends_and_there_is_none(monkeypatch):
    monkeypatch.setattr("sweeps.agents.worker.adopting", contextlib.nullcontext)
    original = Worker.start(environment(home(), "little", {}))
    assert original.another() is None
    monkeypatch.undo()
    copy = original.another()
    assert [copy.kill(), original.kill()] == [-signal.SIGKILL] * 2


def test_a_process_with_threads_or_a_gpu_in_use_is_not_copied(monkeypatch):
    before = threading.active_count()  # other tests may have left threads
    monkeypatch.setattr(threading, "active_count", lambda: 1 + len(threading.enumerate()) - before)
    assert _untouched()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert not _untouched()
    done.set()
    thread.join()
    assert _untouched()
    monkeypatch.setattr(os.path, "realpath", lambda _path: "/dev/nvidiactl")
    assert not _untouched()


def test_nor_is_one_whose_code_was_changed_since(tmp_path, monkeypatch):
    file = tmp_path / "changed.py"
    file.write_text("")
    os.utime(file, (1, 1))
    monkeypatch.setitem(sys.modules, "moe.changed", SimpleNamespace(__file__=str(file)))
    loaded = _written()
    assert len(loaded) > 50
    assert _written() == loaded
    file.write_text("1")
    assert _written() != loaded
    assert _copied(loaded) == 0
    file.unlink()
    assert _written() != loaded
