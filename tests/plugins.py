"""A package of somebody else's: modules and entry points in a folder, found once the folder is on sys.path."""

from pathlib import Path


def write_plugin(folder: Path, modules: dict[str, str], groups: dict[str, dict[str, str]]) -> Path:
    """Write an installed package.

    Args:
        folder: stands in for site-packages; for other processes, PYTHONPATH names it.
        modules: name -> source text.
        groups: entry points, group -> name -> ``module:object``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder
