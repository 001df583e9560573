"""How far a producer is: sequences that were given, what became of them, and the heartbeat that says so."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from audit_sdk.contract import contract

SYSTEM: Final = "system"  # the family of heartbeats
_RANGES_MAX: Final = contract().limits.items


@dataclass(slots=True)
class Dropped:
    """Sequences of a topic that will not arrive, and how many events were never given one."""

    ranges: list[list[int]] = field(default_factory=list)  # [first, last], ascending, apart
    refused: int = 0

    def add(self, sequence: int) -> None:
        """One more sequence, in any order: brokers refuse by partition. Of more ranges than an event
        may carry the two oldest become one.
        """
        ranges = self.ranges
        at = bisect_left(ranges, sequence - 1, key=itemgetter(1))
        if at == len(ranges) or ranges[at][0] > sequence + 1:
            ranges.insert(at, [sequence, sequence])
        else:
            touched = ranges[at]
            touched[0], touched[1] = min(touched[0], sequence), max(touched[1], sequence)
            if at + 1 < len(ranges) and ranges[at + 1][0] == touched[1] + 1:
                touched[1] = ranges.pop(at + 1)[1]
        if len(ranges) > _RANGES_MAX:
            oldest = ranges.pop(0)
            ranges[0][0] = oldest[0]


class Progress:
    """Of one epoch, by family. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self.accepted: dict[str, int] = {}  # the next sequence
        self.delivered: dict[str, int] = {}
        self.dropped: dict[str, Dropped] = {}  # by topic

    def sequence(self, family: str) -> int:
        """The one that the family's next event gets."""
        return self.accepted.get(family, 0)

    def accept(self, family: str) -> None:
        """Its sequence is used up."""
        self.accepted[family] = self.sequence(family) + 1

    def deliver(self, family: str) -> None:
        """The brokers have one more."""
        self.delivered[family] = self.delivered.get(family, 0) + 1

    def drop(self, family: str, sequence: int | None) -> None:
        """One will not arrive; None: it was never given a sequence."""
        dropped = self.dropped.setdefault(_topic(family), Dropped())
        if sequence is None:
            dropped.refused += 1
        else:
            dropped.add(sequence)

    def topics(self) -> list[dict[str, Any]]:
        """As a heartbeat has it: one entry per topic with an event, its own one left out."""
        return [
            {
                "topic": topic,
                "accepted": self.sequence(family),
                "delivered": self.delivered.get(family, 0),
                "refused": dropped.refused,
                "dropped": [f"{first}-{last}" for first, last in dropped.ranges],
            }
            for family, topic in ((one, _topic(one)) for one in contract().families)
            if family != SYSTEM and (family in self.accepted or topic in self.dropped)
            for dropped in (self.dropped.get(topic, Dropped()),)
        ]


class Heartbeats:
    """When one is due: with the first event, then at each interval, and the last one at the end."""

    def __init__(self, every_s: float, send: Callable[[Mapping[str, Any]], None]) -> None:
        """``send`` takes the fields of the event; ``every_s`` 0 is never."""
        self._every_s = every_s
        self._send = send
        self._due_at = -math.inf

    def look(self, now: float, topics: Callable[[], list[dict[str, Any]]]) -> None:
        """Send one if it is due; for the sending thread, at each round."""
        if self._every_s and now >= self._due_at:
            self._due_at = now + self._every_s
            self._beat(topics(), final=False)

    def last(self, topics: list[dict[str, Any]]) -> None:
        """The producer ends. One that sent nothing says nothing."""
        if self._every_s and topics:
            self._beat(topics, final=True)

    def _beat(self, topics: list[dict[str, Any]], *, final: bool) -> None:
        state = {"interval_s": math.ceil(self._every_s), "final": final}
        told = {"operation": "heartbeat", "heartbeat": state, "topics": topics}
        self._send({"action": "producer.heartbeat", **told})


def _topic(family: str) -> str:
    return contract().families[family].topic
