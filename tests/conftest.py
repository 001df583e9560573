"""What every test shares: the event loop, and which servers are there.

Tests of real servers read the AUDIT_* variables of a stack (`scripts/run_tests.py` brings one up).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Support modules are imported as `tests.…`; importlib mode puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of production."""
    return "asyncio"
