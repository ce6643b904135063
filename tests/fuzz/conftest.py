"""How many inputs a target gets: 200 in the suite, the same ones each time; 10,000 new ones in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

_SECONDS = 120  # of the clock, which other processes hold up too; bounds.py counts those of the processor

# an example may write files, and most are small: neither slow generation nor a fixture shared by examples is a fault
_COMMON = {
    "deadline": _SECONDS * 1000,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
}
settings.register_profile("suite", max_examples=200, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=10_000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("MOE_FUZZ", "suite"))
