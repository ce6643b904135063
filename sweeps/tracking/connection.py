"""Whether W&B is online, offline or disabled, and why; and what goes wrong with it, in one sentence.

All who need to know ask here; nothing that goes wrong with W&B may end a launch, a training or a probe.
"""

import contextlib
import netrc
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlparse

Mode = Literal["online", "offline", "disabled"]
_TIMEOUT = 20  # seconds for the server's answer to one question
_AWAY = ("giving up after", "did not respond in time", "timed out", "onnection refused", "EOF")
_LIBRARIES = ("wandb", "requests", "urllib3")  # W&B's client and what it talks through


@dataclass(frozen=True)
class Connection:
    """What becomes of what is logged.

    Attributes:
        mode: online: sent to a server; offline: kept in files for `moe runs sync`; disabled: dropped.
        why: what decided it.
    """

    mode: Mode
    why: str

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
        except TrackerError as error:
            return f"the W&B server does not answer: {error}"
        return None


def connection() -> Connection:
    """W&B's mode: `WANDB_MODE` if set, online with a key, else offline. Never asks for a key."""
    chosen = os.environ.get("WANDB_MODE", "").lower()
    if chosen in ("disabled", "offline", "online"):
        return Connection(chosen, f"WANDB_MODE={chosen}")  # type: ignore[arg-type]
    if chosen == "dryrun":
        return Connection("offline", "WANDB_MODE=dryrun")
    if os.environ.get("WANDB_API_KEY"):
        return Connection("online", "WANDB_API_KEY is set")
    if _key_in_netrc():
        return Connection("online", "a key is stored in netrc")
    return Connection("offline", "no W&B key is configured (`wandb login` stores one)")


def _key_in_netrc() -> bool:
    import wandb

    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url  # the latter reads W&B's files
    host = urlparse(server).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
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


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around everything that W&B is asked or told: whatever its client raises comes out as TrackerError.

    Raises:
        TrackerError: the server refused or did not answer, or the client or its service process failed.
    """
    try:
        yield
    except Exception as error:
        if not _is_wandbs(error):
            raise
        raise TrackerError(sentence(error)) from error


def _is_wandbs(error: Exception) -> bool:
    """Whether W&B's client raised it: its errors have no common base, some are Python's own."""
    return type(error).__module__.partition(".")[0] in _LIBRARIES or isinstance(error, OSError | ValueError)


def sentence(error: Exception) -> str:
    """The error in one line, and what to do if it is the key: W&B's errors go on about what was tried."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if any(words in text for words in _AWAY):  # which W&B's client also calls a failure to verify the key
        server = re.search(r"https?://[^/\s]+?(?=[/:]?\s|/|$)", text)
        return f"{server[0] if server else 'the server'} gave no answer"
    refused = type(error).__name__ == "AuthenticationError" or any(words in text for words in ("401", "API key"))
    return f"{text}; `wandb login --relogin` stores another key" if refused else text
