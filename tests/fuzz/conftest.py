"""How many inputs a target gets: 200 in the suite, the same ones each time; 10,000 new ones in `make fuzz`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# milliseconds of the clock, which other processes hold up, for hours where they come first; bounds.py counts the
# processor's
_SUITE, _LONG = 120_000, 10_000_000

# an example may write files, and most are small: neither slow generation nor a fixture shared by examples is a fault
_COMMON = {
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
}
settings.register_profile("suite", max_examples=200, derandomize=True, deadline=_SUITE, **_COMMON)
settings.register_profile("long", max_examples=10_000, print_blob=True, deadline=_LONG, **_COMMON)
settings.load_profile(os.environ.get("MOE_FUZZ", "suite"))


@pytest.fixture(autouse=True)
def no_records(caplog: pytest.LogCaptureFixture) -> None:
    """Pytest keeps what is logged until a test ends: for a target's 10,000 inputs, gigabytes of what errors hold."""
    caplog.set_level(logging.CRITICAL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """A target takes a second or more, which is not for daily work."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != "test_bounds.py":
            item.add_marker("slow")
