"""Small files that are replaced whole: a reader sees the old one or the new one."""

import json
from pathlib import Path
from typing import Any

from moe.files import replacing


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Args:
        path: the file.
        value: its content.
        durable: through a power failure too; what is written twice a second need not be.
    """
    text = json.dumps(value, indent=2) + "\n"
    with replacing(path, durable=durable) as partial:
        partial.write_text(text)


def read_json(path: Path) -> Any:
    """JSON of a file, or None if it does not exist."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
