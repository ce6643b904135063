"""A trained run and what a server has of it, made once."""

import os
import shutil

import pytest

from sweeps.runs.store import RunStore
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_place, tiny_store
from tests.wandb_server.fixtures import serving


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """Its store, and what has arrived."""
    root = tmp_path_factory.mktemp("trained")
    with tiny_place(root) as runs, pytest.MonkeyPatch.context() as patch, serving(root / "server", patch) as server:
        train(tiny_config(), runs, report=lambda _line: None)
        return runs, server.state.kept()


@pytest.fixture
def trained(wandb_server, trained_once, images):
    """Such a run and server, as if it had just been trained here."""
    runs, kept = trained_once
    shutil.copytree(runs.root, os.environ["MOE_HOME"], symlinks=True)
    wandb_server.state.put(kept)
    (run,) = RunStore().all()
    return run


@pytest.fixture
def images(isolated):
    return tiny_store()
