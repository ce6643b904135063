"""Make a MOE_HOME as an earlier version leaves it, and pack it: images, sweeps, runs, the queue's database.

    PYTHONPATH=FOLDER python -P tests/recordings/old_home.py OUT.tar.xz

uses the version in FOLDER. The committed `old_home.tar.xz` is that of 4b6bc71; tests/test_old_home.py opens it. It
holds

    data/old           48 images with labels and two dimensions
    runs               sweep `old` (a grid): seed 0 finished, its W&B record offline; seed 1 stopped in its second epoch
                       sweep `search` (bayes): stopped after its first run had finished

without what no command needs, to keep it small: pictures that W&B's own record holds too, links into W&B's cache, and
checkpoints of the finished run of `search`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePath

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.recordings.record import small_store

COMMON = """
  data.name: {value: old}
  data.image_size: {value: 16}
  model.experts: {value: 2}
  model.width: {value: 0.01}
  loss.projection: {value: 8}
  train.batch_size: {value: 4}
  train.precision: {value: 32-true}
  machine.device: {value: cpu}
"""
GRID = """
name: old
method: grid
metric: {name: val/loss, goal: minimize}
parameters:
  seed: {values: [0, 1]}
  train.epochs: {value: 2}
"""
SEARCH = """
name: search
method: bayes
run_cap: 3
metric: {name: val/loss, goal: minimize}
parameters:
  train.lr: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0e-2}
  train.epochs: {value: 1}
"""


def _launch_and_stop(home: Path, spec: str, mode: str, reached: Callable[[], bool]) -> None:
    """Launch a sweep with one agent and tell it to stop once `reached`."""
    file = home / "spec.yaml"
    file.write_text(spec + COMMON)
    environment = os.environ | {
        "MOE_HOME": str(home / "runs"), "MOE_DATA": str(home / "data"), "WANDB_MODE": mode, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-P", "-c", "import cli; cli.main()", "sweep", "launch", str(file), "--agents", "1"]
    with subprocess.Popen(command, cwd=home, env=environment) as process:
        while not reached():
            if process.poll() is not None:
                raise RuntimeError(f"{file} ended before it was stopped")
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    file.unlink()


def _states(runs: Path) -> list[tuple[Path, str]]:
    found = []
    for file in runs.glob("*/state.json"):
        try:
            found.append((file.parent, json.loads(file.read_text())["state"]))
        except json.JSONDecodeError:  # being written
            continue
    return found


def _second_epoch(runs: Path) -> bool:
    """One run is finished, and the other one has its first epoch behind it."""
    going = [folder for folder, state in _states(runs) if state == "running"]
    return len(_states(runs)) == 2 and any((folder / "checkpoints" / "last.ckpt").exists() for folder in going)


def _finished(runs: Path, count: int) -> bool:
    return sum(state == "finished" for _, state in _states(runs)) >= count


def make(home: Path) -> None:
    """Fill a folder with `data` and `runs`."""
    small_store("old", home / "data", 48, 0)
    runs = home / "runs"
    _launch_and_stop(home, GRID, "offline", lambda: _second_epoch(runs))
    before = {folder for folder, _ in _states(runs)}
    _launch_and_stop(home, SEARCH, "disabled", lambda: _finished(runs, 2))
    for folder, state in _states(runs):
        if folder not in before and state == "finished":
            shutil.rmtree(folder / "checkpoints")


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = PurePath(member.name)
    if member.issym() or (path.suffix == ".png" and "wandb" not in path.parts):
        return None
    member.uid = member.gid = 0
    return member


def main() -> None:
    """Make it and pack it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        make(home)
        with tarfile.open(sys.argv[1], "w:xz", preset=9) as archive:
            for part in ("data", "runs"):
                archive.add(home / part, part, filter=_kept)


if __name__ == "__main__":
    main()
