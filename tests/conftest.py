"""What every test shares: the event loop, and which servers are there.

Tests of real servers read the AUDIT_* variables of a stack (`scripts/run_tests.py` brings one up).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Support modules are imported as `tests.…`; importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parents[1]))

# Of properties that name no number of their own; see tests/sizes.py.
settings.register_profile("short", max_examples=40, deadline=None)
settings.register_profile("full", max_examples=200, deadline=None)
settings.load_profile("full" if os.environ.get("AUDIT_CHAOS") == "full" else "short")


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of production."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (`--dist=loadgroup`) a file's tests stay together, unless they say with whom: those
    that look at all that comes to the raw topics run one after the other.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
