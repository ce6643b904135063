"""Threads follow the cores that others leave."""

import subprocess
import sys
import time

import pytest
import torch

from moe import threads
from moe.threads import SpareCores, busy_seconds, threads_for

STAT = """cpu  100 0 100 1000 0 0 0 0 0 0
cpu0 1000 100 200 5000 300 10 20 70 500 0
cpu1 2000 0 300 4000 0 0 0 0 0 0
cpu10 7000 0 0 0 0 0 0 0 0 0
intr 1 2 3
ctxt 99
"""


@pytest.mark.parametrize(
    ("cores", "foreign", "present", "most", "expected"),
    [
        (2, 0.0, 2, 2, 2), (2, 0.2, 2, 2, 2), (2, 0.49, 2, 2, 2),  # a browser that is looked at
        (2, 0.6, 2, 2, 1), (2, 1.0, 2, 2, 1), (2, 5.0, 2, 2, 1),  # a busy process
        (2, 1.0, 1, 2, 1), (2, 0.4, 1, 2, 1), (2, 0.1, 1, 2, 2),  # back when it has gone, not sooner
        (8, 3.0, 8, 8, 5), (8, 6.0, 2, 2, 2), (8, 7.6, 2, 2, 1),  # four agents of two threads; more than that
        (64, 1.0, 4, 4, 4), (4, 0.0, 1, 4, 4),
    ],
)  # fmt: skip
def test_how_many_threads(cores, foreign, present, most, expected):
    assert threads_for(cores, foreign, present, most) == expected


def test_busy_time_is_that_of_our_cpus_without_idle_and_guest_time():
    """By hand, in hundredths of a second: 1000 + 100 + 200 + 10 + 20 + 70 on the first, 2000 + 300 on the second."""
    ticks = threads.os.sysconf("SC_CLK_TCK")
    assert busy_seconds(STAT, {0}) == 1400 / ticks
    assert busy_seconds(STAT, {0, 1}) == 3700 / ticks
    assert busy_seconds(STAT, {10}) == 7000 / ticks


@pytest.fixture
def two_threads():
    """As on a machine with two cores, whatever the tests are given."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_are_given_up_and_taken_back(two_threads, tmp_path, monkeypatch):
    """Another process takes 0.9 s of a second, then nothing; the system's counters in a file."""
    file, now, said = tmp_path / "stat", [100.0], []
    monkeypatch.setattr(threads, "_STAT", file)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr(threads.time, "monotonic", lambda: now[0])
    own = threads.os.times()
    monkeypatch.setattr(threads.os, "times", lambda: own)
    ticks = threads.os.sysconf("SC_CLK_TCK")

    def passes(seconds, foreign):
        now[0] += seconds
        file.write_text(f"cpu0 {int(ticks * foreign)} 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n")

    passes(0, 0)
    spare = SpareCores(said.append)
    passes(0.5, 0.45)
    spare.look()  # too soon to tell
    assert torch.get_num_threads() == 2
    passes(0.5, 0.9)
    spare.look()
    assert (torch.get_num_threads(), spare.present, spare.most) == (1, 1, 2)
    passes(1.0, 0.9)
    spare.look()
    assert torch.get_num_threads() == 2
    passes(1.0, 1.9)
    spare.look()
    assert said == [1, 2, 1]
    spare.close()
    assert torch.get_num_threads() == 2


def test_one_thread_is_left_alone_and_other_systems_too(two_threads, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "_STAT", tmp_path / "absent")
    SpareCores().look()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "_STAT", tmp_path)  # reading it would fail
    SpareCores().look()


@pytest.mark.slow
@pytest.mark.skipif(not threads._STAT.exists(), reason="needs Linux's /proc")
def test_beside_as_many_busy_processes_as_cores_one_thread_is_left(two_threads):
    cores = len(threads.os.sched_getaffinity(0))
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(cores)]
    try:
        spare, end = SpareCores(), time.monotonic() + 30
        while spare.present > 1 and time.monotonic() < end:
            time.sleep(0.2)
            spare.look()
        assert torch.get_num_threads() == 1
    finally:
        for other in others:
            other.kill()
            other.wait()
