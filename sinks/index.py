"""Elasticsearch destination: the copy of the trail that people search.

One document per event however often a leaf is given: ``_id`` is the event id and ``op_type`` is
``create``, so a document that is there already answers 409 and stays as it is. Guarantees that no
single document stops the index: what the server refuses is indexed as a stub without content.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

from pipeline.domain.records import LeafRange, SealedEvent
from sinks.backoff import Backoff
from sinks.bulk import BulkClient, Line, Verdict, indexed, try_again, unavailable
from sinks.documents import Documents, month_text, uuid_text

# A bulk whose single documents the server has no room for is tried this often before the whole
# call is given up as an outage, which the follower waits out.
_TRIES = 6
PARTS = 8  # of a request body, each built without a pause


class IndexObserver(Protocol):
    """Where the figures go; ``pipeline.metrics.Metrics`` is one."""

    def index_refused(self, documents: int = 1) -> None:
        """Documents that the index refused and that stand there as stubs."""
        ...

    def index_retried(self, documents: int = 1) -> None:
        """Documents that the server had no room for and that were sent again."""
        ...


class IndexDestination:
    """The search index as a follower's destination; see ``sinks.base.Destination``.

    Up to ``in_flight`` requests of one ``write`` are under way at once.
    """

    name = "index"

    def __init__(
        self,
        client: BulkClient,
        documents: Documents,
        observer: IndexObserver,
        *,
        prefix: str,
        bulk_max_bytes: int,
        retry_first_s: float,
        retry_max_s: float,
        in_flight: int = 2,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._documents = documents
        self._observer = observer
        self._prefix = prefix
        self._bulk_max_bytes = bulk_max_bytes
        self._retry_first_s = retry_first_s
        self._retry_max_s = retry_max_s
        self._in_flight = in_flight
        self._sleep = sleep

    async def open(self) -> None:
        """Nothing to open: the template is put by ``prepare_index`` when the worker starts."""

    async def write(self, ranges: Sequence[LeafRange]) -> Mapping[int, int]:
        """Index every leaf; see ``Destination.write``. Nothing is held back."""
        under_way: list[asyncio.Task[None]] = []
        try:
            async for lines in self._bulks(ranges):
                if len(under_way) >= self._in_flight:
                    await under_way.pop(0)
                under_way.append(asyncio.ensure_future(self._store(lines)))
            while under_way:
                await under_way.pop(0)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        return {leaves.log_id: leaves.next_leaf for leaves in ranges}

    def forget(self, log_id: int) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _bulks(self, ranges: Sequence[LeafRange]) -> AsyncIterator[list[Line]]:
        """Documents, cut into request bodies of about ``bulk_max_bytes``."""
        body: list[Line] = []
        body_bytes = 0
        for part, part_bytes in self.parts(ranges):
            if body and body_bytes + part_bytes > self._bulk_max_bytes:
                yield body
                body, body_bytes = [], 0
            body += part
            body_bytes += part_bytes
            await asyncio.sleep(0)
        if body:
            yield body

    def parts(self, ranges: Sequence[LeafRange]) -> Iterator[tuple[list[Line], int]]:
        """Lines and their bytes, cut where other tasks may get their turn: a few milliseconds each."""
        part_max_bytes = self._bulk_max_bytes // PARTS
        lines: list[Line] = []
        size_bytes = 0
        for leaves in ranges:
            log = str(leaves.name)
            for leaf, event in enumerate(leaves.events, leaves.first_leaf):
                line = self._line(event, log, leaf, self._documents.document(event, log, leaf))
                lines.append(line)
                size_bytes += len(line.text)
                if size_bytes >= part_max_bytes:
                    yield lines, size_bytes
                    lines, size_bytes = [], 0
        if lines:
            yield lines, size_bytes

    def _line(self, event: SealedEvent, log: str, leaf: int, body: bytes) -> Line:
        index = f"{self._prefix}-{month_text(event.occurred_at_us)}"
        action = f'{{"create":{{"_index":"{index}","_id":"{uuid_text(event.event_id)}"}}}}\n'
        return Line(action.encode() + body, index, event, log, leaf)

    async def _store(self, lines: list[Line]) -> None:
        """Send documents until each is there, in full or as a stub.

        Raises:
            Unavailable: The server does not answer, or has no room after several tries.
        """
        backoff = Backoff(self._retry_first_s, self._retry_max_s)
        for attempt in range(_TRIES):
            verdicts = await self._send(lines)
            refused = [v for v in verdicts if v.refused]
            throttled = [v for v in verdicts if v.throttled]
            for index in sorted({v.line.index_name for v in verdicts if v.index_missing}):
                await self._client.create_index(index)
            lines = [v.line for v in verdicts if not v.refused] + self._stubs(refused)
            if not lines:
                return
            if throttled and attempt + 1 < _TRIES:
                self._observer.index_retried(len(throttled))
                await self._sleep(backoff.next_s())
        raise unavailable(f"{len(lines)} documents not taken in {_TRIES} tries")

    async def _send(self, lines: list[Line]) -> list[Verdict]:
        """Send one body; what the server said of the documents that are not there yet."""
        answer = await self._client.bulk(b"\n".join([line.text for line in lines]) + b"\n")
        if answer.too_large and len(lines) > 1:
            middle = len(lines) // 2
            return await self._send(lines[:middle]) + await self._send(lines[middle:])
        if answer.too_large:
            return [Verdict(lines[0], 413, "request_too_large")]
        if not answer.errors:
            return []
        verdicts = [
            Verdict(line, item.status, item.error)
            for line, item in zip(lines, answer.items, strict=True)
        ]
        open_questions = [verdict for verdict in verdicts if not indexed(verdict)]
        for verdict in open_questions:
            if not try_again(verdict):
                raise unavailable(f"{verdict.error} ({verdict.status})")
        return open_questions

    def _stubs(self, refused: list[Verdict]) -> list[Line]:
        """Lines without content for documents that the server will never take.

        Raises:
            Unavailable: It does not take a stub either: then it is not about the document.
        """
        stubs = []
        for verdict in refused:
            line = verdict.line
            if line.is_stub:
                raise unavailable(f"a stub was refused: {verdict.error}")
            body = self._documents.stub(line.event, line.log, line.leaf, refused=verdict.error)
            stubs.append(self._line(line.event, line.log, line.leaf, body)._replace(is_stub=True))
        if stubs:
            self._observer.index_refused(len(stubs))
        return stubs
