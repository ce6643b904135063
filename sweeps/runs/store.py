"""All runs under one home."""

import contextlib
import re
import uuid
from functools import partial
from pathlib import Path

from moe.config import RunConfig
from moe.errors import UserError, suggest
from moe.files import content
from sweeps.runs.files import read_json, unless_damaged, write_json
from sweeps.runs.folders import HomeFolder
from sweeps.runs.run import Run, stored_state

_WORD = re.compile("[0-9a-f]{32}")


class RunStore:
    """All runs under one home.

    Args:
        root: `MOE_HOME`; None: as the environment says.

    Attributes:
        home: its folder, by name.
        root: its path.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.home = HomeFolder(root)
        self.root = self.home.path

    def names(self) -> tuple[str, ...]:
        """What tells this home from others on the same database: a word of its own, and its path.

        The word stays when the home is moved or mounted elsewhere, and a home of the same path on another machine has
        another one. It is made at the first call; a home that may only be read and has none goes by its path.
        """
        path, file = f"{self.root.absolute()}", self.home.identity_file
        try:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError), file.open("x") as new:  # another process was first
                    new.write(uuid.uuid4().hex)
            word = content(file).decode()
        except (OSError, ValueError):
            return (path,)
        return (word, path) if _WORD.fullmatch(word) else (path,)  # not if it is just being written

    def run(self, run_id: str) -> Run:
        """The run of this id, whether it exists or not."""
        return Run(self.root / run_id)

    def create(self, config: RunConfig) -> Run:
        """The run of a configuration; its directory and config file are made if absent."""
        run = self.run(config.identity())
        content = config.model_dump(mode="json")
        # machine settings are no part of the identity, so an unfinished run may go on with other ones
        if (
            not run.finished
            and unless_damaged(partial(read_json, run.config_file, "it is written again"), None) != content
        ):
            write_json(run.config_file, content)
        return run

    def all(self) -> list[Run]:
        """Every run, oldest first."""
        return [Run(file.parent) for file in sorted(self.home.configs(), key=lambda file: file.stat().st_mtime)]

    def finished_ids(self) -> set[str]:
        """Ids of all finished runs; reads one small file a run."""
        return {file.parent.name for file in self.home.states() if stored_state(file).state == "finished"}

    def begun_ids(self) -> set[str]:
        """Ids of all runs that have a checkpoint."""
        return {folder.parent.name for folder in self.home.checkpoints()}

    def find(self, run_id: str) -> Run:
        """A run by its id or an unambiguous beginning of it.

        Raises:
            UserError: there is none, or several.
        """
        ids = [run.id for run in self.all()]
        matches = [known for known in ids if known == run_id] or [k for k in ids if run_id and k.startswith(run_id)]
        if not matches:
            raise UserError(f'no run "{run_id}" in {self.root}: {suggest(run_id, ids)}')
        if len(matches) > 1:
            raise UserError(f'"{run_id}" begins several run ids: {", ".join(matches)}')
        return self.run(matches[0])
