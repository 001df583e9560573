"""What a follower knows about one log: how far it is, and what it holds to go on from memory.

Guarantees that leaves are given in order and without a hole, whatever was offered, dropped or
read: between the cursor and the first leaf in memory lies at most a *gap*, which only a read of
the ledger closes. Plain state without input or output.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from pipeline.domain.errors import ChainBroken
from pipeline.domain.records import LeafRange, LogHead
from sinks.progress import LogStatus, Stored


class Gathered(NamedTuple):
    """A range on its way to the destination, and the memory that it holds."""

    feed: Feed
    leaves: LeafRange
    size_bytes: int


class _Given(NamedTuple):
    """A range that the destination has in hand and has not reported durable."""

    next_leaf: int
    stored_at_us: int  # of its first leaf
    broker_timestamps_ms: list[int]


class Feed:
    """One assigned log of one follower. Leaves ``position <= stored <= cursor <= head_size``.

    ``cursor`` is the next leaf to give to the destination, ``stored`` the next that it has not
    made durable, ``position`` the next according to the ledger's durable ``follower_position``.
    """

    def __init__(self, head: LogHead, *, now_us: int, reach: int) -> None:
        self.log_id = head.log_id
        self.name = head.name
        self.head_size = head.size
        self.located = False
        self.position = self.stored = self.cursor = 0
        self.alert: ChainBroken | None = None
        self.held_bytes = 0
        self._reach = reach
        self._ranges: deque[tuple[LeafRange, int]] = deque()
        self._given: deque[_Given] = deque()
        self._missed_at_us = now_us  # about when the first leaf of the gap was stored

    def locate(self, position: int) -> None:
        """Start from the ledger's position of this follower."""
        self.located = True
        self.position = self.stored = self.cursor = position
        self.head_size = max(self.head_size, position)

    def offer(self, leaves: LeafRange, room_bytes: int) -> None:
        """Keep what continues the leaves in memory, if there is room; else only note the head.

        With nothing in memory, a range ahead of the cursor by no more than one catch-up read is
        kept too: the read closes the gap. Were it dropped, a busy log that has once fallen behind
        would read the ledger for ever, each read missing what was offered meanwhile.
        """
        end = self._ranges[-1][0].next_leaf if self._ranges else self.cursor
        missing_already = self.head_size > end
        self.head_size = max(self.head_size, leaves.next_leaf)
        reach = 0 if self._ranges else self._reach
        if self.located and self.alert is None and leaves.first_leaf <= end + reach:
            fresh = leaves.from_leaf(end)
            size_bytes = fresh.held_bytes
            if not fresh.events:
                return
            if size_bytes <= room_bytes:
                self._ranges.append((fresh, size_bytes))
                self.held_bytes += size_bytes
                return
        if leaves.events and not missing_already:
            self._missed_at_us = leaves.events[0].stored_at_us

    def gap(self) -> tuple[int, int] | None:
        """First leaf and number of the leaves that must come from the ledger next, if any."""
        end = self._ranges[0][0].first_leaf if self._ranges else self.head_size
        return (self.cursor, end - self.cursor) if end > self.cursor else None

    def take(self, max_bytes: int) -> list[Gathered]:
        """Consecutive ranges from the cursor on: one at least if there are any, then up to a size."""
        taken: list[Gathered] = []
        if self.gap() is not None:
            return taken
        while self._ranges and (not taken or self._ranges[0][1] <= max_bytes):
            leaves, size_bytes = self._ranges.popleft()
            self.held_bytes -= size_bytes
            max_bytes -= size_bytes
            taken.append(self._give(leaves, size_bytes))
        return taken

    def fill(self, leaves: LeafRange) -> Gathered:
        """Give a range that was read from the ledger at the cursor."""
        self.head_size = max(self.head_size, leaves.next_leaf)
        self._missed_at_us = leaves.events[-1].stored_at_us
        gathered = self._give(leaves, leaves.held_bytes)
        self._drop_below_cursor()
        return gathered

    def settle(self, next_leaf: int) -> Stored | None:
        """The destination has every leaf below ``next_leaf``; what is new about that.

        It may have leaves that it was not given: an archive object of an earlier worker.
        """
        if next_leaf <= self.stored:
            return None
        records = next_leaf - self.stored
        self.stored = next_leaf
        self.head_size = max(self.head_size, next_leaf)
        if self.cursor < next_leaf:
            self.cursor = next_leaf
            self._drop_below_cursor()
        return Stored(records, self._settled_timestamps_ms(next_leaf))

    def status(self, now_us: int) -> LogStatus:
        """Lag and alert as they are now."""
        lag_records = max(self.head_size - self.stored, 0)
        if self._given:
            oldest_us = self._given[0].stored_at_us
        elif self._ranges and self.gap() is None:
            oldest_us = self._ranges[0][0].events[0].stored_at_us
        else:
            oldest_us = self._missed_at_us
        return LogStatus(
            log_id=self.log_id,
            log=str(self.name),
            position=self.position,
            head_size=self.head_size,
            lag_records=lag_records,
            lag_s=max(now_us - oldest_us, 0) / 1e6 if lag_records else 0.0,
            alert=str(self.alert) if self.alert else "",
        )

    def stop(self, alert: ChainBroken) -> None:
        """Give nothing more: a person has to look."""
        self.alert = alert
        self._ranges.clear()
        self.held_bytes = 0

    def _give(self, leaves: LeafRange, size_bytes: int) -> Gathered:
        if leaves.first_leaf != self.cursor:
            raise AssertionError(f"leaf {leaves.first_leaf} given at cursor {self.cursor}")
        self.cursor = leaves.next_leaf
        timestamps_ms = [event.broker_timestamp_ms for event in leaves.events]
        self._given.append(_Given(leaves.next_leaf, leaves.events[0].stored_at_us, timestamps_ms))
        return Gathered(self, leaves, size_bytes)

    def _settled_timestamps_ms(self, next_leaf: int) -> list[int]:
        """Broker timestamps of what was given below ``next_leaf``; it is no longer in hand."""
        timestamps_ms: list[int] = []
        while self._given:
            end, _, of_range = self._given[0]
            settled = min(len(of_range) - (end - next_leaf), len(of_range))
            if settled <= 0:
                break
            timestamps_ms += of_range[:settled]
            self._given[0] = self._given[0]._replace(broker_timestamps_ms=of_range[settled:])
            if settled < len(of_range):
                break
            self._given.popleft()
        return timestamps_ms

    def _drop_below_cursor(self) -> None:
        """Forget leaves in memory that were given from the ledger or that the store has already."""
        while self._ranges and self._ranges[0][0].first_leaf < self.cursor:
            leaves, size_bytes = self._ranges.popleft()
            self.held_bytes -= size_bytes
            rest = leaves.from_leaf(self.cursor)
            if rest.events:
                self._ranges.appendleft((rest, size_bytes := rest.held_bytes))
                self.held_bytes += size_bytes
