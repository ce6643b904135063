"""Where the `moe` command starts: it finds this project's own modules, whatever else has a name of theirs.

A folder on PYTHONPATH comes before installed packages, so a `cli.py` or `probes/` of the user's there would be run in
place of ours.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

_OURS = ("cli", "probes", "sweeps", "callbacks", "moe")


def main() -> None:
    """Run the command, with our folder before the first that would hide a module of ours."""
    here = str(Path(__file__).resolve().parent)
    for place, entry in enumerate(sys.path):
        if entry == here:
            break
        found = (PathFinder.find_spec(name, [entry]) for name in _OURS)
        if any(spec is not None and spec.loader is not None for spec in found):
            sys.path.insert(place, here)
            break
    from moe.importing import leaving

    with leaving():
        import cli

        cli.main()


if __name__ == "__main__":
    main()
