"""Two gloo processes, with different numbers of images, log and write what a single one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.callbacks.two_processes import train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder of what two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.callbacks.two_processes", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".png", ".npy")}


@pytest.mark.parametrize("resumed", [False, True])
def test_two_processes_observe_what_one_does(two, tmp_path, resumed):
    numbers = json.loads((two / "logged.json").read_text())
    # a single process can even take over what two began
    assert train(tmp_path, devices=1, checkpoint=two / "checkpoint" if resumed else None) == pytest.approx(numbers)
    written = files(tmp_path)
    assert len(written) == (8 if resumed else 16)
    assert files(two) | written == files(two)
