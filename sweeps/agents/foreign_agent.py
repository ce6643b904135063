"""Another program as an agent, such as W&B's own: it ends with us, is told to stop as we are, and uses our device."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moe.data.store import data_root
from sweeps.agents.devices import Device
from sweeps.queue.launched import LaunchedSweep
from sweeps.runs.signals import noted
from sweeps.tracking.connection import for_children

_POLL = 1.0


class ForeignAgentError(Exception):
    """The program ended with an error of its own; its log says which."""


def look_after(command: Sequence[str], sweep: LaunchedSweep, device: Device, stopped: Callable[[], bool]) -> None:
    """Run another program's agent until its service has nothing more to hand out.

    Told to stop (SIGTERM, Ctrl-C, the sweep's stop mark), it gets SIGTERM, and is to let its trial write a checkpoint.

    Args:
        command: what to run. It starts trials by `moe train`.
        sweep: whose cells it works on; groups its runs.
        device: what to run on.
        stopped: whether the sweep was told to stop.

    Raises:
        ForeignAgentError: it ended with an error.
    """
    log = sweep.folder.server_agent_log(os.getpid()).absolute()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, noted() as told:
        # a folder of its own: wandb writes the values of every trial below it
        agent = subprocess.Popen(
            command,
            env=_environment(sweep, device),
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
    if agent.returncode:
        raise ForeignAgentError(f"the agent of sweep {sweep.name} ended with code {agent.returncode}; see {log}")


def _environment(sweep: LaunchedSweep, device: Device) -> dict[str, str]:
    tools = str(Path(sys.executable).parent)  # the sweep's command is `moe train`, found by its name
    result = for_children() | {
        "PATH": os.pathsep.join([tools, os.environ.get("PATH", "")]),
        "MOE_HOME": str(sweep.root.absolute()),
        "MOE_DATA": str(data_root().absolute()),
        "MOE_SWEEP": sweep.name,
        "WANDB_AGENT_DISABLE_FLAPPING": "true",  # a cell that fails is not a reason to leave the others
        "WANDB_AGENT_MAX_INITIAL_FAILURES": "1000000",
        "PYTHONUNBUFFERED": "1",
    }
    return result | device.environment()
