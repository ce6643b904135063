"""What a probe is: its options, and what it does with a run, a set of images, or several of either.

A probe is a small frozen pydantic model; its fields are its options, so that they are checked, described and recorded
without further code. probes/registry.py finds probes by name, probes/testing.py holds the promises that each keeps.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from moe.data.readers import Progress
from moe.data.store import ImageStore
from probes.subject import Subject

Numbers = dict[str, float | int | None]
Baseline = Literal["untrained", "shared", "embedding", "pixels", "one_expert", "random_router"]
READOUT_BASELINES: tuple[Baseline, ...] = ("untrained", "shared", "embedding", "pixels", "one_expert")
GATE_BASELINES: tuple[Baseline, ...] = ("untrained", "random_router")

SEPARATOR = "--"  # in folders' names, which name artifacts too: letters, digits, ".", "_" and "-" alone
_LONGEST = 60  # characters of options in a folder's name


@dataclass(frozen=True)
class Result:
    """What a probe found, beside the files that it wrote.

    Attributes:
        numbers: headline numbers; None where undefined, never NaN. `x_low`, `x_high` and `x_null` belong to `x`; there
            is no `/` in a name.
        notes: what a reader of the numbers must know, e.g. which experts are dead; one sentence each.
        baselines: the same numbers of each baseline, filled in by `--baselines`; a probe leaves it empty.
        record: what else belongs into `result.json`, plain JSON types that are no headline numbers.
    """

    numbers: Numbers
    notes: list[str] = field(default_factory=list)
    baselines: dict[str, Numbers] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


class Probe(BaseModel, ABC):
    """Asks the experts of a run something. Fields are options; equal options and activations give equal files.

    Attributes:
        about: one line for `moe probe --help`; begins with the probe's name.
        baselines: what its numbers are compared with by `--baselines`. Besides the untrained model, which has experts
            and a gate, and a random router, which leaves the readouts as they are, they have one readout and no gate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    about: ClassVar[str]
    baselines: ClassVar[tuple[Baseline, ...]] = ("untrained",)

    def skip(self, store: ImageStore) -> str | None:
        """Why this probe cannot use these images, or None."""
        return None

    def check(self, stores: Sequence[ImageStore]) -> None:
        """Refuse options that fit none of these images.

        Raises:
            UserError: an option names what none of them has.
        """

    @abstractmethod
    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Ask one run on one set of images: tables (.csv) and figures (.png) into `folder`, which exists."""

    def across_runs(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result | None:
        """Ask several runs together, on one set of images; None if the probe has nothing to say about that."""
        return None

    def across_images(self, subjects: Sequence[Subject], folder: Path, progress: Progress) -> Result | None:
        """Ask one run on several sets of images together; None if the probe has nothing to say about that."""
        return None

    def options(self) -> dict[str, Any]:
        """All options as plain JSON types."""
        return self.model_dump(mode="json")

    def label(self, name: str) -> str:
        """Name of the folder for results: the probe's name, and the options that are not the default.

        So results under other options never lie where those of the defaults are looked for.
        """
        default = {key: value.get_default(call_default_factory=True) for key, value in type(self).model_fields.items()}
        changed = {key: value for key, value in self.model_dump().items() if value != default[key]}
        if not changed:
            return name
        plain = {key: value for key, value in self.options().items() if key in changed}
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
        text = SEPARATOR.join(f"{key}-{value}" for key, value in values.items())
        if len(text) > _LONGEST or not all(re.fullmatch(r"[A-Za-z0-9._]+", value) for value in values.values()):
            digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
            text = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', text)[:_LONGEST]}-{digest}"
        return f"{name}{SEPARATOR}{text}"
