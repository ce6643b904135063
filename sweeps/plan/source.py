"""The text of a sweep file, and the line in which everything in it stands."""

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

import yaml

from moe.config import misread
from moe.errors import UserError, suggest, unknown
from moe.files import is_file, is_folder
from moe.wording import reason

Keys = tuple[str, ...]
_LONGEST = 250_000  # characters; PyYAML reads about that many in a second
_MOST_VALUES = 100_000
_LARGEST = 2**63  # whole numbers that other programs take, too
_PLAIN = (yaml.resolver.Resolver.DEFAULT_MAPPING_TAG, yaml.resolver.Resolver.DEFAULT_SEQUENCE_TAG)
_SHOWN = 60
_NO_VALUE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # PyYAML's answers to odd scalars


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


def shipped_text(name: str) -> str:
    """The text of a sweep file that comes with the package; its comment says what it is for.

    Raises:
        UserError: there is none of this name.
    """
    full, names = name.removesuffix(".yaml") + ".yaml", shipped()
    if full not in names:
        raise unknown("shipped sweep file", name, [PurePath(known).stem for known in names])
    return resources.files("sweeps").joinpath("shipped", full).read_text(encoding="utf-8")


def about(text: str) -> str:
    """What the first paragraph of a sweep file's comment says it is for."""
    lines = (line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), text.splitlines()))
    return " ".join(takewhile(bool, lines))


def find(spec: str) -> tuple[str, str]:
    """The label and the text of a sweep file."""
    if is_file(Path(spec)):
        return spec, text_of(spec)
    names = shipped()
    name = spec.removesuffix(".yaml") + ".yaml"
    if name in names:
        return name, shipped_text(name)
    if is_folder(Path(spec)):
        raise UserError(f'"{spec}" is a folder, not a sweep file; name a file in it')
    hint = suggest(PurePath(spec).stem, [PurePath(known).stem for known in names])
    fix = hint if hint.startswith("did you mean") else "check the path"
    raise UserError(f'no sweep file "{as_text(spec)}" (shipped are {", ".join(names)}); {fix}')


def as_text(value: str) -> str:
    """Text of a file in a message: not longer than a line, and printable."""
    short = value if len(value) <= _SHOWN else value[: _SHOWN - 2] + ".."
    return short.encode("utf-8", "backslashreplace").decode()


