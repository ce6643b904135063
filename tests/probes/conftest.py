"""Two finished runs that the tests of this folder share, and a reader of tables."""

import csv
import shutil

import pytest

from probes.drawing import base
from sweeps.training.trial import train
from tests.conftest import at_home, tiny_config, tiny_store


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Probes' figures are drawn with fewer dots, in half of the time: none of these tests counts them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "DPI", 50)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A home with two trained runs (seeds 0 and 1) and a store that is large enough for most probes."""
    root = tmp_path_factory.mktemp("probed")
    with at_home(root):
        tiny_store(count=120)
        for seed in (0, 1):
            train(tiny_config(seed=seed), report=lambda *_: None)
    return root


@pytest.fixture
def two_runs(trained, tmp_path):
    """A test's own copy of `trained`."""
    return shutil.copytree(trained, tmp_path / "probed", symlinks=True)


def table(path):
    """Rows of a CSV file as dictionaries."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
