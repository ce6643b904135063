"""Numbers, pictures, tables and folders in the form that W&B takes."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe.files import content


@dataclass(frozen=True)
class Picture:
    """A picture (.png) and what stands below it."""

    file: Path
    caption: str | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        source: its file (.csv), or its rows, the header first.
        about: columns with one value for all rows, put first where the table has none of that name: tables of many
            runs are shown as one.
    """

    source: Path | Sequence[Sequence[Any]]
    about: Mapping[str, Any] = field(default_factory=dict)


Value = float | int | str | Picture | Table


@dataclass(frozen=True)
class Parcel:
    """Files that travel together, as a version of an artifact; equal files are no new version.

    Attributes:
        name: of the artifact.
        kind: its type.
        files: by their names in the artifact.
        aliases: of this version, beside `latest`.
        metadata: of this version.
        inputs: artifacts that it was made from, as [ENTITY/PROJECT/]NAME:ALIAS.
    """

    name: str
    kind: str
    files: Mapping[str, Path]
    aliases: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[str] = ()

    def version(self) -> Any:
        """W&B's object of it, which has its digest."""
        import wandb

        artifact = wandb.Artifact(self.name, type=self.kind, metadata=dict(self.metadata))
        for name, file in self.files.items():
            artifact.add_file(str(file), name=name, policy="immutable")
        return artifact


def wandb_values(values: Mapping[str, Value]) -> dict[str, Any]:
    """Values by key, pictures and tables read from their files."""
    return {key: _wandb_value(value) for key, value in values.items()}


def _wandb_value(value: Value) -> Any:
    import wandb

    if isinstance(value, Picture):
        return wandb.Image(str(value.file), caption=value.caption)
    return _table(value) if isinstance(value, Table) else value


def _table(table: Table) -> Any:
    import wandb

    if isinstance(table.source, Path):
        header, *lines = list(csv.reader(io.StringIO(content(table.source).decode(), newline="")))
        rows = [list(row) for row in typed(lines)]
    else:
        header, *rows = [list(row) for row in table.source]
    new = {name: value for name, value in table.about.items() if name not in header}
    data = [[*new.values(), *row] for row in rows]
    return wandb.Table(columns=list[str | int]([*new, *header]), data=data)


def typed(rows: list[list[str]]) -> list[Iterable[Any]]:
    """CSV cells with a column's numbers as numbers, if it holds nothing else: W&B refuses a mixture."""
    columns = [[_number(cell) for cell in column] for column in zip(*rows, strict=True)]
    texts = [any(isinstance(cell, str) for cell in column) for column in columns]
    return [
        [cell if text else number for cell, text, number in zip(row, texts, numbers, strict=True)]
        for row, numbers in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def _number(cell: str) -> float | str | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return cell
