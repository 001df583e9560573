"""How much of a property is tried: `make test` a part of it, `make chaos` all."""

from __future__ import annotations

import os

FULL = os.environ.get("AUDIT_CHAOS") == "full"
_PART = 0.4


def examples(count: int) -> int:
    """So many in the full form, a part of them in the short one."""
    return count if FULL else max(round(_PART * count), 10)
