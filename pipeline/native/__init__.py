"""The compiled form of the hot path, where it was built (`make setup` builds it where cargo is).

Without it ``native`` is None, and the forms in Python do all the work at a quarter of the speed. The
compiled form takes what is plainly acceptable and leaves all else to the form in Python; for what it
takes both give the same bytes (``tests/unit/test_native.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pipeline.native import audit_native as native

_T = TypeVar("_T")

SWITCH = "AUDIT_NATIVE"  # 0: never use it


def _load() -> ModuleType | None:
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        from pipeline.native import audit_native
    except ImportError:
        return None
    return audit_native


if not TYPE_CHECKING:
    native = _load()


def available() -> bool:
    """Whether the compiled form is used in this process."""
    return native is not None


def runs(events: Sequence[_T]) -> Iterator[tuple[int, bool, Sequence[_T]]]:
    """The sealed events of a list, cut where compiled ones begin or end: the index of the run's
    first event, whether the run is compiled, and the run. Nearly always it is one run.
    """
    if not available():
        if events:
            yield 0, False, events
        return
    start, count = 0, len(events)
    rest: list[Any] = events if isinstance(events, list) else list(events)
    while start < count:
        compiled = native.leading(rest[start:] if start else rest)
        if compiled:
            yield start, True, rest[start : start + compiled] if compiled < count else rest
            start += compiled
            continue
        end = start + 1
        while end < count and not isinstance(rest[end], native.SealedEvent):
            end += 1
        yield start, False, rest[start:end]
        start = end
