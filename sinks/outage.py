"""Waiting in place for a server that is away, up to a limit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from pipeline.domain.errors import Unavailable
from pipeline.logging import log_event
from sinks.backoff import Backoff

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class NoLongerWanted(Exception):
    """Nobody waits for the result of a call that a server's outage kept from ending."""


class Outages:
    """Makes calls through outages: each is made again until a server answers it.

    ``waiting_for`` names the servers that are waited for now, as ``/readyz`` shows them. ``on_outage``
    hears of each outage once, with the server's name. ``limit_s`` counts from the first call that
    found nobody, with the time that calls take. ``begins`` and ``ends`` name the lines of the log.
    """

    def __init__(
        self,
        *,
        first_s: float,
        longest_s: float,
        limit_s: float,
        begins: str,
        ends: str,
        on_outage: Callable[[str], None] = lambda _server: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._limit_s = limit_s
        self._begins = begins
        self._ends = ends
        self._on_outage = on_outage
        self._sleep = sleep
        self._monotonic = monotonic
        self.waiting_for: set[str] = set()

    async def through(
        self,
        call: Callable[[], Awaitable[_T]],
        *,
        wanted: Callable[[], bool] = lambda: True,
        **facts: Any,
    ) -> _T:
        """The call's result, tried until it is there; ``facts`` go to the log with an outage.

        Raises:
            NoLongerWanted: The server is away, and ``wanted`` says so.
            Unavailable: After ``limit_s``: the process ends and its supervisor restarts it.
        """
        backoff = Backoff(self._first_s, self._longest_s)
        down_since, server = 0.0, ""
        try:
            while True:
                try:
                    result = await call()
                except Unavailable as outage:
                    if not wanted():
                        raise NoLongerWanted from None
                    now = self._monotonic()
                    if not server:
                        down_since = now
                        self._on_outage(outage.what)
                    elif now - down_since > self._limit_s:
                        raise
                    if outage.what != server:
                        self.waiting_for.discard(server)
                        server = outage.what
                        self._say(self._begins, server, facts | {"why": str(outage)})
                    self.waiting_for.add(server)
                else:
                    if server:
                        self._say(self._ends, server, facts)
                    return result
                await self._sleep(backoff.next_s())
        finally:
            self.waiting_for.discard(server)

    @staticmethod
    def _say(event: str, server: str, facts: Mapping[str, Any]) -> None:
        level = logging.WARNING if "why" in facts else logging.INFO
        log_event(log, event, level=level, server=server, **facts)
