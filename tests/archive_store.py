"""The archive over a line that can fail, and as the destinations' contract suite opens it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from sinks.archive import ArchiveDestination
from sinks.base import Destination
from sinks.s3 import connect
from tests.archive_support import FlakyS3, Gateway, open_gateway, s3_settings
from tests.proxy import Fault, FaultProxy


@asynccontextmanager
async def over_line(gateway: Gateway) -> AsyncIterator[tuple[FaultProxy, Gateway]]:
    """The same buckets, reached over a line that can fail."""
    settings = s3_settings()
    line = FaultProxy(settings["endpoint_url"])
    settings["endpoint_url"] = line.url
    s3 = FlakyS3(connect(**settings, timeout_s=3.0).client)
    try:
        yield line, Gateway(s3, gateway.archive, gateway.vault)
    finally:
        await s3.close()
        line.close()


class ArchiveStore:
    """The archive for the destinations' contract suite; objects are cut at ``max_events``."""

    def __init__(self, near: Gateway, far: Gateway, line: FaultProxy, *, max_events: int) -> None:
        self._near = near
        self._far = far
        self._line = line
        self._max_events = max_events
        self._clock_s = 0.0
        self._given: dict[int, dict[int, SealedEvent]] = defaultdict(dict)

    async def destination(self) -> Destination:
        opened = _Recorded(
            self._far.destination(
                None,
                read_ledger=self._read,
                max_events=self._max_events,
                max_age_s=60.0,
                clock=lambda: self._clock_s,
            ),
            self._given,
        )
        await opened.open()
        return opened

    async def settle(self, destination: Destination) -> Mapping[int, int]:
        self._clock_s += 100.0
        return await destination.write([])

    async def stored(self, log_id: int) -> list[tuple[int, bytes]]:
        return [
            (leaf, event.event_id)
            for found in await self._near.stored(LogName("audit.raw.authentication", log_id))
            for leaf, event in enumerate(found.events, found.first_leaf)
        ]

    async def lose_server(self) -> None:
        self._line.set(Fault.DOWN)

    async def restore_server(self) -> None:
        self._line.set(Fault.NONE)

    async def _read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        """The ledger has what it gave to any worker."""
        given = self._given[log_id]
        events: list[SealedEvent] = []
        while len(events) < limit and first_leaf + len(events) in given:
            events.append(given[first_leaf + len(events)])
        return LeafRange(log_id, LogName("audit.raw.authentication", log_id), first_leaf, events)


class _Recorded:
    """A destination whose leaves are remembered as the ledger's."""

    name = "archive"

    def __init__(self, inner: ArchiveDestination, given: dict[int, dict[int, SealedEvent]]) -> None:
        self._inner = inner
        self._given = given
        self.open, self.forget, self.close = inner.open, inner.forget, inner.close

    async def write(self, ranges: Sequence[LeafRange]) -> Mapping[int, int]:
        for leaves in ranges:
            self._given[leaves.log_id].update(enumerate(leaves.events, leaves.first_leaf))
        return await self._inner.write(ranges)


@asynccontextmanager
async def open_archive_store(*, max_events: int) -> AsyncIterator[ArchiveStore]:
    """Buckets of their own, reached over a line of their own."""
    async with open_gateway() as near, over_line(near) as (line, far):
        yield ArchiveStore(near, far, line, max_events=max_events)
