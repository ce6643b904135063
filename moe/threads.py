"""As many threads as there are cores to spare.

torch's threads wait for each other after every operation, and while they wait they compute nothing but hold their core.
Beside another busy process one of them is always without a core, and all wait for it: two threads on two cores then do
a fraction of one thread's work. Waiting asleep instead (OMP_WAIT_POLICY, GOMP_SPINCOUNT) costs 10 to 35 % of the speed
where nobody else is there, and gives half of one thread's beside another. So the number of threads follows the cores
that others leave.

Results depend on the number of threads in their last bits: sums are cut up among them. Whoever needs the bits fixes
the number (`machine.threads`).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

_STAT = Path("/proc/stat")
_SECONDS = 1.0  # between looks: the system counts hundredths of a second
# a core that others use less than this is still worth a thread; one given up is taken again below the second
_GIVE_UP, _TAKE_BACK = 0.5, 0.25


def threads_for(cores: int, foreign: float, present: int, most: int) -> int:
    """How many threads to compute with.

    Args:
        cores: that this process may run on.
        foreign: how many of them others keep busy, on average.
        present: threads now.
        most: never more than this.
    """
    fewer = int(cores - foreign + _GIVE_UP)
    more = int(cores - foreign + _TAKE_BACK)
    wanted = fewer if fewer < present else max(more, present)
    return max(1, min(wanted, most))


def busy_seconds(stat: str, cpus: set[int]) -> float:
    """Time that these CPUs have been busy since the system started, by the text of /proc/stat; stolen time included."""
    ticks = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


class SpareCores:
    """Lets torch compute with as many threads as others leave cores, from look to look.

    Without /proc/stat (not on Linux), and where one thread is all there is, it changes nothing.

    Args:
        changed: told of a new number of threads.

    Attributes:
        most: threads when nobody else computes: those that torch has when this is made.
        present: threads now.
    """

    def __init__(self, changed: Callable[[int], None] = lambda _threads: None) -> None:
        self.most = self.present = torch.get_num_threads()
        self._changed = changed
        self._cpus: set[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self._seen = self._times() if self.most > 1 and _STAT.exists() else None

    def look(self) -> None:
        """To be called between steps; looks once a second and costs nothing in between."""
        if self._seen is None or time.monotonic() - self._seen[0] < _SECONDS:
            return
        before, self._seen = self._seen, self._times()
        wall, everyone, own = (new - old for new, old in zip(self._seen, before, strict=True))
        wanted = threads_for(len(self._cpus), max(0.0, everyone - own) / wall, self.present, self.most)
        if wanted != self.present:
            self.present = wanted
            torch.set_num_threads(wanted)
            self._changed(wanted)

    def close(self) -> None:
        """All threads again."""
        if self.present != self.most:
            self.present = self.most
            torch.set_num_threads(self.most)

    def _times(self) -> tuple[float, float, float]:
        """Clock, time of all processes on our CPUs, time of this one; seconds."""
        own = os.times()
        return time.monotonic(), busy_seconds(_STAT.read_text(), self._cpus), own.user + own.system
