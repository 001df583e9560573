"""Which event ids were taken lately, by whom and with what content: sending twice records once.

An id is a UUID version 7, whose time must lie within a window around now; it is remembered until the
window has passed it, so that within one process nothing is published twice. Over restarts and between
processes the ledger holds each id once. Bounded: when full, new events are refused and none forgotten.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from audit_sdk import NotAccepted, Receipt

from pipeline.api.problems import Flaw, Kind, Refusal


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that passed every check. ``digest`` is of its actor and its content."""

    event_id: str
    digest: bytes
    send: Callable[[], Receipt]


@dataclass(slots=True)
class _Remembered:
    digest: bytes
    receipt: Receipt | None  # None: the broker has it


@dataclass(frozen=True, slots=True)
class Taken:
    """One event of a batch on its way. ``receipt`` None: the broker has it already."""

    event_id: str
    duplicate: bool
    receipt: Receipt | None


class Replays:
    """Of one process. Thread-safe."""

    def __init__(
        self,
        *,
        window_s: float,
        max_ids: int,
        retry_after_s: int,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._window_s = window_s
        self._max_ids = max_ids
        self._retry_after_s = retry_after_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._known: dict[str, _Remembered] = {}
        self._ends: list[tuple[float, str]] = []  # a heap: when an id's window has passed

    def __len__(self) -> int:
        return len(self._known)

    def is_current(self, event_id: str) -> bool:
        """Whether an id's time lies within the window around now."""
        return abs(_made_at_s(event_id) - self._now_s()) <= self._window_s

    def take(self, arrivals: Sequence[Arrival]) -> list[Taken]:
        """Send what is new of a batch; what was taken before is a duplicate, with its own receipt.

        Raises:
            Refusal: 409 if an id is another event's; 503 if the memory is full. Nothing was sent then.
                503 also if the SDK's memory is full: the same batch may be sent again.
        """
        with self._lock:
            self._forget_old()
            conflicts = [at for at, one in enumerate(arrivals) if self._conflicts(one)]
            if conflicts:
                detail = "was used for another event, or by somebody else"
                flaws = [Flaw(f"events.{at}.event_id", "conflict", detail) for at in conflicts]
                raise Refusal(Kind.ID_CONFLICT, "nothing was recorded", flaws=flaws)
            new = sum(one.event_id not in self._known for one in arrivals)
            if len(self._known) + new > self._max_ids:
                raise self._full("too many event ids are remembered just now")
            return [self._take(one) for one in arrivals]

    def settle(self, taken: Sequence[Taken]) -> None:
        """After waiting: what the broker has needs no receipt; what will not arrive may be sent anew."""
        with self._lock:
            for one in taken:
                known = self._known.get(one.event_id)
                if known is None or known.receipt is None or known.receipt is not one.receipt:
                    continue
                if known.receipt.failed:
                    del self._known[one.event_id]
                elif known.receipt.settled:
                    known.receipt = None

    def _take(self, one: Arrival) -> Taken:
        known = self._known.get(one.event_id)
        if known is not None and not (known.receipt is not None and known.receipt.failed):
            return Taken(one.event_id, duplicate=True, receipt=known.receipt)
        try:
            receipt = one.send()
        except NotAccepted:
            raise self._full("the brokers are away and no more events can wait") from None
        self._known[one.event_id] = _Remembered(one.digest, receipt)
        heapq.heappush(self._ends, (_made_at_s(one.event_id) + self._window_s, one.event_id))
        return Taken(one.event_id, duplicate=False, receipt=receipt)

    def _conflicts(self, one: Arrival) -> bool:
        known = self._known.get(one.event_id)
        return known is not None and known.digest != one.digest

    def _forget_old(self) -> None:
        now = self._now_s()
        while self._ends and self._ends[0][0] < now:
            _, event_id = heapq.heappop(self._ends)
            self._known.pop(event_id, None)

    def _full(self, why: str) -> Refusal:
        return Refusal(
            Kind.BUSY, f"{why}; send the same events again", retry_after_s=self._retry_after_s
        )


def _made_at_s(event_id: str) -> float:
    """The time in a UUID version 7. Source: RFC 9562 §5.7."""
    return (UUID(event_id).int >> 80) / 1000
