"""Whether W&B is online, offline or disabled, and why; and what goes wrong with it, in one sentence.

All who need to know ask here; nothing that goes wrong with W&B may end a launch, a training or a probe.
"""

import contextlib
import errno
import netrc
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlparse

from pydantic import ValidationError

from moe.errors import UserError

Mode = Literal["online", "offline", "disabled"]
_TIMEOUT = 20  # seconds for the server's answer to one question
_AWAY = ("giving up after", "did not respond in time", "timed out", "deadline exceeded", "onnection refused", "EOF")
_KEY = ("returned error 401", "returned error 403", "API key")  # what is said of a key that is refused
_NO_KEY = "no W&B key is configured (`wandb login` stores one)"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_LIBRARIES = ("wandb", "requests", "urllib3")  # W&B's client and what it talks through


@dataclass(frozen=True)
class Connection:
    """What becomes of what is logged.

    Attributes:
        mode: online: sent to a server; offline: kept in files for `moe runs sync`; disabled: dropped.
        why: what decided it.
        keyless: whether that was that there is no key.
    """

    mode: Mode
    why: str
    keyless: bool = False

    @property
    def online(self) -> bool:
        """Whether there is a server to send to; it may be away all the same."""
        return self.mode == "online"

    def problem(self) -> str | None:
        """Why no server can be used, in one sentence; None if one answers, which is asked."""
        if not self.online:
            return self.why
        try:
            with asking():
                api().viewer  # noqa: B018 - asks the server
        except RefusedKeyError as error:
            return str(error)
        except TrackerError as error:
            return f"the W&B server does not answer: {error}"
        return None


def connection() -> Connection:
    """W&B's mode: `WANDB_MODE` if set, online with a key, else offline. Never asks for a key.

    Raises:
        UserError: the environment holds a setting that W&B's client does not take.
    """
    _check_environment()
    chosen = os.environ.get("WANDB_MODE", "")
    if chosen in ("disabled", "offline", "online"):
        return Connection(chosen, f"WANDB_MODE={chosen}")  # type: ignore[arg-type]
    if chosen == "dryrun":
        return Connection("offline", "WANDB_MODE=dryrun")
    if os.environ.get("WANDB_API_KEY"):
        return Connection("online", "WANDB_API_KEY is set")
    if _key_in_netrc():
        return Connection("online", "a key is stored in netrc")
    return Connection("offline", _NO_KEY, keyless=True)


def _check_environment() -> None:
    plain = {"WANDB_API_KEY": None, "WANDB_SERVICE": None} | {"WANDB_MODE": ("disabled", "offline", "online", "dryrun")}
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("WANDB_") and not (name in plain and value in (plain[name] or (value,)))
    }
    if not chosen:
        return
    import wandb

    try:
        wandb.Settings().update_from_env_vars(chosen)
    except (ValueError, wandb.errors.Error):
        for name, value in chosen.items():
            try:
                wandb.Settings().update_from_env_vars({name: value})
            except (ValueError, wandb.errors.Error) as error:
                said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else _first_line(error)
                raise UserError(f'{name}="{value}" is no setting of W&B: {said}; mend or unset it') from None


def _key_in_netrc() -> bool:
    import wandb

    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url  # the latter reads W&B's files
    try:  # by host and port, as W&B's client looks it up
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def api() -> Any:
    """W&B's public API, which gives up on a question after some seconds."""
    import wandb

    return wandb.Api(timeout=_TIMEOUT)


def stop_asked(entity: str | None, project: str, run_id: str) -> bool:
    """Whether a person has asked W&B to stop a run.

    Raises:
        TrackerError: the server does not answer.
    """
    with asking():
        from wandb.sdk.launch.api import LaunchApi  # the public one has no such question

        return bool(
            LaunchApi(timeout=_TIMEOUT).check_stop_requested(
                project, entity or os.environ.get("WANDB_ENTITY", ""), run_id
            )
        )


def project() -> str:
    """The W&B project that runs go into."""
    return os.environ.get("WANDB_PROJECT", "moe")


def for_children() -> dict[str, str]:
    """This process' environment for another one: without W&B's service, which ends with us."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


class TrackerError(Exception):
    """W&B or the way to it failed: one sentence. The run's own files have everything that it was to be told."""


class RefusedKeyError(TrackerError):
    """The server refuses the key that is configured, or it cannot be one: one sentence that says where the key is."""


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around everything that W&B is asked or told: whatever its client raises comes out as TrackerError.

    Raises:
        RefusedKeyError: it is the key.
        TrackerError: the server refused or did not answer, or the client or its service process failed.
    """
    try:
        yield
    except Exception as error:
        if not _is_wandbs(error):
            raise
        kind = RefusedKeyError if about_key(error) else TrackerError
        raise kind(sentence(error)) from error


def _is_wandbs(error: Exception) -> bool:
    """Whether W&B's client raised it: its errors have no common base, some are Python's own."""
    return type(error).__module__.partition(".")[0] in _LIBRARIES or isinstance(error, OSError | ValueError)


def about_key(error: Exception) -> bool:
    """Whether the key is the trouble. A server that is away is also called a failure to verify it."""
    text = _first_line(error)
    if any(words in text for words in _AWAY):
        return False
    return type(error).__name__ == "AuthenticationError" or any(words in text for words in _KEY)


def no_room(error: TrackerError) -> bool:
    """Whether W&B could not write to the disk."""
    return getattr(error.__cause__, "errno", None) in _NO_ROOM or "no space left" in str(error).lower()


def sentence(error: Exception) -> str:
    """The error in one line, and what to do if it is the key: W&B's errors go on about what was tried."""
    text = _first_line(error)
    server = re.search(r"https?://[^/\s]+?(?=[/:]?\s|/|$)", text)
    if any(words in text for words in _AWAY):
        return f"{server[0] if server else 'the server'} gave no answer"
    if not about_key(error):
        return text
    if "No API key configured" in text:  # and WANDB_MODE says online all the same
        return _NO_KEY
    said = re.search(r'"message": ?"([^"]*)"', text)  # by the server, within what its client says
    reason = said[1] if said else re.split(r" invalid: |https?://\S+: ", text)[-1]
    if (key := os.environ.get("WANDB_API_KEY", "")) != key.strip():  # of which its client speaks in several ways
        reason = "there is white space around it"
    who = server[0] if server else os.environ.get("WANDB_BASE_URL") or "W&B"
    place, mend = _key_place()
    return f"{who} refuses the key in {place} ({reason.rstrip('. ')}); {mend}"


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"{error.strerror}: {error.filename2 or error.filename}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _key_place() -> tuple[str, str]:
    """Where the key is, and how another gets there."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY", "put another one there, or unset it and store one by `wandb login --relogin`"
    return os.environ.get("NETRC") or "~/.netrc", "`wandb login --relogin` stores another one"


@contextlib.contextmanager
def without_key() -> Iterator[None]:
    """For what needs none: W&B's client does not even begin an offline run with a key that cannot be one."""
    key = os.environ.pop("WANDB_API_KEY", None)
    try:
        yield
    finally:
        if key is not None:
            os.environ["WANDB_API_KEY"] = key
