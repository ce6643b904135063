"""Signals by which a process is told to stop, taken in place of what they would do."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last as a terminal is closed


def take(act: Callable[[int], None], *numbers: int) -> None:
    """From now on call `act` with the number of each of these signals (default: STOP) that arrives.

    Only the main thread gets signals; for another one nothing changes, here and below. What `nohup` let this process
    ignore stays ignored.
    """
    if threading.current_thread() is threading.main_thread():
        for number in numbers or STOP:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _frame: act(number))


@contextlib.contextmanager
def handling(act: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """The same meanwhile; afterwards the signals do what they did before."""
    previous = {number: signal.getsignal(number) for number in numbers or STOP}
    take(act, *numbers)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def noted(*numbers: int) -> Iterator[list[int]]:
    """The signals of these kinds (default: STOP) that arrive meanwhile."""
    arrived: list[int] = []
    with handling(arrived.append, *numbers):
        yield arrived
