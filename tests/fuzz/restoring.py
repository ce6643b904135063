"""A folder as it was, after inputs that changed something in it."""

import os
import shutil
import stat
from pathlib import Path

SAME = ("st_mode", "st_size", "st_mtime_ns")


def restore(root: Path, source: Path, originals: dict[Path, os.stat_result]) -> None:
    """Make a folder equal to its originals: what has another kind, size or time goes, what lacks is copied.

    Most is as it was, and a copy of all would cost more than what is tested.
    """
    root.mkdir(exist_ok=True)
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            found, wanted = path.lstat(), originals.get(path.relative_to(root))
            if wanted and stat.S_ISDIR(found.st_mode) and stat.S_ISDIR(wanted.st_mode):
                continue
            if wanted and all(getattr(found, key) == getattr(wanted, key) for key in SAME):
                continue
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path)
                folders.remove(name)
            else:
                path.unlink()
    for file, status in sorted(originals.items()):
        if stat.S_ISDIR(status.st_mode):
            (root / file).mkdir(exist_ok=True)
        elif not os.path.lexists(root / file):
            shutil.copy2(source / file, root / file)


def statuses(root: Path) -> dict[Path, os.stat_result]:
    """Of everything below a folder."""
    return {file.relative_to(root): file.lstat() for file in root.rglob("*")}
