"""GraphQL by the operation's name: its handler gets the state and the variables and answers with the `data`."""

import re
from collections.abc import Callable
from typing import Any

from tests.wandb_server.state import State

Variables = dict[str, Any]
Handler = Callable[[State, Variables], dict[str, Any]]
OPERATIONS: dict[str, Handler] = {}

_NAME = re.compile(r"(?:^|\s)(?:query|mutation)\s+(\w+)")


class NotFoundError(LookupError):
    """Answered with status 404, as W&B does for what was deleted."""


def operation(*names: str) -> Callable[[Handler], Handler]:
    """Register the handler of these operations."""

    def register(handler: Handler) -> Handler:
        for name in names:
            if name in OPERATIONS:
                raise ValueError(f"two handlers for {name}")
            OPERATIONS[name] = handler
        return handler

    return register


def name_of(query: str) -> str:
    found = _NAME.search(query)
    return found.group(1) if found else f"(no name: {query[:60]!r})"


def connection(nodes: list[Any], variables: Variables | None = None, size: str = "perPage") -> dict[str, Any]:
    """A page of nodes in the form of a GraphQL connection; the cursor is the number of nodes before it."""
    variables = variables or {}
    start = int(variables.get("cursor") or variables.get("fileCursor") or 0)
    stop = min(len(nodes), start + int(variables.get(size) or len(nodes) or 1))
    return {
        "totalCount": len(nodes),
        "edges": [{"node": node, "cursor": str(start + place)} for place, node in enumerate(nodes[start:stop], 1)],
        "pageInfo": {"__typename": "PageInfo", "endCursor": str(stop), "hasNextPage": stop < len(nodes)},
    }
