"""How a run stands: what `state.json` holds."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["waiting", "running", "finished", "failed"]


class RunState(BaseModel):
    """How a run stands.

    Attributes:
        state: waiting (not begun, or broken off), running, finished or failed.
        attempts: how often it was begun or continued.
        error: why the last attempt ended; None if it did not fail.
        started: when the first attempt began, ISO 8601.
        ended: when the last one ended, ISO 8601.
        seconds: that all attempts took together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State = "waiting"
    attempts: int = 0
    error: str | None = None
    started: str | None = None
    ended: str | None = None
    seconds: float = 0.0


def now() -> str:
    """The present time, ISO 8601 with time zone."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
