"""The text of a sweep file, and the line in which everything in it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import yaml

from moe.errors import UserError, suggest

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The file that a sweep came from, and the line of every key and list item in it."""

    file: str
    lines: Mapping[Keys, int]

    def where(self, at: Keys) -> str:
        """``FILE:LINE: `` of a place in the file, or of the nearest thing around it that the file has."""
        while at and at not in self.lines:
            at = at[:-1]
        return f"{self.file}:{self.lines.get(at, 1)}: "

    def error(self, at: Keys, message: str) -> UserError:
        """The error for a mistake at a place in the file."""
        return UserError(self.where(at) + message)


def shipped() -> list[str]:
    """Names of the sweep files that come with the package."""
    folder = resources.files("sweeps").joinpath("shipped")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def find(spec: str) -> tuple[str, str]:
    """The label and the text of a sweep file."""
    if Path(spec).is_file():
        try:
            return spec, Path(spec).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{spec}:1: not a text file in UTF-8; save it as UTF-8") from None
        except OSError as error:
            raise UserError(f"{spec}: cannot be read: {error.strerror}") from None
    names = shipped()
    name = spec.removesuffix(".yaml") + ".yaml"
    if name in names:
        return name, resources.files("sweeps").joinpath("shipped", name).read_text(encoding="utf-8")
    hint = suggest(PurePath(spec).stem, [PurePath(known).stem for known in names])
    fix = hint if hint.startswith("did you mean") else "check the path"
    raise UserError(f'no sweep file "{spec}" (shipped are {", ".join(names)}); {fix}')


def read(file: str, text: str) -> tuple[Any, Source]:
    """The content of a YAML file and the lines of its keys and items."""
    lines: dict[Keys, int] = {}
    source = Source(file, lines)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise source.error((), "the file is empty; start with method: and parameters:")
        return _Reader(loader, source, lines).convert(root, ()), source
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines[()] = mark.line + 1 if mark else 1
        raise source.error((), _syntax(error)) from None
    except yaml.reader.ReaderError as error:
        lines[()] = text.count("\n", 0, error.position) + 1
        raise source.error((), "not valid YAML: an unprintable character; remove it") from None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    fix = "check indentation, colons and brackets here"
    if "\\t" in problem:
        fix = "indent with spaces, not tabs"
    elif "tag" in problem:
        fix = "remove the tag"
    return f"not valid YAML: {problem}; {fix}"


class _Reader:
    """Turns YAML nodes into Python values: keys stay as written, lines are kept, duplicates refused."""

    def __init__(self, loader: yaml.SafeLoader, source: Source, lines: dict[Keys, int]) -> None:
        self.loader, self.source, self.lines = loader, source, lines
        self.open: set[int] = set()
        self.merged: set[int] = set()

    def convert(self, node: yaml.Node, at: Keys) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            try:
                return self.loader.construct_object(node)
            except ValueError:  # a date that does not exist
                problem = f"{node.value} is no valid value; put it in quotes if text is meant"
                raise self.source.error(at, problem) from None
        if id(node) in self.open:
            raise self.source.error(at, "an alias refers to the mapping or list it stands in; write the values out")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return {key: self.convert(value, (*at, key)) for key, value in self._pairs(node, at)}
            return [self.convert(item, (*at, str(index))) for index, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def _pairs(self, node: yaml.MappingNode, at: Keys) -> list[tuple[str, yaml.Node]]:
        if id(node) not in self.merged:  # an alias brings the same node again, its merges already made
            self.merged.add(id(node))
            self._refuse_duplicates(node)
            self.loader.flatten_mapping(node)
        for key, _ in node.value:
            self.lines[*at, key.value] = key.start_mark.line + 1
        return [(key.value, value) for key, value in node.value]

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            where = f"{self.source.file}:{line}: "
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{where}a key must be plain text; check the brackets and the indentation")
            if key.value in first:
                raise UserError(f'{where}"{key.value}" is given twice, first in line {first[key.value]}; keep one')
            first[key.value] = line
