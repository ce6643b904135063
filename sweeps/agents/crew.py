"""The agent processes of one launch, and the devices they share."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from sweeps.agents.devices import CPU, Device, groups, visible
from sweeps.queue.base import Queue
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.storage import ENVIRONMENT
from sweeps.runs.endings import NO_ROOM
from sweeps.tracking.connection import for_children

_DEATHS = 10  # of agents, before a launch stops replacing them


@dataclass(frozen=True)
class Crew:
    """How many agents a launch starts, and on what.

    Attributes:
        agents: how many; None: as many as the devices have slots.
        per_device: runs that share a GPU.
        minutes: limit for one attempt; None: none.
        size: GPUs of each agent.
    """

    agents: int | None = None
    per_device: int = 1
    minutes: float | None = None
    size: int = 1

    def devices(self) -> list[Device]:
        """The device of each agent."""
        found = groups(visible(), self.size)
        count = self.agents or len(found) * self.per_device
        if found == [CPU]:
            return [Device()] * count
        slots = max(self.per_device, -(-count // len(found)))
        return [Device(found[number % len(found)], slots) for number in range(count)]


class Agents:
    """Agent processes of this launch. They end when this process ends, however it ends.

    Args:
        sweep: what they work on.
        crew: how many, and where.
        most: not more than these: there are no more cells.
        left_over: claim what a service left over, instead of running its own agents.
    """

    def __init__(self, sweep: LaunchedSweep, crew: Crew, most: int, *, left_over: bool = False) -> None:
        self.sweep, self.crew, self.left_over = sweep, crew, left_over
        self.devices = crew.devices()[:most]
        self.processes = [self._start(device) for device in self.devices]
        self._deaths = 0

    def _start(self, device: Device) -> subprocess.Popen[bytes]:
        threads = str(max(1, (os.cpu_count() or 1) // len(self.devices)))
        ours = {"MOE_HOME": str(self.sweep.root.absolute()), "MOE_SWEEP": self.sweep.name, "MOE_FOLLOW_STDIN": "1"}
        environment = for_children() | ours
        if len(self.devices) > 1:
            environment.setdefault("OMP_NUM_THREADS", threads)
        if self.sweep.storage:
            environment[ENVIRONMENT] = self.sweep.storage
        command = [sys.executable, "-P", "-m", "moe_command", "sweep", "agent", self.sweep.name, "--quiet"]
        command += ["--device", device.name, "--slots", str(device.slots)]
        if self.left_over:
            command += ["--left-over"]
        if self.crew.minutes is not None:
            command += ["--timeout", str(self.crew.minutes)]
        # its own group, and gone when our end of its standard input closes
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)

    def tend(self, queue: Queue) -> None:
        """Replace agents that died while cells wait, a few times; take back what they held.

        Not those that ended as the disk is full: others would find it so, too.
        """
        for number, process in enumerate(self.processes):
            if process.poll() in (None, 0, NO_ROOM) or self._deaths >= _DEATHS:
                continue
            queue.recover()
            if queue.waiting() and not queue.stop_requested():
                self._deaths += 1
                self.processes[number] = self._start(self.devices[number])

    def running(self) -> bool:
        """Whether any agent is still at work."""
        return any(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        """Ask all to hand back their cells, and wait for them."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()
            if process.stdin:
                process.stdin.close()
