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

from tests import tools

# Of properties that name no number of their own; see tests/sizes.py.
settings.register_profile("short", max_examples=40, deadline=None)
settings.register_profile("full", max_examples=200, deadline=None)
settings.load_profile("full" if os.environ.get("AUDIT_CHAOS") == "full" else "short")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What needs a tool that is not here is left out, or fails."""
    for mark in item.iter_markers("needs"):
        (tool,) = mark.args
        why = tools.lacking(tool) or tools.not_prepared(tool)
        if why and tool in tools.required():
            pytest.fail(f"{why}; {tools.REQUIRE} names {tool}", pytrace=False)
        if why:
            pytest.skip(why)


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of production."""
    return "asyncio"
