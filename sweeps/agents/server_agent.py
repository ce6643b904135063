"""W&B's own agent, looked after: it ends with us, hands its trial back when told to stop, and uses our device."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from moe.data.store import data_root
from sweeps.queue.server import Remote
from sweeps.runs.folders import SweepFolder
from sweeps.tracking.connection import for_children

_POLL = 1.0


def serve(remote: Remote, sweep: str, root: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> int:
    """Run W&B's own agent until the server has nothing more to hand out; returns its exit code.

    Told to stop (SIGTERM, Ctrl-C, the sweep's stop mark), its trial writes a checkpoint and is handed back.

    Args:
        remote: the sweep.
        sweep: its name, which groups its runs.
        root: `MOE_HOME`.
        environment: what the device asks for.
        stopped: whether the sweep was told to stop.
    """
    log = SweepFolder(root.absolute(), sweep).server_agent_log(os.getpid())
    command = [sys.executable, "-P", "-m", "wandb", "agent", "--forward-signals", str(remote)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, _told() as told:
        # a folder of its own: wandb writes the values of every trial below it
        agent = subprocess.Popen(
            command,
            env=_environment(sweep, root, environment),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        asked = False
        while agent.poll() is None:
            time.sleep(_POLL)
            if not asked and (told or stopped()):
                asked = True
                agent.send_signal(signal.SIGTERM)
    return agent.returncode


def _environment(sweep: str, root: Path, device: Mapping[str, str]) -> dict[str, str]:
    tools = str(Path(sys.executable).parent)  # the sweep's command is `moe train`, found by its name
    result = for_children() | {
        "PATH": os.pathsep.join([tools, os.environ.get("PATH", "")]),
        "MOE_HOME": str(root.absolute()),
        "MOE_DATA": str(data_root().absolute()),
        "MOE_SWEEP": sweep,
        "WANDB_AGENT_DISABLE_FLAPPING": "true",  # a cell that fails is not a reason to leave the others
        "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000",
        "PYTHONUNBUFFERED": "1",
    }
    return result | dict(device)


@contextlib.contextmanager
def _told() -> Iterator[list[int]]:
    """The signals to stop that arrive meanwhile."""
    arrived: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, lambda number, _frame: arrived.append(number)) for number in numbers}
    try:
        yield arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
