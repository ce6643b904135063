"""The file stream: chunks of lines, each with the offset at which it goes."""

import json
import time
from typing import Any

from tests.wandb_server.state import Run

SUMMARY = "wandb-summary.json"


class GapError(ValueError):
    """A chunk begins behind the end of what has arrived: lines were lost."""


def apply(run: Run, message: dict[str, Any]) -> dict[str, Any]:
    """Merge one message into the run and answer it.

    A chunk sent again, because the answer did not arrive, overwrites itself. Everything that is streamed makes
    the run running again; `complete` ends it.
    """
    run.heard = time.monotonic()
    run.reported = "running"
    run.exit_code = None
    for name, chunk in message.get("files", {}).items():
        if name == SUMMARY:
            run.summary = json.loads(chunk["content"][-1])
        else:
            _merge(run, name, chunk["offset"], chunk["content"])
    run.preempting = run.preempting or message.get("preempting", False)
    if message.get("complete"):
        run.exit_code = message.get("exitcode", 0)
        run.reported = "finished" if run.exit_code == 0 else "failed"
        if run.preempting and run.exit_code:
            run.reported = "preempted"
    return {"exitcode": run.exit_code, "limits": {}, "stopped": run.stop_asked}


def _merge(run: Run, name: str, offset: int, content: list[str]) -> None:
    lines = run.streams.setdefault(name, [])
    if offset > len(lines):
        raise GapError(f"{run.path}: {name} has {len(lines)} lines and got some from line {offset}")
    lines[offset : offset + len(content)] = content
