"""Named things that can be chosen: those that come along, and those that other packages bring by entry points.

    [project.entry-points."moe.probes"]
    curvature = "my_package.curvature:CurvatureProbe"

There is one Registry for each kind of thing. Nothing here imports torch; what is registered is imported when it is
asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from moe.errors import UserError, unknown

T = TypeVar("T")


def load(reference: str) -> Any:
    """The object that ``package.module:name`` refers to; its module is imported."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


class Registry(Generic[T]):
    """The things of one kind by name.

    Guarantees
    ----------
    Order. What comes along is listed first, in the order given; what other packages bring follows, by name.

    Laziness. Names are known without an import. Asking for one imports the module of that one alone.

    Isolation. An entry point that cannot be loaded, is not of this kind, or takes a name that exists, hinders no
    other: `broken` says why, and asking for its name does.

    Stability. The same name is the same object for the life of the process, or until `forget`.

    Args:
        kind: the word for one of them in messages, e.g. ``gate``.
        group: the entry points' group, e.g. ``moe.gates``.
        shipped: name -> ``package.module:name`` of what comes along.
        check: given what was loaded and its name, returns what `registry[name]` is to be; raises UserError with what
            is missing where it is not of this kind.
    """

    def __init__(self, kind: str, group: str, shipped: Mapping[str, str], check: Callable[[Any, str], T]) -> None:
        self.kind, self.group = kind, group
        self._shipped = dict(shipped)
        self._check = check
        self._loaded: dict[str, T] = {}
        self._failed: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        """Every name, without an import."""
        return iter([*self._shipped, *self._brought()])

    def __contains__(self, name: object) -> bool:
        return name in self._shipped or name in self._brought()

    def __len__(self) -> int:
        return len(self._shipped) + len(self._brought())

    def __getitem__(self, name: str) -> T:
        """The thing of that name.

        Raises:
            UserError: no such name (the likeliest one meant is named), or its package cannot be loaded.
        """
        if name in self._shipped:
            if name not in self._loaded:
                self._loaded[name] = self._check(load(self._shipped[name]), name)
        elif name not in self._brought():
            raise unknown(self.kind, name, self)
        elif reason := self._failure(name):
            raise UserError(f'the {self.kind} "{name}" cannot be loaded ({reason})')
        return self._loaded[name]

    def usable(self) -> dict[str, T]:
        """Name -> thing, of all that can be loaded."""
        return {name: self[name] for name in self if name in self._shipped or not self._failure(name)}

    def broken(self) -> dict[str, str]:
        """Name -> why it cannot be used, of entry points."""
        failures = {name: self._failure(name) for name in self._brought()}
        return self._clashes() | {name: reason for name, reason in failures.items() if reason}

    def forget(self) -> None:
        """Look for entry points anew, for tests that install some."""
        _installed.cache_clear()
        self._loaded.clear()
        self._failed.clear()

    def _brought(self) -> dict[str, EntryPoint]:
        """Name -> entry point; the first of several of one name, none of a name that comes along."""
        found: dict[str, EntryPoint] = {}
        for entry in _installed(self.group):
            if entry.name not in self._shipped:
                found.setdefault(entry.name, entry)
        return found

    def _clashes(self) -> dict[str, str]:
        brought = self._brought()
        return {
            entry.name: f"{_source(entry)}: the name {entry.name} is taken by {owner}"
            for entry in _installed(self.group)
            if (owner := self._shipped.get(entry.name) or _source(brought[entry.name])) != _source(entry)
        }

    def _failure(self, name: str) -> str | None:
        """Why an entry point cannot be used; loads it."""
        if name not in self._loaded and name not in self._failed:
            entry = self._brought()[name]
            try:
                self._loaded[name] = self._check(entry.load(), name)
            except UserError as error:
                self._failed[name] = f"{_source(entry)}: {error}"
            except Exception as error:  # noqa: BLE001 - other people's code may fail in any way
                self._failed[name] = f"{_source(entry)}: {type(error).__name__}: {error}"
        return self._failed.get(name)


def _source(entry: EntryPoint) -> str:
    return f"{entry.value} of {entry.dist.name}" if entry.dist else entry.value


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)))
