"""The archive over a line that can fail, and as the destinations' contract suite opens it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from sinks.archive import ArchiveDestination
from sinks.base import Destination
from sinks.s3 import connect
from tests.archive_support import FlakyS3, Gateway, open_gateway, s3_settings


class Line:
    """A TCP line to the gateway that can be down, silent, or cut before an answer."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.port = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.cut_answers = 0

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        if self._server:
            self._server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            there, back = await asyncio.open_connection(*self._target)
            await asyncio.gather(
                self._copy(reader, back, answers=False), self._copy(there, writer, answers=True)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._calls.discard(task)
            writer.transport.abort()
            with suppress(UnboundLocalError):
                back.transport.abort()

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while chunk := await source.read(65536):
            if answers and self.cut_answers:
                self.cut_answers -= 1
                raise ConnectionResetError
            if answers:
                await self.answering.wait()
            target.write(chunk)
            await target.drain()
        raise ConnectionResetError  # one side closed: close both


@asynccontextmanager
async def over_line(gateway: Gateway) -> AsyncIterator[tuple[Line, Gateway]]:
    """The same buckets, reached over a line that can fail."""
    settings = s3_settings()
    target = urlsplit(settings["endpoint_url"])
    line = Line(target.hostname or "", target.port or 80)
    await line.up()
    settings["endpoint_url"] = f"http://127.0.0.1:{line.port}"
    client = connect(**settings, timeout_s=0.5).client
    s3 = FlakyS3(client)
    yield line, Gateway(s3, gateway.archive, gateway.vault)
    await line.down()
    await s3.close()


class ArchiveStore:
    """The archive for the destinations' contract suite; objects are cut at ``max_events``."""

    def __init__(self, near: Gateway, far: Gateway, line: Line, *, max_events: int) -> None:
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
        await self._line.down()

    async def restore_server(self) -> None:
        await self._line.up()

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
