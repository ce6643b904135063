"""Faults that a test puts between the client and the server."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["status", "hang", "cut", "lose"]


@dataclass
class Fault:
    """What happens to the requests whose label contains `match`.

    The label is the operation's name for GraphQL, else method and path, such as `POST /files/me/moe/ab12/file_stream`.

    Attributes:
        kind: "status" answers with `status`; "hang" answers after `seconds`; "cut" closes the connection unread; "lose"
            does what was asked and closes the connection without an answer.
        count: so many requests; None until the fault is taken away.
        hits: requests that it met.
    """

    kind: Kind
    match: str = ""
    status: int = 500
    seconds: float = 0.0
    count: int | None = None
    hits: int = 0
    over: threading.Event = field(default_factory=threading.Event)


class Faults:
    """The faults in force, oldest first; the first that fits a request is the one that strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """End a fault; requests that hang in it go on at once."""
        fault.over.set()
        with self._lock, contextlib.suppress(ValueError):
            self._faults.remove(fault)

    def clear(self) -> None:
        for fault in list(self._faults):
            self.remove(fault)

    def fail(self, count: int, status: int = 500, match: str = "") -> Fault:
        """Answer the next `count` requests with an error."""
        return self.add(Fault("status", match, status=status, count=count))

    @contextlib.contextmanager
    def during(self, kind: Kind, match: str = "", *, status: int = 500, seconds: float = 0.0) -> Iterator[Fault]:
        """A fault for as long as the block lasts."""
        fault = self.add(Fault(kind, match, status=status, seconds=seconds))
        try:
            yield fault
        finally:
            self.remove(fault)

    def lasting(self, seconds: float, kind: Kind, match: str = "", *, status: int = 500) -> Fault:
        """A fault that ends by itself, for a client that runs in this thread."""
        fault = self.add(Fault(kind, match, status=status, seconds=seconds))
        timer = threading.Timer(seconds, self.remove, [fault])
        timer.daemon = True
        timer.start()
        return fault

    def strike(self, label: str) -> Fault | None:
        """The fault that this request meets; waits out a "hang"."""
        with self._lock:
            fault = next((each for each in self._faults if each.match in label), None)
            if fault is None:
                return None
            fault.hits += 1
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self._faults.remove(fault)
        if fault.kind == "hang":
            fault.over.wait(fault.seconds)
            return None
        return fault


def wait_until(condition, seconds: float = 30.0, what: str = "the condition"):
    """Poll until the condition holds and return what it gave; fail with a name after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true in {seconds:g} s")
        time.sleep(0.02)
    return result
