"""The fixture `wandb_server`: a server of its own for each test, and no client process left behind."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wandb_server.server import WandbServer


@pytest.fixture
def wandb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A running server; this process' environment points to it."""
    with serving(tmp_path / "wandb_server", monkeypatch) as server:
        yield server


@contextlib.contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A running server; this process' environment points to it.

    At the end the client's service process is stopped, and the test fails if the client asked for something that the
    double does not know or if a handler failed.
    """
    import wandb

    from sweeps.tracking import holdings, sync

    for module in (holdings, sync):
        monkeypatch.setattr(module, "_MOMENT", 0.1)  # a real server may need longer until it knows what it was sent
    wandb.teardown()  # a service that an earlier test started has that test's settings
    with WandbServer(folder) as server:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        try:
            yield server
        finally:
            server.faults.clear()
            wandb.teardown()
    assert not server.unknown, f"the double lacks {sorted(set(server.unknown))}"
    assert not server.errors, "\n".join(server.errors)
