"""Probes that fail are named, and hinder no other."""

from collections.abc import Callable
from typing import TypeVar

from moe.errors import UserError
from sweeps.console import failure

Found = TypeVar("Found")


class ProbesFailedError(Exception):
    """Some probes failed; the results of all others are written. Exit code 1."""


class Failures:
    """What failed on the way through many probes.

    Attributes:
        found: what was tried, and how it ended.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.found: list[tuple[str, Exception]] = []
        self._report = report

    def attempt(self, what: str, work: Callable[[], Found]) -> Found | None:
        """Do the work and give what it gives; None if it fails, which is reported at once and kept.

        Args:
            what: the probe, the images and the run, for people.
            work: called without arguments.
        """
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - a probe, ours or another package's, may fail in any way
            self.found.append((what, error))
            self._report(f"  {what} failed: {_said(error)}")
            return None

    def end(self) -> None:
        """Raise ProbesFailedError if anything failed, with the first failure as its cause."""
        if self.found:
            (what, error), count = self.found[0], len(self.found)
            many = f"{count} probes" if count > 1 else "1 probe"
            raise ProbesFailedError(f"{many} failed, first {what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else failure(error)
