"""How a trial ended: one type, from the exit code of its worker to the queue and the status."""

import errno
import sys
from enum import Enum
from pathlib import Path

from moe.config import RunConfig, flat
from moe.errors import UserError

# exit codes of the `moe` command
FAILURE = 1
USER_MISTAKE = 2
# of what a sweep started alone, for who started it; people are told by FAILURE (EX_OSERR, EX_IOERR of sysexits.h)
OUT_OF_MEMORY = 71
NO_ROOM = 74
INTERRUPTED = 75  # told to stop; the last checkpoint resumes it (EX_TEMPFAIL of sysexits.h)
STOPPED = 76  # stopped for good by a person, who chose this run in the tracker
STOPPED_EARLY = 77  # stopped for good by the tracker's server: its metric was not among the best

_FULL = (errno.ENOSPC, errno.EDQUOT)
# what torch has no type for: its allocator of the processor's memory, and libraries of a GPU's that have their own
_UNTYPED = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_CUDA_MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation, as torch.AcceleratorError gives it


class InterruptedRunError(Exception):
    """The run was told to stop; its last checkpoint resumes it. Ends with INTERRUPTED."""


class LackOfMemoryError(Exception):
    """A run's memory ran out. Raised from what the system or torch said."""


class Ending(Enum):
    """How a trial of a cell ended. Values are what databases hold."""

    FINISHED = "finished"  # trained to its end; its results lie in its run's folder
    STOPPED_EARLY = "stopped early"  # its metric was not among the best: done, without results
    STOPPED = "stopped by you"  # in the tracker: done, without results, until a person asks for it again
    NOT_NEEDED = "not needed"  # never begun, as the target is reached or nothing new to try: done, no results
    FAILED = "failed"  # by an error of its own
    REFUSED = "refused"  # a mistake that a person has to mend: of no use to repeat
    OUT_OF_MEMORY = "out of memory"
    NO_ROOM = "disk full"
    KILLED = "killed"  # by a signal that came from elsewhere
    TIMED_OUT = "timed out"  # it took longer than it may
    SILENT = "silent"  # it showed no sign of life
    INTERRUPTED = "interrupted"  # told to stop, and handed back
    LOST = "lost"  # its agent died, or was cut off

    @property
    def has_results(self) -> bool:
        """Whether the run's folder holds what was trained."""
        return self is Ending.FINISHED

    @property
    def for_good(self) -> bool:
        """Whether the tracker stopped the run: done, without results."""
        return self in _FOR_GOOD


_FOR_GOOD = {Ending.STOPPED: STOPPED, Ending.STOPPED_EARLY: STOPPED_EARLY}  # and the exit code that says so


class StoppedRunError(InterruptedRunError):
    """The run was stopped for good in the tracker, by a person or early; its last checkpoint is there for who asks.

    Args:
        run_id: of the run.
        ending: who stopped it.
    """

    def __init__(self, run_id: str, ending: Ending) -> None:
        super().__init__(f"run {run_id} was {ending.value} in W&B")
        self.ending = ending


def ending_of_exit(code: int) -> Ending:
    """How a worker ended, by its exit code; negative ones are signals."""
    if code < 0:
        return Ending.KILLED
    named = {
        0: Ending.FINISHED,
        USER_MISTAKE: Ending.REFUSED,
        OUT_OF_MEMORY: Ending.OUT_OF_MEMORY,
        NO_ROOM: Ending.NO_ROOM,
        INTERRUPTED: Ending.INTERRUPTED,
        **{code: ending for ending, code in _FOR_GOOD.items()},
    }
    return named.get(code, Ending.FAILED)


def exit_code_of(error: BaseException) -> int:
    """The exit code by which a process says which kind of error ended it."""
    if _is_no_room(error):
        return NO_ROOM
    if isinstance(error, UserError):
        return USER_MISTAKE
    if isinstance(error, StoppedRunError):
        return _FOR_GOOD[error.ending]
    if isinstance(error, InterruptedRunError):
        return INTERRUPTED
    return OUT_OF_MEMORY if is_out_of_memory(error) else FAILURE


def _is_no_room(error: BaseException) -> bool:
    """Whether the error, or what it was raised from or after, is that of a full disk."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, is a lack of memory, the processor's or a device's."""
    torch = sys.modules.get("torch")  # without it nothing of torch's was raised
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return True
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in _UNTYPED):
            return True
        if torch is not None and isinstance(cause, torch.OutOfMemoryError):
            return True
        accelerator = getattr(torch, "AcceleratorError", None)
        if accelerator is not None and isinstance(cause, accelerator):
            return bool(getattr(cause, "error_code", None) == _CUDA_MEMORY_ALLOCATION)
        cause = cause.__cause__
    return False


def lack_of_memory(config: RunConfig, place: str) -> str:
    """What to say of a run whose memory ran out: its name, where, and the settings to lower."""
    values = flat(config)
    settings = ", ".join(f"{path}={values[path]}" for path in ("train.batch_size", "data.image_size", "model.width"))
    return f"{place} has no more memory for run {config.identity()}; lower {settings}, or let less run beside it"


def memory_kills() -> int:
    """How many processes the system has killed so far as memory ran out; 0 where it does not count them."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))
