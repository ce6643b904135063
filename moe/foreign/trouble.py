"""What goes wrong in code of the user's, in one sentence with its line."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from moe.errors import UserError
from moe.wording import reason


@contextlib.contextmanager
def theirs(what: str) -> Iterator[None]:
    """Around code of the user's: what ends it is said in one sentence, with its line.

    Raises:
        UserError: the code raised something, or would have ended the program.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except SystemExit as error:
        raise UserError(f'{what} ends the program; keep that under `if __name__ == "__main__"`') from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "site-packages" not in Path(frame.filename).parts]
        where = f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{Path(error.filename).name}, line {error.lineno}"
        raise UserError(f"{what} fails: {type(error).__name__}: {reason(error)} ({where})") from error
