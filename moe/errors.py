"""The one exception that means "you can mend this", and the words that help to mend it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: one sentence that says what, where and how. Exit code 2."""


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name, e.g. ``did you mean "model.experts"?``, else the names that exist."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if not near:  # `experts` for `model.experts`: the last part alone is the commonest slip
        near = [option for option in options if option.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known are: {', '.join(options)}" if options else "none exist yet"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is in none of our registries."""
    return UserError(f'unknown {kind} "{name}": {suggest(name, known)}')
