"""Signals by which a process is told to stop, taken in place of what they would do."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOP = (signal.SIGTERM, signal.SIGINT)


def take(act: Callable[[int], None], *numbers: int) -> None:
    """From now on call `act` with the number of each of these signals that arrives. For the main thread alone."""
    for number in numbers:
        signal.signal(number, lambda number, _frame: act(number))


@contextlib.contextmanager
def handling(act: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """Call `act` with the number of each of these signals (default: STOP) that arrives meanwhile.

    Afterwards they do what they did before. In a thread other than the main one, which gets no signals, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = numbers or STOP
    previous = {number: signal.getsignal(number) for number in chosen}
    take(act, *chosen)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def noted(*numbers: int) -> Iterator[list[int]]:
    """The signals of these kinds (default: STOP) that arrive meanwhile."""
    arrived: list[int] = []
    with handling(arrived.append, *numbers):
        yield arrived
