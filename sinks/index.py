"""Elasticsearch destination: the copy of the trail that people search.

One document per event however often a leaf is given: ``_id`` is the event id and ``op_type`` is
``create``, so a document that is there already answers 409 and stays as it is. Guarantees that no
single document stops the index: what the server refuses is indexed as a stub without content.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pipeline.domain.errors import Unavailable
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.native import native, runs
from sinks.backoff import Backoff
from sinks.bulk import (
    BulkAnswer,
    BulkClient,
    Chunk,
    Line,
    Verdict,
    indexed,
    try_again,
    unavailable,
)
from sinks.documents import Documents, month_text, uuid_text

# A bulk whose single documents the server has no room for is tried this often before the whole
# call is given up as an outage, which the follower waits out.
_TRIES = 6
PARTS = 8  # of a request body, each built without a pause
_DOCUMENT_BYTES = 1_200  # until the first documents are made
_BODY_MIN_BYTES = 256 * 1024


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

    Up to ``in_flight`` requests of one ``write`` are under way at once. ``keys_epoch`` gives the epoch of
    the keys in memory, or raises ``Unavailable`` while none may be used: values that were opened with
    keys of an earlier one are not sent.
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
        keys_epoch: Callable[[], int] = lambda: 0,
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
        self._keys_epoch = keys_epoch
        self._document_bytes = _DOCUMENT_BYTES
        self._sleep = sleep

    async def open(self) -> None:
        """Nothing to open: the template is put by ``prepare_index`` when the worker starts."""

    async def write(self, ranges: Sequence[LeafRange]) -> Mapping[int, int]:
        """Index every leaf; see ``Destination.write``. Nothing is held back."""
        under_way: list[asyncio.Task[None]] = []
        epoch = self._keys_epoch()
        try:
            async for chunks in self._bulks(ranges):
                if len(under_way) >= self._in_flight:
                    await under_way.pop(0)
                under_way.append(asyncio.ensure_future(self._store(chunks, epoch)))
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

    async def _bulks(self, ranges: Sequence[LeafRange]) -> AsyncIterator[list[Chunk]]:
        """Documents, cut into request bodies of one size, ``bulk_max_bytes`` at most."""
        events = sum([len(leaves.events) for leaves in ranges])
        aim_bytes = self._body_bytes(events)
        all_bytes = 0
        body: list[Chunk] = []
        body_bytes = 0
        for chunk in self.chunks(ranges, aim_bytes // PARTS):
            # Half a chunk more or less: cutting before it every time would leave a small last body.
            with_it = body_bytes + len(chunk.text)
            over = with_it - len(chunk.text) // 2 > aim_bytes or with_it > self._bulk_max_bytes
            if body and over:
                yield body
                body, body_bytes = [], 0
            body.append(chunk)
            body_bytes += len(chunk.text)
            all_bytes += len(chunk.text)
            await asyncio.sleep(0)
        if body:
            self._document_bytes = all_bytes // events
            yield body

    def _body_bytes(self, events: int) -> int:
        """As many requests as are under way at once, or several times as many, all alike: the server
        is idle on one core while a full body is alone under way beside the end of a small one.
        """
        expected = events * self._document_bytes
        rounds = -(-expected // (self._bulk_max_bytes * self._in_flight))
        alike = expected // max(rounds * self._in_flight, 1)
        return min(max(alike, _BODY_MIN_BYTES), self._bulk_max_bytes)

    def chunks(self, ranges: Sequence[LeafRange], max_bytes: int) -> Iterator[Chunk]:
        """Documents, cut where other tasks may get their turn: a few milliseconds each."""
        for leaves in ranges:
            log = str(leaves.name)
            for at, compiled, run in runs(leaves.events):
                write = self._write_compiled if compiled else self._write_plain
                done = 0
                while done < len(run):
                    first_leaf = leaves.first_leaf + at + done
                    rest = run[done:] if done else run
                    text, count = write(rest, log, first_leaf, max_bytes)
                    yield Chunk(text, log, first_leaf, rest[:count])
                    done += count

    def _write_compiled(
        self, events: Sequence[Any], log: str, first_leaf: int, max_bytes: int
    ) -> tuple[bytes, int]:
        late_us = self._documents.late_after_us
        return native.bulk_lines(events, log, first_leaf, self._prefix, late_us, max_bytes)

    def _write_plain(
        self, events: Sequence[SealedEvent], log: str, first_leaf: int, max_bytes: int
    ) -> tuple[bytes, int]:
        """The part of a body that has these events, one at least, up to about ``max_bytes``."""
        texts: list[bytes] = []
        size_bytes = 0
        for leaf, event in enumerate(events, first_leaf):
            texts.append(self._line(event, log, leaf).text)
            size_bytes += len(texts[-1])
            if size_bytes >= max_bytes:
                break
        return b"".join(texts), len(texts)

    def _line(self, event: SealedEvent, log: str, leaf: int, stub: bytes | None = None) -> Line:
        index = f"{self._prefix}-{month_text(event.occurred_at_us)}"
        action = f'{{"create":{{"_index":"{index}","_id":"{uuid_text(event.event_id)}"}}}}\n'
        body = self._documents.document(event, log, leaf) if stub is None else stub
        return Line(action.encode() + body + b"\n", index, event, log, leaf, stub is not None)

    def _check(self, epoch: int) -> None:
        if self._keys_epoch() != epoch:
            raise Unavailable("postgres", "a person was erased: the leaves are read again")

    async def _store(self, chunks: Sequence[Chunk], epoch: int) -> None:
        """Send documents until each is there, in full or as a stub.

        Raises:
            Unavailable: The server does not answer, or has no room after several tries.
        """
        body = b"".join([chunk.text for chunk in chunks])
        self._check(epoch)
        first = await self._client.bulk(body)
        if not first.errors:
            return
        answer: BulkAnswer | None = first
        lines = [
            self._line(event, chunk.log, leaf)
            for chunk in chunks
            for leaf, event in enumerate(chunk.events, chunk.first_leaf)
        ]
        backoff = Backoff(self._retry_first_s, self._retry_max_s)
        for attempt in range(_TRIES):
            verdicts = await self._judge(lines, answer) if answer else await self._send(lines)
            answer = None
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
            self._check(epoch)
        raise unavailable(f"{len(lines)} documents not taken in {_TRIES} tries")

    async def _send(self, lines: list[Line]) -> list[Verdict]:
        """Send one body; what the server said of the documents that are not there yet."""
        return await self._judge(
            lines, await self._client.bulk(b"".join([line.text for line in lines]))
        )

    async def _judge(self, lines: list[Line], answer: BulkAnswer) -> list[Verdict]:
        """What an answer says of the documents that are not there yet; a body that was too large is
        sent again in halves.
        """
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
            stubs.append(self._line(line.event, line.log, line.leaf, body))
        if stubs:
            self._observer.index_refused(len(stubs))
        return stubs
