"""Documents of the index, overwritten with what catch-up would build from the ledger now.

The only place that replaces a document: followers create, so that nothing which was under way in an
erasure can bring back what was replaced. For leaves that the index follower is past. A month whose
index is gone gets one: the ledger has events of it.

Two who overwrite the same document have read the ledger at different times, and the one whose values
are older may write last. So each takes a number before it reads, and the index refuses a document whose
number is lower than that of the one that is there (external versions). Whoever cut a value or destroyed
a key before taking a number is then sure that no document which was read before shows it again.
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
_READS = 5  # each lost one is another rewrite of the same documents that was done
_CONFLICT = 409
_AT_ONCE = 500  # documents in one request: 1 MB of large ones


class Place(NamedTuple):
    """One event with its log's name and its leaf."""

    log: str
    leaf: int
    event: SealedEvent


class Overwritten(NamedTuple):
    """How many documents were written in full, how many as stubs because the index refuses them, and where."""

    documents: int = 0
    stubs: int = 0
    indices: frozenset[str] = frozenset()

    def plus(self, other: Overwritten) -> Overwritten:
        """Both together."""
        return Overwritten(
            self.documents + other.documents,
            self.stubs + other.stubs,
            self.indices | other.indices,
        )


class _Outrun(Exception):
    """Somebody who read later has written first."""


ReadPlaces = Callable[[], Awaitable[Sequence[Place]]]


class IndexRewriter:
    """Overwrites and removes; the client belongs to whoever made it. ``next_number`` gives a higher
    number at each call, to whoever calls it (``sinks.rewrite_numbers``).
    """

    def __init__(
        self,
        client: AsyncElasticsearch,
        documents: Documents,
        next_number: Callable[[], Awaitable[int]],
        *,
        prefix: str,
        retry_first_s: float,
        retry_max_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._next_number = next_number
        self._bulk = BulkClient(client)
        self._documents = documents
        self._prefix = prefix
        self._retry_first_s = retry_first_s
        self._retry_max_s = retry_max_s
        self._sleep = sleep

    async def overwrite(self, read: ReadPlaces, *, refresh: bool = True) -> Overwritten:
        """Write the documents of the events that ``read`` gives, whose ``opened`` holds what may be shown.

        ``read`` asks ledger and keys anew at each call, and remembers neither. Durable on return, and
        what a search finds once the indices are refreshed, which is done here unless the caller does it
        at the end of more. Doing it again changes nothing.

        Raises:
            Unavailable: Nothing is known of the rest; call again.
        """
        for _ in range(_READS):
            number = await self._next_number()
            places = await read()
            try:
                written = await self._written(places, number)
            except _Outrun:
                continue
            for index in sorted(written.indices) if refresh else ():
                await self._asked(
                    self._client.indices.refresh(index=index, ignore_unavailable=True)
                )
            return written
        raise unavailable("others keep rewriting the same documents")

    async def _written(self, places: Sequence[Place], number: int) -> Overwritten:
        written = Overwritten()
        for start in range(0, len(places), _AT_ONCE):
            lines = [self._line(place, number) for place in places[start : start + _AT_ONCE]]
            written = written.plus(await self._store(lines, number))
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

    def _line(self, place: Place, number: int, refused: str = "") -> Line:
        log, leaf, event = place
        index = self.index_of(event)
        action = (
            f'{{"index":{{"_index":"{index}","_id":"{uuid_text(event.event_id)}",'
            f'"version":{number},"version_type":"external_gte"}}}}\n'
        )
        if refused:
            body = self._documents.stub(event, log, leaf, refused=refused)
        else:
            body = self._documents.document(event, log, leaf)
        return Line(action.encode() + body + b"\n", index, event, log, leaf, bool(refused))

    async def _store(self, lines: list[Line], number: int) -> Overwritten:
        """Send documents until each is there, in full or as a stub. Raises ``_Outrun``."""
        written = Overwritten()
        backoff = Backoff(self._retry_first_s, self._retry_max_s)
        for _ in range(_TRIES):
            answer = await self._bulk.bulk(b"".join([line.text for line in lines]))
            if answer.too_large and len(lines) > 1:
                middle = len(lines) // 2
                written = written.plus(await self._store(lines[:middle], number))
                return written.plus(await self._store(lines[middle:], number))
            if answer.too_large:
                verdicts = [Verdict(lines[0], 413, "request_too_large")]
            elif answer.errors:
                verdicts = [
                    Verdict(line, item.status, item.error)
                    for line, item in zip(lines, answer.items, strict=True)
                ]
            else:
                return written.plus(_counted(lines))
            done = [verdict.line for verdict in verdicts if verdict.status < 300]
            written = written.plus(_counted(done))
            for index in sorted({one.line.index_name for one in verdicts if one.index_missing}):
                await self._bulk.create_index(index)
            lines = self._again(verdicts, number)
            if not lines:
                return written
            await self._sleep(backoff.next_s())
        raise unavailable(f"{len(lines)} documents not taken in {_TRIES} tries")

    def _again(self, verdicts: Sequence[Verdict], number: int) -> list[Line]:
        """What has to be sent again, and in which form."""
        lines = []
        for verdict in verdicts:
            line = verdict.line
            if verdict.status < 300:
                continue
            if verdict.status == _CONFLICT:
                raise _Outrun
            if verdict.refused and not line.is_stub:
                place = Place(line.log, line.leaf, line.event)
                lines.append(self._line(place, number, refused=verdict.error))
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
    return Overwritten(len(lines) - stubs, stubs, frozenset(line.index_name for line in lines))