def text_of(path: str) -> str:
    """The text of a file, with or without a byte order mark.

    Raises:
        UserError: there is none, it is no text, or cannot be read.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return file.read(_LONGEST + 1)
    except UnicodeDecodeError:
        raise UserError(f"{path}:1: not a text file in UTF-8; save it as UTF-8") from None
    except FileNotFoundError:
        raise UserError(f"the file {path} does not exist; check the path") from None
    except (OSError, ValueError) as error:  # as no file can have such a name, say
        raise UserError(f"{path}: cannot be read: {reason(error)}") from None


def read(file: str, text: str) -> tuple[Any, Source]:
    """The content of a YAML file and the lines of its keys and items.

    Raises:
        UserError: it is empty, no YAML, too large, or holds something that is no plain value.
    """
    lines: dict[Keys, int] = {}
    source = Source(file, lines)
    if len(text) > _LONGEST:
        problem = f"more than {_LONGEST:,} characters; list fewer values, or give min and max"
        raise source.error((), problem)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None, source
        return _Reader(loader, source, lines).convert(root, ()), source
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines[()] = mark.line + 1 if mark else 1
        raise source.error((), _syntax(error)) from None
    except yaml.reader.ReaderError as error:
        lines[()] = text.count("\n", 0, error.position) + 1
        raise source.error((), "not valid YAML: an unprintable character; remove it") from None
    except RecursionError:
        raise source.error((), "lists or mappings stand too deep in each other; write fewer brackets") from None
    except _NO_VALUE:  # the scanner itself, at an escape that is no character
        raise source.error((), "not valid YAML: a character that does not exist; remove it") from None


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
    """Turns YAML nodes into Python values: keys stay as written, lines are kept, duplicates refused.

    Aliases are written out, up to a bound: a few lines of them can stand for more values than fit into memory.
    """

    def __init__(self, loader: yaml.SafeLoader, source: Source, lines: dict[Keys, int]) -> None:
        self.loader, self.source, self.lines = loader, source, lines
        self.open: set[int] = set()
        self.pairs: dict[int, dict[str, tuple[int, yaml.Node]]] = {}
        self.count = 0

    def convert(self, node: yaml.Node, at: Keys) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        self.count += 1
        if self.count > _MOST_VALUES:
            fix = "list fewer, or give min and max"
            raise self.source.error(at, f"more than {_MOST_VALUES:,} values, aliases written out; {fix}")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if node.tag not in _PLAIN:
            tag = as_text(node.tag.replace("tag:yaml.org,2002:", "!!"))
            raise self.source.error(at, f"the tag {tag} makes no plain list or mapping; remove it")
        with self._opened(node, at):
            if isinstance(node, yaml.MappingNode):
                pairs = self._pairs(node, at)
                self.lines.update({(*at, key): line for key, (line, _) in pairs.items()})
                return {key: self.convert(value, (*at, key)) for key, (_, value) in pairs.items()}
            return [self.convert(item, (*at, str(index))) for index, item in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, at: Keys) -> Any:
        try:
            value = self.loader.construct_object(node)
        except _NO_VALUE:  # a date that does not exist, a word with a tag that it does not suit
            problem = f"{as_text(node.value)} is no valid value; put it in quotes if text is meant"
            raise self.source.error(at, problem) from None
        if isinstance(value, str):
            return self._text(value, at)
        if isinstance(value, dt.date | bytes):
            what = "binary data" if isinstance(value, bytes) else "a date"
            raise self.source.error(at, f"{as_text(node.value)} is {what} in YAML; put it in quotes if text is meant")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise self.source.error(at, f"{as_text(node.value)} is too large for a whole number; write a smaller one")
        if other := misread(node.value, value):
            raise self.source.error(at, other)
        return value

    def _text(self, text: str, at: Keys) -> str:
        """Text whose characters exist: JSON writes one beyond the first 65,536 as a pair of halves."""
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            problem = f"{as_text(text)} holds half of a character; write it whole"
            raise self.source.error(at, problem) from None

    @contextlib.contextmanager
    def _opened(self, node: yaml.Node, at: Keys) -> Iterator[None]:
        if id(node) in self.open:
            raise self.source.error(at, "an alias refers to the mapping or list it stands in; write the values out")
        self.open.add(id(node))
        try:
            yield
        finally:
            self.open.discard(id(node))

    def _pairs(self, node: yaml.MappingNode, at: Keys) -> dict[str, tuple[int, yaml.Node]]:
        """Every key of a mapping with its line and node, those that `<<` brings first; read once an alias or not."""
        if id(node) in self.pairs:
            return self.pairs[id(node)]
        found: dict[str, tuple[int, yaml.Node]] = {}
        own = self._own(node)
        for key, (_, value) in own.items():
            if key == "<<":
                for merged in reversed(self._merged(value)):
                    with self._opened(merged, at):
                        found |= self._pairs(merged, at)
        found |= {key: pair for key, pair in own.items() if key != "<<"}
        self.pairs[id(node)] = found
        return found

    def _merged(self, value: yaml.Node) -> list[yaml.MappingNode]:
        """The mappings that `<<` names, one or a list of them."""
        found: dict[int, yaml.MappingNode] = {}
        for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(node, yaml.MappingNode):
                where = f"{self.source.file}:{value.start_mark.line + 1}: "
                raise UserError(f"{where}<< needs a mapping or a list of mappings; name one by its alias")
            found.setdefault(id(node), node)
        return list(found.values())

    def _own(self, node: yaml.MappingNode) -> dict[str, tuple[int, yaml.Node]]:
        found: dict[str, tuple[int, yaml.Node]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            where = f"{self.source.file}:{line}: "
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{where}a key must be plain text; check the brackets and the indentation")
            name = self._text(key.value, ())
            if name in found:
                raise UserError(f'{where}"{name}" is given twice, first in line {found[name][0]}; keep one')
            found[name] = (line, value)
        return found
