"""Python reads this at its start when the folder is on its path: kills processes of a sweep at the places of a plan.

`plan.json` in MOE_TEST_FAULTS lists for each seed what happens, `<who dies>:<where>`; each happens once. The wall clock
of every process jumps by a day, forth and back.
"""

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["MOE_TEST_FAULTS"])
PLAN = json.loads((FOLDER / "plan.json").read_text())
real_time = time.time
training = []  # the seed of this worker's run


def jumping():
    return real_time() + 86_400 * (int(time.monotonic() * 2) % 3 - 1)


time.time = jumping


def strike(seed, where, process=None):
    """Kill this process, or the one given, if the plan says so and it has not happened yet."""
    if where not in PLAN.get(str(seed), ()):
        return
    try:
        (FOLDER / f"{seed} {where}").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(process or os.getpid(), signal.SIGKILL)


def around(owner, name, seed_of, before=None, after=None):
    real = getattr(owner, name)

    def wrapped(*arguments, **options):
        if before:
            strike(seed_of(arguments, None), before)
        result = real(*arguments, **options)
        if after:
            strike(seed_of(arguments, result), after)
        return result

    setattr(owner, name, wrapped)


def local(module):
    of_claim = lambda _arguments, claim: claim and claim.cell.values["seed"]  # noqa: E731
    around(module.DatabaseQueue, "claim", of_claim, after="agent:claimed")
    of_end = lambda arguments, _: arguments[1].cell.values["seed"]  # noqa: E731
    around(module.DatabaseQueue, "finish", of_end, before="agent:finishing", after="agent:finished")


def trial(module):
    def of_run(arguments, _):
        training[:] = [arguments[1].seed]
        return training[0]

    around(module, "_attempt", of_run, before="worker:started", after="worker:finished")
    around(module, "_finish", of_run, after="worker:finishing")
    step = module.MoEModule.training_step

    def dying_step(self, batch, batch_idx):
        if self.global_step == 4:
            strike(training[0], "worker:step")
        return step(self, batch, batch_idx)

    module.MoEModule.training_step = dying_step


def torch_io(module):
    real = module.DurableCheckpointIO.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        real(self, checkpoint, path, storage_options)
        file = Path(path)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        strike(training[0], "worker:writing")
        strike(training[0], "agent:writing", os.getppid())
        file.write_bytes(whole)

    module.DurableCheckpointIO.save_checkpoint = save


def routing_probe(module):
    of_subject = lambda arguments, _: arguments[1].run.config.seed  # noqa: E731
    around(module.RoutingProbe, "run", of_subject, before="probe:run")


PATCHES = {
    "probes.suite.routing_probe": routing_probe,
    "sweeps.queue.database": local,
    "sweeps.training.trial": trial,
    "sweeps.training.saving": torch_io,
}


class Finder(importlib.abc.MetaPathFinder):
    """Lets a module be imported as always and changes it then."""

    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            PATCHES[name](module)

        spec.loader.exec_module = execute_and_change
        return spec


sys.meta_path.insert(0, Finder())
for loaded in PATCHES.keys() & sys.modules.keys():  # in a process that is forked from one that imported them
    PATCHES[loaded](sys.modules[loaded])
