"""Documents of the index, overwritten with what catch-up would build from the ledger now.

The only place that replaces a document: followers create, so that nothing which was under way in an
erasure can bring back what was replaced. For leaves that the index follower is past. A month whose
index is gone gets one: the ledger has events of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from elasticsearch import ApiError, AsyncElasticsearch, TransportError

from pipeline.domain.errors import Unavailable
from pipeline.domain.records import SealedEvent
from pipeline.tls import failure
from sinks.backoff import Backoff
from sinks.bulk import BulkClient, Line, Verdict, unavailable
from sinks.documents import Documents, month_text, uuid_text

_TRIES = 6
_AT_ONCE = 500  # documents in one request: 1 MB of large ones


class Place(NamedTuple):
    """One event with its log's name and its leaf."""

    log: str
    leaf: int
    event: SealedEvent


class Overwritten(NamedTuple):
    """How many documents were written in full, and how many as stubs, because the index refuses them."""

    documents: int
    stubs: int

    def __add__(self, other: object) -> Overwritten:
        if not isinstance(other, Overwritten):
            return NotImplemented
        return Overwritten(self.documents + other.documents, self.stubs + other.stubs)


class IndexRewriter:
    """Overwrites and removes; the client belongs to whoever made it."""

    def __init__(
        self,
        client: AsyncElasticsearch,
        documents: Documents,
        *,
        prefix: str,
        retry_first_s: float,
        retry_max_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._bulk = BulkClient(client)
        self._documents = documents
        self._prefix = prefix
        self._retry_first_s = retry_first_s
        self._retry_max_s = retry_max_s
        self._sleep = sleep

    async def overwrite(self, places: Sequence[Place], *, refresh: bool = True) -> Overwritten:
        """Write the documents of events whose ``opened`` holds what may be shown; how many.

        Durable on return, and what a search finds once the indices are refreshed, which is done here
        unless the caller does it at the end of more. Doing it again changes nothing.

        Raises:
            Unavailable: Nothing is known of the rest; call again with the same events.
        """
        written, months = Overwritten(0, 0), set[str]()
        for start in range(0, len(places), _AT_ONCE):
            lines = [self._line(place) for place in places[start : start + _AT_ONCE]]
            written += await self._store(lines)
            months |= {line.index_name for line in lines}
        for index in sorted(months) if refresh else ():
            await self._asked(self._client.indices.refresh(index=index, ignore_unavailable=True))
        return written

    async def purge(self, indices: Sequence[str]) -> None:
        """Begin to merge away what was overwritten: until then it is in the segments' files.

        Not waited for; ``expunge_deletes_allowed`` 0, so that not even a tenth may stay.
        """
        for index in indices:
            settings = {"index.merge.policy.expunge_deletes_allowed": 0}
            await self._asked(
                self._client.indices.put_settings(
                    index=index, settings=settings, ignore_unavailable=True
                )
            )
            await self._asked(
                self._client.perform_request(
                    "POST",
                    f"/{index}/_forcemerge?only_expunge_deletes=true&ignore_unavailable=true"
                    "&wait_for_completion=false",
                    headers={"accept": "application/json"},
                )
            )

    async def drop_month(self, month: str) -> int:
        """Delete the index of a month (``YYYY.MM``); the bytes that it freed, none if it is gone."""
        index = f"{self._prefix}-{month}"
        try:
            stats = await self._client.indices.stats(index=index, metric="store")
            freed = int(stats["_all"]["total"]["store"]["size_in_bytes"])
            await self._client.indices.delete(index=index)
        except ApiError as error:
            if error.status_code == 404:
                return 0
            raise unavailable(f"status {error.status_code}") from None
        except TransportError as error:
            raise unavailable(failure(error, "AUDIT_ELASTICSEARCH_CA_FILE")) from error
        return freed

    def index_of(self, event: SealedEvent) -> str:
        """The index that an event's document is in."""
        return f"{self._prefix}-{month_text(event.occurred_at_us)}"

    def _line(self, place: Place, refused: str = "") -> Line:
        log, leaf, event = place
        index = self.index_of(event)
        action = f'{{"index":{{"_index":"{index}","_id":"{uuid_text(event.event_id)}"}}}}\n'
        if refused:
            body = self._documents.stub(event, log, leaf, refused=refused)
        else:
            body = self._documents.document(event, log, leaf)
        return Line(action.encode() + body + b"\n", index, event, log, leaf, bool(refused))

    async def _store(self, lines: list[Line]) -> Overwritten:
        """Send documents until each is there, in full or as a stub; how many are."""
        written = Overwritten(0, 0)
        backoff = Backoff(self._retry_first_s, self._retry_max_s)
        for _ in range(_TRIES):
            answer = await self._bulk.bulk(b"".join([line.text for line in lines]))
            if answer.too_large and len(lines) > 1:
                middle = len(lines) // 2
                written += await self._store(lines[:middle])
                return written + await self._store(lines[middle:])
            if answer.too_large:
                verdicts = [Verdict(lines[0], 413, "request_too_large")]
            elif answer.errors:
                verdicts = [
                    Verdict(line, item.status, item.error)
                    for line, item in zip(lines, answer.items, strict=True)
                ]
            else:
                return written + _counted(lines)
            written += _counted([verdict.line for verdict in verdicts if verdict.status < 300])
            for index in sorted({one.line.index_name for one in verdicts if one.index_missing}):
                await self._bulk.create_index(index)
            lines = self._again(verdicts)
            if not lines:
                return written
            await self._sleep(backoff.next_s())
        raise unavailable(f"{len(lines)} documents not taken in {_TRIES} tries")

    def _again(self, verdicts: Sequence[Verdict]) -> list[Line]:
        """What has to be sent again, and in which form."""
        lines = []
        for verdict in verdicts:
            line = verdict.line
            if verdict.status < 300:
                continue
            if verdict.refused and not line.is_stub:
                place = Place(line.log, line.leaf, line.event)
                lines.append(self._line(place, refused=verdict.error))
            elif verdict.throttled or verdict.index_missing:
                lines.append(line)
            else:
                raise unavailable(f"{verdict.error} ({verdict.status})")
        return lines

    async def _asked(self, call: Awaitable[object]) -> None:
        try:
            await call
        except ApiError as error:
            raise unavailable(f"status {error.status_code}") from None
        except TransportError as error:
            raise Unavailable(
                "elasticsearch", failure(error, "AUDIT_ELASTICSEARCH_CA_FILE")
            ) from error


def _counted(lines: Sequence[Line]) -> Overwritten:
    stubs = sum(line.is_stub for line in lines)
    return Overwritten(len(lines) - stubs, stubs)
