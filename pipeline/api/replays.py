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

from audit_sdk import InvalidEvent, NotAccepted, Receipt

from pipeline.api.problems import SEND_AGAIN, Flaw, Kind, Refusal, contract_flaws


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
            Refusal: 409 if an id is another event's, 422 if the SDK refuses an event before anything was
                sent: nothing of this call is recorded then. 503 if a memory is full, here or the SDK's,
                and 500 if the SDK refuses an event after others were sent: those stay, and the same
                batch may be sent again.
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
                raise self._busy(
                    "too many event ids are remembered just now; send the same events again"
                )
            return self._take_all(arrivals)

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

    def _take_all(self, arrivals: Sequence[Arrival]) -> list[Taken]:
        taken: list[Taken] = []
        for at, one in enumerate(arrivals):
            try:
                taken.append(self._take(one))
            except InvalidEvent as error:
                # It passed the check a moment ago, so this is a bug; but what was sent is not to be had
                # back. Sent again, the others are duplicates, and this one alone is refused.
                flaws = contract_flaws(at, error.problems)
                if any(not earlier.duplicate for earlier in taken):
                    raise Refusal(Kind.PARTLY_RECORDED, SEND_AGAIN, flaws=flaws) from error
                raise Refusal(Kind.INVALID_EVENTS, "see `errors`", flaws=flaws) from error
        return taken

    def _take(self, one: Arrival) -> Taken:
        known = self._known.get(one.event_id)
        if known is not None and not (known.receipt is not None and known.receipt.failed):
            return Taken(one.event_id, duplicate=True, receipt=known.receipt)
        try:
            receipt = one.send()
        except NotAccepted:
            raise self._busy(f"the brokers are away and no more can wait; {SEND_AGAIN}") from None
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

    def _busy(self, detail: str) -> Refusal:
        return Refusal(Kind.BUSY, detail, retry_after_s=self._retry_after_s)


def _made_at_s(event_id: str) -> float:
    """The time in a UUID version 7. Source: RFC 9562 §5.7."""
    return (UUID(event_id).int >> 80) / 1000
