"""Kills a small run at its n-th change of its folder, for every n, lets it go on, and compares what it leaves.

A change is a write, half of which is done before the process ends, or a rename, a removal, a new folder, a file opened
for writing, a wait for the disk, none of which is done. One warm process forks one for each attempt.

    python -m tests.sweeps.training.kills FOLDER [--stride 1] [--offset 0] [--epochs 3] [--again]

prints what it found as JSON: the number of changes of an undisturbed run, of runs killed, and those that differ.
"""

import argparse
import builtins
import io
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import torch

from sweeps.runs.store import RunStore
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store


class Changes:
    """Counts this process's changes below a folder and kills it at one of them."""

    def __init__(self, folder, last=None):
        self.folder, self.last, self.count = str(folder), last, 0

    def due(self):
        self.count += 1
        return self.count == self.last

    def inside(self, path, folder=None):
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        elif folder is not None:  # as shutil.rmtree names files
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
        return str(Path(os.fsdecode(path)).absolute()).startswith(self.folder)

    def before(self, real, *, which=0):
        def changed(*arguments, **options):
            if self.inside(arguments[which], options.get("dir_fd")) and self.due():
                die()
            return real(*arguments, **options)

        return changed

    def half(self, real, which):
        """A library that writes a whole file by itself."""

        def changed(*arguments, **options):
            result = real(*arguments, **options)
            path = arguments[which]
            if self.inside(path) and self.due():
                os.truncate(path, Path(path).stat().st_size // 2)
                die()
            return result

        return changed

    def install(self):
        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "fsync"):
            setattr(os, name, self.before(getattr(os, name)))
        real, changes = io.open, self

        class Raw(io.FileIO):
            def write(self, data):
                if changes.due():
                    super().write(bytes(data)[: len(data) // 2])
                    die()
                return super().write(data)

        def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not set(mode) & set("wax+") or not self.inside(file):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if self.due():
                die()
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            binary = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)

        io.open = builtins.open = opened
        torch.save = self.half(torch.save, 1)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work):
    """Run in a process of its own; its exit code, negative for a signal."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


CONFIG = {
    "train__epochs": 3, "machine__checkpoint_minutes": 1e-9, "machine__threads": 1, "machine__keep_epochs": (0, 2),
}  # fmt: skip


def attempt(store, at=None):
    """Train in a process of its own that ends at its change number `at`; (exit code, changes)."""
    run = store.run(tiny_config(**CONFIG).identity())
    note = store.root.with_suffix(".count")

    def work():
        changes = Changes(run.path, at)
        changes.install()
        train(tiny_config(**CONFIG), store, report=lambda _line: None)
        note.write_text(str(changes.count))

    code = forked(work)
    return code, int(note.read_text()) if code == 0 else at


def left(run):
    """Everything that must be as in an undisturbed run."""
    files = [
        run.history_file,
        run.summary_file,
        *run.model.iterdir(),
        *run.best_model.glob("*"),
        *run.routing.iterdir(),
        *(file for folder in run.kept_models().values() for file in folder.iterdir()),
    ]
    found = {str(file.relative_to(run.path)): file.read_bytes() for file in files}
    return found | {"finished": run.finished, "checkpoints": sorted(file.name for file in run.checkpoints.iterdir())}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="kill what goes on, too, at a place drawn at random")
    options = parser.parse_args()
    os.environ |= {"MOE_DATA": str(options.folder / "data"), "WANDB_MODE": "disabled"}
    CONFIG["train__epochs"] = options.epochs
    torch.set_num_threads(1)
    tiny_store(count=32)
    # what the first training of a process imports, none of those that are forked is to import again
    train(tiny_config(train__epochs=1), RunStore(options.folder / "warm"), report=lambda _line: None)
    calm = RunStore(options.folder / "calm")
    code, changes = attempt(calm)
    assert code == 0
    run = calm.all()[0]
    expected, killed, differ = left(run), 0, []
    for number in range(1 + options.offset, changes + 1, options.stride):
        store = RunStore(options.folder / str(number))
        places = [number, *([random.Random(number).randint(1, changes // 2)] if options.again else [])]
        codes = [attempt(store, place)[0] for place in places] + [attempt(store)[0]]
        killed += sum(code == -signal.SIGKILL for code in codes)
        found = left(store.run(run.id)) if codes[-1] == 0 else {}
        if found != expected:
            wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
            differ.append({"changes": places, "codes": codes, "wrong": wrong})
        shutil.rmtree(store.root)
    sys.stdout.write(json.dumps({"changes": changes, "killed": killed, "differ": differ}) + "\n")


if __name__ == "__main__":
    main()
