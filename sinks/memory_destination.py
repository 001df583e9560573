"""A destination in memory, for tests and for trying things out; held to the same contract suite.

Keeps one leaf per log and index however often it is given. It can be told to be unavailable, and
to hold leaves back until enough are together, as the archive does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.records import LeafRange, SealedEvent


class MemoryDestination:
    """``leaves`` (log id → index → event) is what is durable; all else is lost in a crash.

    ``outages_left`` calls fail; every other of these failures comes after the leaves were made
    durable, as when an answer is lost. ``cut`` > 1 makes only whole groups of so many leaves
    durable, until ``flush_held`` is set.
    """

    def __init__(self, name: str = "memory", *, cut: int = 1) -> None:
        self.name = name
        self.leaves: dict[int, dict[int, SealedEvent]] = {}
        self.outages_left = 0
        self.flush_held = False
        self._cut = cut
        self._held: dict[int, list[tuple[int, SealedEvent]]] = {}

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, ranges: Sequence[LeafRange]) -> Mapping[int, int]:
        """See ``Destination.write``."""
        if self.outages_left:
            self.outages_left -= 1
            if self.outages_left % 2:  # the answer is lost: all of it is still held
                held = {log_id: list(pairs) for log_id, pairs in self._held.items()}
                self._take(ranges)
                self._held = held
            raise Unavailable(self.name)
        return self._take(ranges)

    def forget(self, log_id: int) -> None:
        """See ``Destination.forget``."""
        self._held.pop(log_id, None)

    def due_in_s(self) -> float | None:
        """Due at once when held leaves are to be flushed; else never."""
        return 0.0 if self.flush_held and any(self._held.values()) else None

    async def close(self) -> None:
        """Nothing to close."""

    def _take(self, ranges: Sequence[LeafRange]) -> dict[int, int]:
        for leaves in ranges:
            held = self._held.setdefault(leaves.log_id, [])
            fresh = leaves.from_leaf(held[-1][0] + 1) if held else leaves
            if held and fresh.events and fresh.first_leaf != held[-1][0] + 1:
                raise ValueError(f"leaf {fresh.first_leaf} does not follow {held[-1][0]}")
            held += enumerate(fresh.events, fresh.first_leaf)
        durable: dict[int, int] = {}
        for log_id, held in self._held.items():
            count = len(held) if self.flush_held else len(held) // self._cut * self._cut
            for leaf, event in held[:count]:
                self._keep(log_id, leaf, event)
            if count:
                durable[log_id] = held[count - 1][0] + 1
                del held[:count]
        return durable

    def _keep(self, log_id: int, leaf: int, event: SealedEvent) -> None:
        kept = self.leaves.setdefault(log_id, {}).setdefault(leaf, event)
        if kept.leaf_hash != event.leaf_hash:
            raise ChainBroken(str(log_id), f"leaf {leaf} is there with another hash")
