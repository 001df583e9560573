"""Waiting: for a server that does not answer, and for whichever of two things comes first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable


class Backoff:
    """Exponential waits, each at random between a half and the whole of its length.

    The randomness keeps workers that lost the same server from coming back as one.
    """

    def __init__(
        self, first_s: float, longest_s: float, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._jitter = jitter
        self._failures = 0

    def next_s(self) -> float:
        """The next wait in seconds; doubles until ``reset``."""
        wait_s = min(self._first_s * float(1 << min(self._failures, 30)), self._longest_s)
        self._failures += 1
        return wait_s * (0.5 + self._jitter() / 2)

    def reset(self) -> None:
        """The server answered."""
        self._failures = 0


async def first_of(
    wake: asyncio.Event, due_s: float | None, *, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Return when ``wake`` is set, or after ``due_s`` seconds if that is a number."""
    if wake.is_set():
        return
    if due_s is None:
        await wake.wait()
        return
    waiting = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(sleep(due_s))]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiting:
            waiter.cancel()
