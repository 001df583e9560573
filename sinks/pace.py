"""How long intake waits for stores that answer and are nearly full.

What a follower cannot keep in memory it reads from the ledger again, at three times the cost: a store
that is behind for a moment is waited for. One that stays behind delays itself: patience with it ends,
and the ledger has its time back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sinks.base import Feed

_LOOK_S: Final = 0.01  # between two looks at the followers
_WAIT_MAX_S: Final = 1.0  # at once
_SHARE_WITHOUT_PATIENCE: Final = 0.1


class Pace:
    """``share``: of the time, how long intake may wait; ``patience_s``: for so long in all, then for a
    tenth of the time. Time in which no store is behind gives patience back.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        *,
        share: float,
        patience_s: float,
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
    ) -> None:
        self._feeds = feeds
        self._share = share
        self._patience_s = patience_s
        self._sleep = sleep
        self._monotonic = monotonic
        self._spent_s = 0.0  # of the patience
        self._may_wait_s = 0.0
        self._ended_at = monotonic()

    async def wait(self) -> None:
        """Let followers that are nearly full go first, for as long as they may be waited for now."""
        began = self._monotonic()
        worked_s = began - self._ended_at
        patient = self._spent_s < self._patience_s
        share = self._share if patient else min(self._share, _SHARE_WITHOUT_PATIENCE)
        self._may_wait_s = min(self._may_wait_s + worked_s * share / (1 - share), _WAIT_MAX_S)
        if not self._pressed():
            self._spent_s = max(self._spent_s - worked_s, 0.0)
        while self._monotonic() - began < self._may_wait_s and self._pressed():
            await self._sleep(_LOOK_S)
        self._ended_at = self._monotonic()
        waited_s = self._ended_at - began
        self._may_wait_s -= waited_s
        self._spent_s = min(self._spent_s + waited_s, self._patience_s)

    def _pressed(self) -> bool:
        return any(feed.is_pressed() for feed in self._feeds)
