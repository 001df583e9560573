"""Tools that a machine may lack: what needs one is left out there, or fails if AUDIT_TEST_REQUIRE names it.

A test says so with the marker ``needs`` (``@pytest.mark.needs("node")``). Standard library only:
`scripts/run_tests.py` reads it, too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

REQUIRE = "AUDIT_TEST_REQUIRE"
TOOLS = ("node", "go", "chromium")
NODE_SDK = Path(__file__).parents[1] / "sdk" / "nodejs"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# tool → (how it says its version, oldest that will do)
_OLDEST = {
    "node": (["node", "--version"], (20, 19)),
    "go": (["go", "version"], (1, 24)),
}


def required(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The tools without which tests fail. Raises ``ValueError`` for one that is none of ``TOOLS``."""
    named = frozenset(filter(None, environment.get(REQUIRE, "").replace(",", " ").split()))
    if unknown := named - set(TOOLS):
        raise ValueError(
            f"{REQUIRE}: no tool is named {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}"
        )
    return named


@cache
def lacking(tool: str) -> str:
    """What this machine lacks for tests that need a tool; empty: nothing."""
    if tool == "chromium":
        return "" if CHROMIUM else "it needs Chromium (Debian: apt-get install chromium)"
    ask, oldest = _OLDEST[tool]
    if not _is_new_enough(ask, oldest):
        return f"it needs {tool} {'.'.join(map(str, oldest))} or newer"
    if tool == "node" and not ((NODE_SDK / "node_modules").is_dir() or shutil.which("npm")):
        return "it needs npm"
    return ""


def not_prepared(tool: str) -> str:
    """What is left to be done before a test that needs a tool; empty: nothing."""
    if tool == "node" and not (NODE_SDK / "node_modules").is_dir():
        return "it needs npm ci in sdk/nodejs (scripts/run_tests.py does it)"
    return ""


def _is_new_enough(ask: list[str], oldest: tuple[int, int]) -> bool:
    if shutil.which(ask[0]) is None:
        return False
    said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= oldest
