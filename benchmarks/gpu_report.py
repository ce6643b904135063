"""gpu_check: its findings as Markdown tables."""

from typing import Any


def markdown(findings: dict[str, Any]) -> str:
    """One table a section, and what failed, first."""
    hardware = findings.get("hardware", {})
    lines = [f"# gpu_check: {hardware.get('device', 'unknown device')}, torch {hardware.get('torch', '?')}", ""]
    failed = {name: found["failed"] for name, found in findings.items() if "failed" in found}
    lines += [f"- **{name} failed**: {why}" for name, why in failed.items()]
    for name, found in findings.items():
        rows = {key: value for key, value in found.items() if key not in ("failed", "seconds")}
        nested = {key: value for key, value in rows.items() if isinstance(value, dict)}
        flat = {key: value for key, value in rows.items() if key not in nested}
        lines += ["", f"## {name} ({found.get('seconds', '?')} s)", ""]
        lines += _table(["", "value"], [[key, value] for key, value in flat.items()])
        for columns in dict.fromkeys(tuple(value) for value in nested.values()):
            same = {key: value for key, value in nested.items() if tuple(value) == columns}
            lines += ["", *_table(["", *columns], [[key, *value.values()] for key, value in same.items()])]
    return "\n".join([*lines, ""])


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    if not rows:
        return []
    texts = [[_text(cell) for cell in row] for row in [head, *rows]]
    marks = ["|".join(["", *("---" for _ in head), ""])]
    body = [" | ".join(["", *row, ""]).strip() for row in texts]
    return [body[0], *marks, *body[1:]]


def _text(cell: Any) -> str:
    if isinstance(cell, dict):
        return "; ".join(f"{key}: {_text(value)}" for key, value in cell.items()).replace("|", "/")
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell).replace("|", "/").replace("\n", " ")
