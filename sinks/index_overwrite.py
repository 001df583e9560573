"""Overwriting documents of the search index with what catch-up would build now.

The only place that replaces a document: followers create, so that nothing which was under way in an
erasure can bring back what was replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from pipeline.domain.records import SealedEvent
from sinks.backoff import Backoff
from sinks.bulk import BulkClient, Verdict, unavailable
from sinks.documents import Documents, month_text, uuid_text

_TRIES: Final = 8
_BODY_BYTES: Final = 1024 * 1024

Placed = tuple[str, int, SealedEvent]  # log name, leaf index, event with its opened values


class IndexOverwriter:
    """Puts documents in the place of those that are there."""

    def __init__(
        self,
        client: BulkClient,
        documents: Documents,
        *,
        prefix: str,
        retry_first_s: float,
        retry_max_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._documents = documents
        self._prefix = prefix
        self._retry_first_s = retry_first_s
        self._retry_max_s = retry_max_s
        self._sleep = sleep

    async def overwrite(self, leaves: Sequence[Placed]) -> int:
        """Replace the document of each leaf; how many are stubs, because the index refuses them.
        Durable on return; searches see it after a refresh.

        Raises:
            Unavailable: Some may be replaced; overwrite the same leaves again.
        """
        lines = [self._line(log, leaf, event) for log, leaf, event in leaves]
        stubs = size_bytes = start = 0
        for at, line in enumerate(lines):
            size_bytes += len(line)
            if size_bytes >= _BODY_BYTES or at + 1 == len(lines):
                stubs += await self._send(leaves[start : at + 1], lines[start : at + 1])
                start, size_bytes = at + 1, 0
        return stubs

    async def _send(self, leaves: Sequence[Placed], lines: Sequence[bytes]) -> int:
        backoff = Backoff(self._retry_first_s, self._retry_max_s)
        left = list(zip(leaves, lines, strict=True))
        stubs = 0
        for _try in range(_TRIES):
            answer = await self._client.bulk(b"".join([line for _leaf, line in left]))
            if answer.too_large:
                raise unavailable("the index takes no body of a megabyte")
            if not answer.errors:
                return stubs
            again = []
            for (placed, line), item in zip(left, answer.items, strict=True):
                if item.status < 300:
                    continue
                verdict = Verdict(None, item.status, item.error)  # type: ignore[arg-type] # no line
                if verdict.refused:
                    log, leaf, event = placed
                    stubs += 1
                    again.append((placed, self._line(log, leaf, event, refused=item.error)))
                    continue
                if verdict.index_missing:
                    await self._client.create_index(self._index(placed[2]))
                elif not verdict.throttled:
                    raise unavailable(f"{item.error} ({item.status})")
                again.append((placed, line))
            left = again
            if not left:
                return stubs
            await self._sleep(backoff.next_s())
        raise unavailable(f"{len(left)} documents not taken in {_TRIES} tries")

    def _line(self, log: str, leaf: int, event: SealedEvent, refused: str = "") -> bytes:
        action = (
            f'{{"index":{{"_index":"{self._index(event)}","_id":"{uuid_text(event.event_id)}"}}}}\n'
        )
        if refused:
            body = self._documents.stub(event, log, leaf, refused=refused)
        else:
            body = self._documents.document(event, log, leaf)
        return action.encode() + body + b"\n"

    def _index(self, event: SealedEvent) -> str:
        return f"{self._prefix}-{month_text(event.occurred_at_us)}"
