"""What a sweep has for the paper's figures: example runs, sets of images, tables that probes saved, activations."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from shlex import quote

from moe.data.datasets import DATASETS, open_store
from moe.data.store import ImageStore
from moe.errors import UserError
from probes.activations import Activations, cached
from probes.probe import SEPARATOR
from sweeps.queue.launched import LaunchedSweep
from sweeps.queue.status import filled_cells
from sweeps.runs.files import MISFITS, read_table, reading, unless_damaged
from sweeps.runs.folders import PROBE_AGAIN, ProbedFolder
from sweeps.runs.run import Run
from sweeps.views.compare import Gap

Row = dict[str, str]


class MissingError(Exception):
    """A part of a figure cannot be drawn.

    Attributes:
        gap: what is missing, and the command that fills it.
    """

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.text)
        self.gap = gap


class Sources:
    """A sweep's results, as the paper's figures need them.

    The paper shows one example model for each number of experts E. Here that is the first finished run with that E,
    one that has been probed before one that has not.

    Attributes:
        sweep: the sweep.
        runs: its finished runs whose configuration can be read.
    """

    def __init__(self, sweep: LaunchedSweep) -> None:
        self.sweep = sweep
        runs = [sweep.store.run(cell.run_id) for cell in filled_cells(sweep)]
        self.runs = [
            run for run in runs if run.finished and unless_damaged(partial(getattr, run, "config"), None) is not None
        ]
        self._results = {run.id: [(images, probe) for images, probe, _ in run.probe_results()] for run in self.runs}
        self._stores: dict[str, ImageStore | UserError] = {}
        self._last = sweep.folder.path

    @cached_property
    def examples(self) -> dict[int, Run]:
        """The example of each E, in ascending order."""
        found: dict[int, Run] = {}
        for run in sorted(self.runs, key=lambda one: not self._results[one.id]):
            found.setdefault(run.config.model.experts, run)
        return dict(sorted(found.items()))

    def title(self, experts: int) -> str:
        """``E = 4, k = 2``, as the paper heads its tables."""
        return f"E = {experts}, k = {self.examples[experts].config.model.top_k}"

    @cached_property
    def labelled(self) -> str | None:
        """Images with classes that runs were probed with (the paper: STL-10's test images).

        Those without rated dimensions come first, then those that no run was trained or validated on.
        """
        rated = self._probed("tuning")
        sets = [images for images in self._probed("separability") + self._probed("routing") if SEPARATOR not in images]
        return min(dict.fromkeys(sets), key=lambda one: (one in rated, one in self._trained_on), default=None)

    @cached_property
    def rated(self) -> str | None:
        """Images with rated dimensions that runs were probed with (the paper: THINGS)."""
        return next(iter(self._probed("tuning")), None)

    @property
    def sets(self) -> list[str]:
        """Labelled images, then rated ones."""
        return list(dict.fromkeys(name for name in (self.labelled, self.rated) if name))

    @cached_property
    def _trained_on(self) -> set[str]:
        data = [run.config.data for run in self.runs]
        return {part for one in data for part in [*one.name.split("+"), one.validation or ""]}

    def _probed(self, probe: str) -> list[str]:
        done = (one for results in self._results.values() for one in results)
        return list(dict.fromkeys(images for images, name in done if name == probe))

    def command(self, probe: str, images: str | None = None) -> str:
        """What fills a probe's results."""
        which = f" --images {quote(images)}" if images else ""
        return f"moe probe --sweep {quote(self.sweep.name)}{which} --probe {probe}"

    def lacks(self, what: str, probe: str, images: str | None = None) -> MissingError:
        """That a probe has to be run for something."""
        return MissingError(Gap(f"{what} is missing", self.command(probe, images)))

    def table(self, folder: ProbedFolder, images: str, probe: str, file: str, columns: Sequence[str]) -> list[Row]:
        """Rows of a table that a probe saved.

        Raises:
            MissingError: there is none, it is damaged, or lacks one of the columns.
        """
        path = folder.probe(images, probe) / file
        rows: list[Row] = unless_damaged(partial(read_table, path, PROBE_AGAIN), [])
        self._last = path
        if not rows or not set(columns) <= rows[0].keys():
            whose = f"of run {folder.id}" if isinstance(folder, Run) else "of all runs together"
            raise self.lacks(f"{probe} on {images} {whose}", probe, images)
        return rows

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around what takes tables apart: what goes wrong there is the damage of the table that was read last.

        Raises:
            DamagedFileError: a table does not hold what it should.
        """
        self._last = self.sweep.folder.path
        try:
            yield
        except MISFITS:
            with reading(self._last, PROBE_AGAIN):
                raise

    def store(self, images: str) -> ImageStore:
        """Images, from this machine.

        Raises:
            MissingError: they are not here.
        """
        if images not in self._stores:
            try:
                self._stores[images] = open_store(images)
            except UserError as error:
                self._stores[images] = error
        found = self._stores[images]
        if isinstance(found, ImageStore):
            return found
        owner = next((key for key, one in DATASETS.usable().items() if images in (one.train, *one.probes)), None)
        command = f"moe data prepare {owner}" if owner else f"moe data import {quote(images)} PATH"
        raise MissingError(Gap(f"the images {images} are not on this machine", command))

    def activations(self, run: Run, images: str) -> Activations:
        """A run's saved activations.

        Raises:
            MissingError: they are not saved, or the images are not here.
        """
        found = cached(run, self.store(images))
        if found is None:
            command = f"moe probe --run {run.id} --images {quote(images)} --probe coupling"
            raise MissingError(Gap(f"the saved activations of run {run.id} to {images} are missing", command))
        return found
