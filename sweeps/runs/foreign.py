"""What is kept of a model that was trained elsewhere: where its results lie, and what it was."""

from functools import partial
from typing import Any

from pydantic import TypeAdapter

from sweeps.runs.files import read_typed, unless_damaged, write_json
from sweeps.runs.folders import PROBE_AGAIN, ForeignFolder
from sweeps.runs.store import RunStore

_FACTS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class ForeignRun(ForeignFolder):
    """A model that was trained elsewhere, with results of probes. Its id is a factory's name and a checksum."""

    @property
    def about(self) -> dict[str, Any]:
        """What it was asked for by, and its weights; empty, and said, if the file is damaged."""
        return unless_damaged(partial(read_typed, self.about_file, _FACTS, {}, PROBE_AGAIN), {})

    def describe(self, about: dict[str, Any]) -> None:
        """Write down what it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.about_file, about)


def foreign_runs(store: RunStore) -> list[ForeignRun]:
    """Every model that was trained elsewhere and probed here."""
    return [ForeignRun(store.root, name) for name in store.home.models()]
