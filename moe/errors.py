"""The one exception that means "you can mend this", the one warning for what stops nothing, and words that help."""

import difflib
from collections.abc import Iterable

from moe.wording import visible

_LONGEST = 1_500  # characters of a message
_LONGEST_NAME = 100  # of one that is compared with those that exist


class UserError(Exception):
    """A mistake that the user can mend: one sentence that says what, where and how. Exit code 2.

    Names and values in it come from files: what no terminal shows is written as an escape, and what is long is cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_printable(message))


class Notice(UserWarning):
    """Something that one should know and that stops nothing: one sentence. The command line prints it as a line."""


def _printable(text: str) -> str:
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}.."
    return visible(text.replace("\n", " "))


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name, e.g. ``did you mean "model.experts"?``, else the names that exist."""
    options = sorted(known)
    near = difflib.get_close_matches(name[:_LONGEST_NAME], options, n=1, cutoff=0.6)
    if not near:  # `experts` for `model.experts`: the last part alone is the commonest slip
        near = [option for option in options if option.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known are: {', '.join(options)}" if options else "none exist yet"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is in none of our registries."""
    return UserError(f'unknown {kind} "{name}": {suggest(name, known)}')
