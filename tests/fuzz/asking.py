"""The `moe` command in this process, asked with any words."""

from collections.abc import Sequence
from functools import cache

import typer.testing

from cli import app
from tests.fuzz.bounds import is_one_sentence, taken_or_refused

_RUNNER = typer.testing.CliRunner()
typer.testing._get_command = cache(typer.main.get_command)  # from all our options, for each command anew otherwise


def ask(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command that is done or says in a sentence why not.

    Fails where anything but a UserError ends it, where a code is none of 0, 1 and 2, where nothing is said with 1 or 2,
    or where a message cannot be printed.
    """
    with taken_or_refused():
        said = _RUNNER.invoke(app, list(words))
        if said.exception is None or isinstance(said.exception, SystemExit):
            assert said.exit_code in (0, 1, 2), said.exit_code
            assert said.exit_code == 0 or said.stderr.strip(), "no word of what is wrong"
            assert "Traceback" not in said.stderr
            return said.exit_code, said.stdout, said.stderr
        raise said.exception
    message = str(said.exception)
    assert is_one_sentence(message)
    return 2, said.stdout, said.stderr + message
