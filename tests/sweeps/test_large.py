"""Ten thousand cells: what a person waits for stays quick and small."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue

# the system's own count of a child's peak memory begins with that of its parent, which has torch
MEASURED = """
import atexit, re, sys, time
sys.argv.pop(0)
import cli

def tell():
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print(time.process_time(), peak, file=sys.stderr)

atexit.register(tell)
cli.main()
"""
CELLS = 10_000
SPEC = """
method: grid
parameters:
  seed: {values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
  model.experts: {values: [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]}
  loss.temperature: {values: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}
  loss.importance_weight: {values: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}
  data.name: {value: synthetic}
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(SPEC)
    return path


def measured(*words):
    """What a command prints, its processor seconds and its peak memory in MB."""
    command = [sys.executable, "-P", "-c", MEASURED, "moe", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    seconds, kilobytes = done.stderr.splitlines()[-1].split()
    return json.loads(done.stdout), float(seconds), int(kilobytes) / 1e3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_ten_thousand_cells_are_planned_and_shown(spec):
    """Processor seconds, which other work on the machine changes little; bounds of the kind one notices."""
    shown, seconds, megabytes = measured("sweep", "launch", spec, "--dry-run", "--json")
    assert len({trial["run_id"] for trial in shown["trials"]}) == CELLS
    assert seconds < 5
    assert megabytes < 500
    sweep = register_planned(*plan(str(spec), {}))
    queue = open_queue(sweep)
    queue.publish(sweep.cells)
    queue.close()
    shown, seconds, megabytes = measured("sweep", "status", "large", "--json")
    assert len(shown["trials"]) == CELLS
    assert seconds < 2
    assert megabytes < 500


@pytest.mark.slow
def test_claims_and_ends_keep_up_with_any_sweep(spec):
    """A hundred trials a minute would be much; the queue does that in a second or so."""
    sweep = register_planned(*plan(str(spec), {}))
    queue = open_queue(sweep)
    queue.publish(sweep.cells)
    started = time.process_time()
    for _ in range(200):
        queue.finish(queue.claim())
    assert time.process_time() - started < 20
    queue.close()
